// A program at a terminal: what it shows, what is typed.
#pragma once

#include <gtest/gtest.h>
#include <pty.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace kvcast {

/// The program at a terminal of its own.
class Terminal {
 public:
  explicit Terminal(std::vector<std::string> arguments, unsigned short columns = 80) {
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    winsize size = {.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    pid_ = forkpty(&master_, nullptr, nullptr, &size);
    if (pid_ != 0) return;
    setenv("TERM", "xterm", 1);
    setenv("LC_ALL", "C.UTF-8", 1);
    execv(argv[0], argv.data());
    _exit(127);
  }
  ~Terminal() {
    close(master_);
    if (pid_ <= 0) return;  // has ended; kill(-1) would end everything
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  /// In pieces that a terminal's buffer holds, reading what is echoed meanwhile.
  void type(std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent = write(master_, text.data(), std::min<size_t>(text.size(), 512));
      ASSERT_GT(sent, 0);
      text.remove_prefix(static_cast<size_t>(sent));
      read_some(0);
    }
  }
  /// Waits until `text` has been shown once more than before.
  [[nodiscard]] bool shows(const std::string& text) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < end) {
      const size_t found = shown_.find(text, seen_);
      if (found != std::string::npos) {
        seen_ = found + text.size();
        return true;
      }
      if (!read_some(100)) break;
    }
    ADD_FAILURE() << "not shown: " << text << " in " << shown_.substr(seen_);
    return false;
  }
  /// All that has been shown so far.
  [[nodiscard]] const std::string& shown() const { return shown_; }
  /// All that has been shown once the program has ended by itself.
  const std::string& all_shown() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < end && read_some(100)) {
    }
    return shown_;
  }
  /// Types Ctrl-D, again where a key came while the terminal changed modes. The exit status, or -1
  /// where there is none within a minute.
  int leave() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    auto again = std::chrono::steady_clock::now();
    do {
      const auto now = std::chrono::steady_clock::now();
      if (now > end) return -1;
      if (now < again) continue;
      type("\x04");
      again = now + std::chrono::seconds(2);
    } while (read_some(100));
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  /// False once the program has closed its side.
  bool read_some(int milliseconds) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(master_, &set);
    timeval limit = {.tv_sec = 0, .tv_usec = milliseconds * 1000};
    if (select(master_ + 1, &set, nullptr, nullptr, &limit) <= 0) return true;
    char block[4096];
    const ssize_t bytes = read(master_, block, sizeof block);
    if (bytes <= 0) return false;
    shown_.append(block, static_cast<size_t>(bytes));
    return true;
  }
  int master_ = -1;
  pid_t pid_ = -1;
  std::string shown_;
  size_t seen_ = 0;
};

}  // namespace kvcast
