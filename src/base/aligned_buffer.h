#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace kvcast {

/// Uninitialised scratch memory for `T`, 64-byte aligned, that only grows. Contents are lost when
/// it grows. Move-only, not thread-safe.
template <typename T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t count) { ensure(count); }

  /// Memory for at least `count` elements.
  T* ensure(size_t count) {
    if (count > capacity_) {
      const size_t bytes = (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
      data_.reset();  // before the new block is asked for: the old contents are not kept
      capacity_ = 0;  // also where there is none to be had
      data_.reset(static_cast<T*>(std::aligned_alloc(kAlignment, bytes)));
      if (!data_) throw std::bad_alloc();
      capacity_ = count;
    }
    return data_.get();
  }
  [[nodiscard]] T* data() { return data_.get(); }
  [[nodiscard]] const T* data() const { return data_.get(); }
  [[nodiscard]] size_t capacity() const { return capacity_; }

 private:
  static constexpr size_t kAlignment = 64;
  struct Free {
    void operator()(T* pointer) const { std::free(pointer); }
  };
  std::unique_ptr<T, Free> data_;
  size_t capacity_ = 0;
};

}  // namespace kvcast
