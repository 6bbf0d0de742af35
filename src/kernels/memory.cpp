#include "kernels/memory.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <mutex>
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
  if (length < bytes) return nullptr;
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

/// Gives whole pages of [begin, begin + bytes) back to the system; the address space stays.
void give_back(std::byte* begin, size_t bytes) {
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const size_t first = round_up(address, kSmallPage) - address;
  const size_t last = (address + bytes) / kSmallPage * kSmallPage - address;
  if (first < last && last <= bytes) madvise(begin + first, last - first, MADV_DONTNEED);
}

/// Address space that allocations are cut from, one after the other. What is not written to takes
/// no memory.
class Arena {
 public:
  std::shared_ptr<std::byte> allocate(size_t bytes) {
    const size_t length = round_up(bytes, kAlignment);
    if (length < bytes) return nullptr;
    const std::scoped_lock lock(mutex_);
    std::shared_ptr<std::byte> region = region_.lock();
    if (region == nullptr || size_ - used_ < length) {
      const size_t size = std::max(kRegion, length);
      region = map_huge(size);
      if (region == nullptr) return nullptr;
      region_ = region;
      size_ = size;
      used_ = 0;
    }
    std::byte* const begin = region.get() + used_;
    used_ += length;
    return {begin, [region, bytes](std::byte* p) { give_back(p, bytes); }};
  }

 private:
  static constexpr size_t kRegion = size_t{1} << 30;
  std::mutex mutex_;
  std::weak_ptr<std::byte> region_;  // kept by the allocations in it
  size_t size_ = 0, used_ = 0;
};
#endif

}  // namespace

std::shared_ptr<std::byte> allocate_weights(size_t bytes) {
#if defined(__linux__)
  constexpr size_t kSmallest = size_t{64} << 10;  // what is less shares a page anyway
  static Arena arena;
  if (bytes >= kSmallest) {
    if (std::shared_ptr<std::byte> memory = arena.allocate(bytes)) return memory;
  }
#endif
  return allocate_pages(bytes);
}

std::shared_ptr<std::byte> allocate_pages(size_t bytes) {
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
  data_ = allocate_pages(larger);
  if (data_ == nullptr) throw std::bad_alloc();
  size_ = larger;
}

}  // namespace kvcast
