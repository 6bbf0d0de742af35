#include "eval/sandbox.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <random>
#include <vector>

namespace kvcast {
namespace {

constexpr const char* kBubblewrap = "/usr/bin/bwrap";
constexpr const char* kPython = "/usr/bin/python3";
constexpr id_t kNobody = 65534;

/// Takes the source from standard input and says the given word on standard output if it ran to its
/// end. By then the source has neither of them, and cannot fork: the limit counts the sandbox's own
/// user, which has this process and bubblewrap's.
constexpr const char* kRunner = R"(import os, resource, sys
word = sys.argv.pop()
source = sys.stdin.read()
out = os.dup(1)
null = os.open('/dev/null', os.O_RDWR)
for fd in (0, 1, 2): os.dup2(null, fd)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
exec(compile(source, 'completion', 'exec'), {})
os.write(out, word.encode())
)";

std::vector<std::string> command(const SandboxLimits& limits, const std::string& word) {
  const std::string size = std::to_string(limits.temporary_bytes);
  return {kBubblewrap,
          "--unshare-user",
          "--unshare-pid",
          "--unshare-net",
          "--unshare-ipc",
          "--unshare-uts",
          "--unshare-cgroup-try",
          "--disable-userns",
          "--die-with-parent",
          "--new-session",
          "--clearenv",
          "--cap-drop",
          "ALL",
          "--ro-bind",
          "/usr",
          "/usr",
          "--symlink",
          "usr/lib",
          "/lib",
          "--symlink",
          "usr/lib64",
          "/lib64",
          "--symlink",
          "usr/bin",
          "/bin",
          "--size",
          size,
          "--tmpfs",
          "/tmp",
          "--dev",
          "/dev",
          "--remount-ro",
          "/dev",
          "--remount-ro",
          "/",
          "--chdir",
          "/tmp",
          kPython,
          "-I",
          "-c",
          kRunner,
          word};
}

void set_limit(__rlimit_resource resource, int64_t value) {
  const rlimit limit = {static_cast<rlim_t>(value), static_cast<rlim_t>(value)};
  if (setrlimit(resource, &limit) != 0) _exit(127);
}

/// In the child between fork and exec: system calls only.
[[noreturn]] void become(char* const* arguments, int input, int output,
                         const SandboxLimits& limits) {
  if (dup2(input, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0) _exit(127);
  if (geteuid() == 0) {
    if (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
        setresuid(kNobody, kNobody, kNobody) != 0) {
      _exit(127);
    }
  }
  set_limit(RLIMIT_CPU, static_cast<int64_t>(std::ceil(limits.seconds)) + 1);
  set_limit(RLIMIT_AS, limits.memory_bytes);
  set_limit(RLIMIT_FSIZE, limits.file_bytes);
  set_limit(RLIMIT_NOFILE, 64);
  set_limit(RLIMIT_CORE, 0);
  execv(arguments[0], arguments);
  _exit(127);
}

/// Closes itself.
struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

/// What comes out until `deadline`, as far as it is needed to see whether it is `word`.
Sandbox::Outcome read_word(int fd, const std::string& word,
                           std::chrono::steady_clock::time_point deadline) {
  std::string text;
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return Sandbox::Outcome::kTimedOut;
    pollfd wait = {fd, POLLIN, 0};
    if (poll(&wait, 1, static_cast<int>(left.count())) <= 0) continue;  // the time, or a signal
    char buffer[256];
    const ssize_t count = read(fd, buffer, sizeof buffer);
    if (count <= 0) break;
    text.append(buffer, static_cast<size_t>(count));
    if (text.size() >= word.size()) break;
  }
  return text == word ? Sandbox::Outcome::kPassed : Sandbox::Outcome::kFailed;
}

}  // namespace

Result<Sandbox> Sandbox::create(const SandboxLimits& limits) {
  for (const char* program : {kBubblewrap, kPython}) {
    if (access(program, X_OK) != 0) {
      return fail(
          fmt::format("generated code needs {} to run in a sandbox; on Debian: apt-get "
                      "install bubblewrap python3",
                      program));
    }
  }
  Sandbox sandbox(limits);
  if (sandbox.run_python("pass") != Outcome::kPassed) {
    return fail(
        "generated code cannot run here: bubblewrap gets no namespaces of its own "
        "(a container or the kernel forbids them)");
  }
  return sandbox;
}

Sandbox::Outcome Sandbox::run_python(std::string_view source) const {
  std::random_device random;
  const std::string word = fmt::format("{:08x}{:08x}{:08x}", random(), random(), random());
  const std::vector<std::string> words = command(limits_, word);
  std::vector<char*> arguments;
  for (const std::string& argument : words)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);

  const Descriptor input{memfd_create("source", MFD_CLOEXEC)};
  int ends[2];
  if (input.fd < 0 || pipe2(ends, O_CLOEXEC) != 0) return Outcome::kFailed;
  const Descriptor from{ends[0]};
  Descriptor to{ends[1]};
  if (write(input.fd, source.data(), source.size()) != static_cast<ssize_t>(source.size()) ||
      lseek(input.fd, 0, SEEK_SET) != 0) {
    return Outcome::kFailed;
  }
  const auto deadline = std::chrono::steady_clock::now() +
                        std::chrono::microseconds(static_cast<int64_t>(limits_.seconds * 1e6));
  const pid_t child = fork();
  if (child < 0) return Outcome::kFailed;
  if (child == 0) become(arguments.data(), input.fd, to.fd, limits_);
  close(to.fd);
  to.fd = -1;
  const Outcome outcome = read_word(from.fd, word, deadline);
  kill(child, SIGKILL);  // what it started goes with it (--die-with-parent)
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return outcome;
}

}  // namespace kvcast
