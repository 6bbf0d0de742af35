#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kvcast/result.h"

namespace kvcast {

struct SandboxLimits {
  double seconds = 5;                           ///< on the clock and of processor time
  int64_t memory_bytes = int64_t{1} << 30;      ///< address space
  int64_t file_bytes = int64_t{1} << 20;        ///< of one file
  int64_t temporary_bytes = int64_t{16} << 20;  ///< of all files, which live in memory
};

/// Runs Python that nobody has read. Through bubblewrap it gets a user, mount, process, network,
/// IPC and host-name space of its own: /usr to read, an empty /tmp to write, no network, no other
/// process, no capability, no further process or thread, limits on time, memory and files. As root
/// it runs as `nobody`. Everything it started is gone when run_python returns. Thread-safe.
class Sandbox {
 public:
  enum class Outcome { kPassed, kFailed, kTimedOut };

  /// An error if bubblewrap or Python is missing, or this machine permits no namespaces.
  static Result<Sandbox> create(const SandboxLimits& limits = {});

  /// Passed: the source ran to its end without an exception.
  [[nodiscard]] Outcome run_python(std::string_view source) const;

 private:
  explicit Sandbox(const SandboxLimits& limits) : limits_(limits) {}
  SandboxLimits limits_;
};

}  // namespace kvcast
