// Memory for weights and scratch: aligned, and on huge pages where the system allows it.
#pragma once

#include <cstddef>
#include <memory>

namespace kvcast {

/// `bytes` of memory aligned to 64 bytes (2 MiB from 1 MiB on, with transparent huge pages asked
/// for). Null if there is none. Pages are touched by whoever writes first.
std::shared_ptr<std::byte> allocate_weights(size_t bytes);

/// A 64-byte aligned buffer that grows and stays: one per thread as thread_local scratch. What it
/// held is lost when it grows.
class Scratch {
 public:
  /// At least `bytes` bytes. Like operator new it has no way to go on without memory.
  std::byte* reserve(size_t bytes) {
    if (bytes > size_) grow(bytes);
    return data_.get();
  }

 private:
  void grow(size_t bytes);
  size_t size_ = 0;
  std::shared_ptr<std::byte> data_;
};

}  // namespace kvcast
