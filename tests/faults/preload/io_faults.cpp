// LD_PRELOAD: one call of a program that reads or writes files or sockets goes wrong.
//   KVCAST_IO_FAULT=KIND:N      the N-th call (from 1) that KIND can happen to; N+: that and all
//   after it KVCAST_IO_FAULT_MARK=FILE   is made when it happens
// KIND: short (half of what was asked for is read or written), EINTR, ENOSPC (what makes, writes or
// renames files), EIO (what opens, reads, maps or writes them). Standard input, output and error
// are left alone; so is what the C library does inside itself (fwrite, fopen).
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>

namespace {

enum Kind { kNone, kShort, kInterrupted, kNoSpace, kBroken };

struct Fault {
  Kind kind = kNone;
  long nth = 0;
  bool lasting = false;
  std::atomic<long> calls{0};
};

Fault& fault() {
  static Fault* const chosen = [] {
    auto* made = new Fault;
    const char* text = std::getenv("KVCAST_IO_FAULT");
    if (text == nullptr) return made;
    for (const auto& [name, kind] : {std::pair{"short:", kShort},
                                     {"EINTR:", kInterrupted},
                                     {"ENOSPC:", kNoSpace},
                                     {"EIO:", kBroken}}) {
      if (std::strncmp(text, name, std::strlen(name)) != 0) continue;
      char* end = nullptr;
      made->kind = kind;
      made->nth = std::strtol(text + std::strlen(name), &end, 10);
      made->lasting = *end == '+';
    }
    return made;
  }();
  return *chosen;
}

/// Whether this call goes wrong in a way that can happen to it.
bool wrong(std::initializer_list<Kind> possible) {
  Fault& chosen = fault();
  for (const Kind kind : possible) {
    if (kind != chosen.kind) continue;
    const long call = ++chosen.calls;
    if (call != chosen.nth && !(chosen.lasting && call > chosen.nth)) return false;
    if (const char* mark = std::getenv("KVCAST_IO_FAULT_MARK")) {
      const long fd = syscall(SYS_openat, AT_FDCWD, mark, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
      syscall(SYS_close, fd);
    }
    errno = kind == kInterrupted ? EINTR : kind == kNoSpace ? ENOSPC : EIO;
    return true;
  }
  return false;
}

/// A file or a socket; what threads wake each other by (eventfd) knows no short or interrupted
/// call.
bool has_data(int fd) {
  struct stat info = {};
  return fd > STDERR_FILENO && fstat(fd, &info) == 0 &&
         (S_ISREG(info.st_mode) || S_ISSOCK(info.st_mode));
}

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

/// Half, but something.
size_t half(size_t bytes) { return bytes > 1 ? bytes / 2 : bytes; }

bool writes(int flags) { return (flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0; }

}  // namespace

extern "C" {

#define KVCAST_OPEN(name)                                                         \
  int name(const char* path, int flags, ...) {                                    \
    static auto* const real = next<int(const char*, int, ...)>(#name);            \
    va_list rest;                                                                 \
    va_start(rest, flags);                                                        \
    const mode_t mode = va_arg(rest, mode_t);                                     \
    va_end(rest);                                                                 \
    if (writes(flags) ? wrong({kNoSpace, kBroken}) : wrong({kBroken})) return -1; \
    return real(path, flags, mode);                                               \
  }
KVCAST_OPEN(open)
KVCAST_OPEN(open64)
#undef KVCAST_OPEN

int mkostemp(char* pattern, int flags) {
  static auto* const real = next<int(char*, int)>("mkostemp");
  return wrong({kNoSpace, kBroken}) ? -1 : real(pattern, flags);
}
int mkostemp64(char* pattern, int flags) {
  static auto* const real = next<int(char*, int)>("mkostemp64");
  return wrong({kNoSpace, kBroken}) ? -1 : real(pattern, flags);
}
int mkdir(const char* path, mode_t mode) {
  static auto* const real = next<int(const char*, mode_t)>("mkdir");
  return wrong({kNoSpace, kBroken}) ? -1 : real(path, mode);
}
int rename(const char* from, const char* to) {
  static auto* const real = next<int(const char*, const char*)>("rename");
  return wrong({kNoSpace, kBroken}) ? -1 : real(from, to);
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) {
  static auto* const real = next<int(int, const char*, int, const char*, unsigned)>("renameat2");
  return wrong({kNoSpace, kBroken}) ? -1 : real(from_folder, from, to_folder, to, flags);
}
int fsync(int fd) {
  static auto* const real = next<int(int)>("fsync");
  return wrong({kNoSpace, kBroken}) ? -1 : real(fd);
}

ssize_t read(int fd, void* out, size_t bytes) {
  static auto* const real = next<ssize_t(int, void*, size_t)>("read");
  if (has_data(fd) && wrong({kShort, kInterrupted, kBroken})) {
    return fault().kind == kShort ? real(fd, out, half(bytes)) : -1;
  }
  return real(fd, out, bytes);
}
ssize_t write(int fd, const void* from, size_t bytes) {
  static auto* const real = next<ssize_t(int, const void*, size_t)>("write");
  if (has_data(fd) && wrong({kShort, kInterrupted, kNoSpace, kBroken})) {
    return fault().kind == kShort ? real(fd, from, half(bytes)) : -1;
  }
  return real(fd, from, bytes);
}
ssize_t writev(int fd, const iovec* parts, int count) {
  static auto* const real = next<ssize_t(int, const iovec*, int)>("writev");
  if (has_data(fd) && wrong({kShort, kInterrupted, kNoSpace, kBroken})) {
    return fault().kind == kShort ? real(fd, parts, 1) : -1;
  }
  return real(fd, parts, count);
}
ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  static auto* const real = next<ssize_t(int, const msghdr*, int)>("sendmsg");
  if (!wrong({kShort, kInterrupted, kBroken})) return real(fd, message, flags);
  if (fault().kind != kShort) return -1;
  iovec first = message->msg_iov[0];
  first.iov_len = half(first.iov_len);
  msghdr part = *message;
  part.msg_iov = &first;
  part.msg_iovlen = 1;
  return real(fd, &part, flags);
}
ssize_t recvmsg(int fd, msghdr* message, int flags) {
  static auto* const real = next<ssize_t(int, msghdr*, int)>("recvmsg");
  if (!wrong({kShort, kInterrupted, kBroken})) return real(fd, message, flags);
  if (fault().kind != kShort) return -1;
  iovec first = message->msg_iov[0];
  first.iov_len = 1;
  msghdr part = *message;
  part.msg_iov = &first;
  part.msg_iovlen = 1;
  return real(fd, &part, flags);
}
ssize_t send(int fd, const void* from, size_t bytes, int flags) {
  static auto* const real = next<ssize_t(int, const void*, size_t, int)>("send");
  if (!wrong({kShort, kInterrupted, kBroken})) return real(fd, from, bytes, flags);
  return fault().kind == kShort ? real(fd, from, half(bytes), flags) : -1;
}
ssize_t recv(int fd, void* out, size_t bytes, int flags) {
  static auto* const real = next<ssize_t(int, void*, size_t, int)>("recv");
  if (!wrong({kShort, kInterrupted, kBroken})) return real(fd, out, bytes, flags);
  return fault().kind == kShort ? real(fd, out, 1, flags) : -1;
}

#define KVCAST_MMAP(name)                                                               \
  void* name(void* at, size_t bytes, int protection, int flags, int fd, off_t offset) { \
    static auto* const real = next<void*(void*, size_t, int, int, int, off_t)>(#name);  \
    if (fd >= 0 && wrong({kBroken})) return MAP_FAILED;                                 \
    return real(at, bytes, protection, flags, fd, offset);                              \
  }
KVCAST_MMAP(mmap)
KVCAST_MMAP(mmap64)
#undef KVCAST_MMAP

}  // extern "C"
