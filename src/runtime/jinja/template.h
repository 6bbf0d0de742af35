// A chat template in the subset of Jinja that docs/SERVER.md lists.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "kvcast/result.h"
#include "runtime/jinja/syntax.h"

namespace kvcast::jinja {

/// How errors begin by which a template refuses a conversation (raise_exception); all others are
/// the template's own.
inline constexpr std::string_view kRefusal = "the chat template refuses: ";

struct RenderLimits {
  size_t max_output_bytes = 4 << 20;
  int64_t max_steps = 1'000'000;      ///< statements and expressions evaluated
  size_t max_work_bytes = 256 << 20;  ///< of all values made on the way
};

/// Immutable; any number of threads may render it at once.
class Template {
 public:
  /// Errors name the line.
  static Result<Template> parse(std::string source);
  /// `globals` is a map. Errors: what the template refuses, misuse, limits exceeded.
  Result<std::string> render(const Value& globals, const RenderLimits& limits = {}) const;
  [[nodiscard]] const std::string& source() const { return *source_; }

 private:
  std::unique_ptr<std::string> source_;
  Block block_;
};

}  // namespace kvcast::jinja
