// Memory for weights and scratch: aligned, and on huge pages where the system allows it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace kvcast {

/// `bytes` of memory aligned to 64 bytes (2 MiB from 1 MiB on, with transparent huge pages asked
/// for), given back as it is freed. Null if there is none. Pages are touched by whoever writes
/// first.
std::shared_ptr<std::byte> allocate_pages(size_t bytes);

/// The same for what stays as long as its model: cut from large pieces of address space, so that
/// small matrices and the ends of large ones are on huge pages too. From any thread.
std::shared_ptr<std::byte> allocate_weights(size_t bytes);

/// A 64-byte aligned buffer that grows and stays, thread_local to whoever calls a kernel: memory is
/// asked for before threads are woken, since nothing may throw among them. What it held is lost
/// when it grows.
class Scratch {
 public:
  /// At least `bytes` bytes; throws std::bad_alloc if there are none.
  std::byte* reserve(size_t bytes) {
    if (bytes > size_) grow(bytes);
    return data_.get();
  }

 private:
  void grow(size_t bytes);
  size_t size_ = 0;
  std::shared_ptr<std::byte> data_;
};

/// Bytes from one thread's part of a Scratch to the next: on lines, and pages, of its own.
constexpr int64_t padded_scratch_bytes(int64_t bytes) { return (bytes + 4095) / 4096 * 4096 + 64; }

}  // namespace kvcast
