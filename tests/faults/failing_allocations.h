// Memory that runs out at a chosen call: operator new, aligned_alloc and mmap of this program.
#pragma once

#include <cstdint>

namespace kvcast {

/// While one lives, the `nth` allocation (from 1) of any thread fails. One at a time.
class FailingAllocation {
 public:
  explicit FailingAllocation(int64_t nth);
  ~FailingAllocation();
  FailingAllocation(const FailingAllocation&) = delete;
  FailingAllocation& operator=(const FailingAllocation&) = delete;

  /// Whether there were so many.
  [[nodiscard]] static bool failed();
};

/// While one lives nothing that this thread allocates fails, nor counts.
class WorkingAllocations {
 public:
  WorkingAllocations();
  ~WorkingAllocations();
  WorkingAllocations(const WorkingAllocations&) = delete;
  WorkingAllocations& operator=(const WorkingAllocations&) = delete;
};

}  // namespace kvcast
