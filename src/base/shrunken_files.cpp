#include "base/shrunken_files.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstring>

namespace kvcast {
namespace {

/// What a signal handler may read: no memory of its own, no locks.
struct Mapping {
  std::atomic<uintptr_t> begin = 0;  ///< 0: free
  std::atomic<uintptr_t> end = 0;    ///< set last; below begin: not yet
  std::array<char, 512> path = {};   ///< its beginning
};

std::array<Mapping, 256> mappings;
const char* program_name = "kvcast";

uintptr_t address_of(const std::byte* byte) { return reinterpret_cast<uintptr_t>(byte); }

void say(const char* text) {
  // Nothing can be done if it cannot be written.
  [[maybe_unused]] const auto written = write(STDERR_FILENO, text, std::strlen(text));
}

void end_with_a_line(int signal, siginfo_t* info, void* /*context*/) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const Mapping& mapping : mappings) {
    if (address < mapping.begin || address >= mapping.end) continue;
    say(program_name);
    say(": ");
    say(mapping.path.data());
    say(": became shorter while it was in use, or cannot be read any more; put the whole file back "
        "and start again\n");
    _exit(1);
  }
  std::signal(signal, SIG_DFL);  // no file of ours: the read is tried again and ends the program
}

}  // namespace

void report_shrunken_files(const char* program) {
  program_name = program;
  struct sigaction action = {};
  action.sa_sigaction = end_with_a_line;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, nullptr);
}

void remember_mapping(std::span<const std::byte> bytes, std::string_view path) {
  for (Mapping& mapping : mappings) {
    uintptr_t free = 0;
    if (!mapping.begin.compare_exchange_strong(free, address_of(bytes.data()))) continue;
    const size_t length = std::min(path.size(), mapping.path.size() - 1);
    std::ranges::transform(path.substr(0, length), mapping.path.begin(), [](char c) {
      return static_cast<unsigned char>(c) < ' ' ? '?' : c;  // one line whatever its name
    });
    mapping.path[length] = '\0';
    mapping.end = address_of(bytes.data()) + bytes.size();
    return;
  }
}

void forget_mapping(std::span<const std::byte> bytes) {
  for (Mapping& mapping : mappings) {
    if (mapping.begin != address_of(bytes.data())) continue;
    mapping.end = 0;
    mapping.begin = 0;
    return;
  }
}

}  // namespace kvcast
