#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <utility>

namespace kvcast {

/// For people, on stderr. Where that is full, closed or a terminal that is gone the note is lost,
/// which stops nothing: fmt::print would throw.
template <typename... Args>
void print_note(fmt::format_string<Args...> format, Args&&... args) {
  const std::string text = fmt::format(format, std::forward<Args>(args)...);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace kvcast
