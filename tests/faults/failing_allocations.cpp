#include "faults/failing_allocations.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>

namespace kvcast {
namespace {

std::atomic<int64_t> calls_left{0};  // 0: none fails
std::atomic<bool> has_failed{false};
thread_local bool working = false;

/// nlohmann's destructors allocate (3.11), and end the program where they cannot: its calls are
/// left out. Needs the program's symbols to be exported.
bool called_by_json() {
  std::array<void*, 12> frames{};
  const int depth = backtrace(frames.data(), static_cast<int>(frames.size()));
  for (int i = 0; i < depth; ++i) {
    Dl_info where{};
    if (dladdr(frames[static_cast<size_t>(i)], &where) != 0 && where.dli_sname != nullptr &&
        std::strstr(where.dli_sname, "nlohmann") != nullptr) {
      return true;
    }
  }
  return false;
}

bool fails() {
  if (working) return false;
  if (calls_left.load(std::memory_order_relaxed) <= 0) return false;
  if (calls_left.fetch_sub(1, std::memory_order_relaxed) != 1) return false;
  has_failed = true;
  if (std::getenv("KVCAST_SHOW_ALLOCATIONS") != nullptr) {
    std::array<void*, 24> frames{};
    backtrace_symbols_fd(frames.data(), backtrace(frames.data(), 24), 2);
  }
  return !called_by_json();
}

void* allocate(std::size_t bytes, std::size_t alignment = alignof(std::max_align_t)) {
  if (fails()) return nullptr;
  if (alignment <= alignof(std::max_align_t)) return std::malloc(bytes == 0 ? 1 : bytes);
  void* memory = nullptr;
  return posix_memalign(&memory, alignment, bytes) == 0 ? memory : nullptr;
}

void* allocate_or_throw(std::size_t bytes, std::size_t alignment = alignof(std::max_align_t)) {
  void* const memory = allocate(bytes, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

FailingAllocation::FailingAllocation(int64_t nth) {
  called_by_json();  // backtrace() allocates when it is first called
  has_failed = false;
  calls_left = nth;
}

FailingAllocation::~FailingAllocation() { calls_left = 0; }

bool FailingAllocation::failed() { return has_failed; }

WorkingAllocations::WorkingAllocations() { working = true; }
WorkingAllocations::~WorkingAllocations() { working = false; }

}  // namespace kvcast

// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): replacements of the standard's
void* operator new(std::size_t bytes) { return kvcast::allocate_or_throw(bytes); }
void* operator new[](std::size_t bytes) { return kvcast::allocate_or_throw(bytes); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return kvcast::allocate_or_throw(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return kvcast::allocate_or_throw(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, const std::nothrow_t& /*tag*/) noexcept {
  return kvcast::allocate(bytes);
}
void* operator new[](std::size_t bytes, const std::nothrow_t& /*tag*/) noexcept {
  return kvcast::allocate(bytes);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t /*bytes*/) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t /*bytes*/) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t /*alignment*/) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t /*alignment*/) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t /*bytes*/, std::align_val_t /*a*/) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t /*bytes*/, std::align_val_t /*a*/) noexcept {
  std::free(memory);
}
// NOLINTEND

// The linker sends the library's calls here (--wrap).
extern "C" {
void* __real_aligned_alloc(std::size_t alignment, std::size_t bytes);
void* __wrap_aligned_alloc(std::size_t alignment, std::size_t bytes) {
  return kvcast::fails() ? nullptr : __real_aligned_alloc(alignment, bytes);
}
void* __real_mmap(void* at, std::size_t bytes, int protection, int flags, int file, off_t offset);
void* __wrap_mmap(void* at, std::size_t bytes, int protection, int flags, int file, off_t offset) {
  if (kvcast::fails()) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  return __real_mmap(at, bytes, protection, flags, file, offset);
}
}
