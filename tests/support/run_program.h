// Runs a program as a user would, and says what came out of it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/mapped_file.h"
#include "support/temporary_directory.h"

namespace kvcast {

/// A running or finished child process. Its output goes to files, so that it never waits for a
/// reader.
class Program {
 public:
  struct Options {
    std::string stdout_path = {};   ///< empty: captured
    rlim_t memory = RLIM_INFINITY;  ///< bytes of address space
  };
  explicit Program(std::vector<std::string> arguments) : Program(std::move(arguments), Options{}) {}
  Program(std::vector<std::string> arguments, const Options& options) {
    const std::string out =
        options.stdout_path.empty() ? (files_.path() / "out").string() : options.stdout_path;
    const std::string err = (files_.path() / "err").string();
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ != 0) return;
    dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    dup2(open(out.c_str(), O_WRONLY | O_CREAT, 0600), STDOUT_FILENO);
    dup2(open(err.c_str(), O_WRONLY | O_CREAT, 0600), STDERR_FILENO);
    const rlimit memory = {options.memory, options.memory};
    setrlimit(RLIMIT_AS, &memory);
    execv(argv[0], argv.data());
    _exit(127);
  }
  ~Program() {
    if (finished_ || pid_ <= 0) return;  // kill(-1) would end every process there is
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void send(int signal) const {
    if (pid_ > 0) kill(pid_, signal);
  }

  /// Its exit status, 1000 + signal if one ended it, -1 if it still runs after `limit`.
  int wait(std::chrono::milliseconds limit = std::chrono::minutes(2)) {
    const auto give_up = std::chrono::steady_clock::now() + limit;
    while (!finished_ && std::chrono::steady_clock::now() < give_up) {
      int state = 0;
      if (waitpid(pid_, &state, WNOHANG) == pid_) {
        finished_ = true;
        status_ = WIFEXITED(state) ? WEXITSTATUS(state) : 1000 + WTERMSIG(state);
      } else {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
    }
    return status_;
  }

  /// Waits until it has written something. False: it ended, or `limit` passed, before that.
  bool has_written(std::chrono::milliseconds limit = std::chrono::minutes(1)) {
    const auto give_up = std::chrono::steady_clock::now() + limit;
    while (out().empty()) {
      if (wait(std::chrono::milliseconds(5)) >= 0) return false;
      if (std::chrono::steady_clock::now() > give_up) return false;
    }
    return true;
  }

  /// Waits until `signal` would no longer end it at once: it is blocked, to be waited for. False:
  /// it ended, or `limit` passed, before that.
  bool has_blocked(int signal, std::chrono::milliseconds limit = std::chrono::minutes(1)) {
    const auto give_up = std::chrono::steady_clock::now() + limit;
    while ((blocked_signals() >> (signal - 1) & 1) == 0) {
      if (wait(std::chrono::milliseconds(5)) >= 0) return false;
      if (std::chrono::steady_clock::now() > give_up) return false;
    }
    return true;
  }

  [[nodiscard]] std::string out() const { return contents("out"); }
  [[nodiscard]] std::string err() const { return contents("err"); }

 private:
  /// A bit for each signal that its first thread has blocked, signal 1 the lowest.
  [[nodiscard]] uint64_t blocked_signals() const {
    std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
    std::string word;
    while (status >> word && word != "SigBlk:") {
    }
    uint64_t signals = 0;
    status >> std::hex >> signals;
    return signals;
  }

  [[nodiscard]] std::string contents(const char* name) const {
    return read_text_file(files_.path() / name).value_or("");
  }

  TemporaryDirectory files_;
  pid_t pid_ = -1;
  bool finished_ = false;
  int status_ = -1;
};

struct ProgramResult {
  int exit_code = -1;  ///< -1: it did not end by itself
  std::string out, error;
};

/// Runs the kvcast program that was built with the tests. `arguments` as typed in a shell.
inline ProgramResult run_kvcast(const std::string& arguments) {
  Program program(
      {"/bin/sh", "-c", std::string("exec '") + KVCAST_BINARY_DIR + "/kvcast' " + arguments});
  const int status = program.wait();
  return {status < 1000 ? status : -1, program.out(), program.err()};
}

}  // namespace kvcast
