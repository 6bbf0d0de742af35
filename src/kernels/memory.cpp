#include "kernels/memory.h"

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace kvcast {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

#if defined(__linux__)
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSmallPage = 4096;

/// Starts on a huge page; ends on a small one, so that the tail wastes less than 4 KiB.
std::shared_ptr<std::byte> map_huge(size_t bytes) {
  const size_t length = round_up(bytes, kSmallPage);
  void* mapped = mmap(nullptr, length + kHugePage, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(mapped);
  const size_t skip =
      round_up(reinterpret_cast<uintptr_t>(begin), kHugePage) - reinterpret_cast<uintptr_t>(begin);
  if (skip > 0) munmap(begin, skip);
  if (skip < kHugePage) munmap(begin + skip + length, kHugePage - skip);
  madvise(begin + skip, length, MADV_HUGEPAGE);  // only advice: a refusal costs speed, not results
  return {begin + skip, [length](std::byte* p) { munmap(p, length); }};
}
#endif

}  // namespace

std::shared_ptr<std::byte> allocate_weights(size_t bytes) {
#if defined(__linux__)
  if (bytes >= kHugePage / 2) return map_huge(bytes);
#endif
  auto* const p =
      static_cast<std::byte*>(std::aligned_alloc(kAlignment, round_up(bytes, kAlignment)));
  if (p == nullptr) return nullptr;
  return {p, [](std::byte* q) { std::free(q); }};
}

void Scratch::grow(size_t bytes) {
  data_.reset();  // before the larger one, so that both are never held
  size_ = 0;
  const size_t larger = round_up(bytes + bytes / 4, kAlignment);
  data_ = allocate_weights(larger);
  if (data_ == nullptr) throw std::bad_alloc();
  size_ = larger;
}

}  // namespace kvcast
