#pragma once

#include <memory>
#include <optional>
#include <string>

namespace kvcast {

/// What somebody writes, message by message: at a terminal with line editing and history, where
/// pasted lines are one message; from a pipe, line by line. Of any length.
class LineInput {
 public:
  /// Reads standard input.
  static std::unique_ptr<LineInput> open();
  virtual ~LineInput() = default;

  [[nodiscard]] virtual bool is_terminal() const = 0;
  /// The next message, without the newline at its end; nullopt at the end of the input. Empty after
  /// Ctrl-C.
  virtual std::optional<std::string> read() = 0;
};

}  // namespace kvcast
