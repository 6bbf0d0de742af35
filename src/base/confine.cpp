#include "base/confine.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#ifdef __linux__
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace kvcast {

#ifdef __linux__
namespace {

/// Closed at the end of its scope.
struct Descriptor {
  explicit Descriptor(int64_t opened) : fd(static_cast<int>(opened)) {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int fd;
};

// What later headers than Debian 12's call these (ABI 2 and 3).
constexpr uint64_t kRefer = uint64_t{1} << 13;     // LANDLOCK_ACCESS_FS_REFER
constexpr uint64_t kTruncate = uint64_t{1} << 14;  // LANDLOCK_ACCESS_FS_TRUNCATE

constexpr uint64_t kWrite = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
                            LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                            LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
                            LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
                            LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM;

int64_t kernel_version() {
  return ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

}  // namespace

Result<bool> confine_files(std::span<const std::filesystem::path> writable) {
  const int64_t version = kernel_version();
  if (version < 1) return false;
  const uint64_t write = kWrite | (version >= 2 ? kRefer : 0) | (version >= 3 ? kTruncate : 0);
  landlock_ruleset_attr handled{};
  handled.handled_access_fs = write | LANDLOCK_ACCESS_FS_EXECUTE;
  const Descriptor rules(::syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0));
  if (rules.fd < 0) return false;
  for (const std::filesystem::path& folder : writable) {
    const Descriptor opened(::open(folder.c_str(), O_PATH | O_CLOEXEC));
    landlock_path_beneath_attr below{};
    below.allowed_access = write;
    below.parent_fd = opened.fd;
    if (opened.fd < 0 ||
        ::syscall(SYS_landlock_add_rule, rules.fd, LANDLOCK_RULE_PATH_BENEATH, &below, 0) != 0) {
      return fail(fmt::format("{}: cannot be allowed for writing: {}", folder.string(),
                              std::strerror(errno)));
    }
  }
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::syscall(SYS_landlock_restrict_self, rules.fd, 0) == 0;
}
#else
Result<bool> confine_files(std::span<const std::filesystem::path> /*writable*/) { return false; }
#endif

}  // namespace kvcast
