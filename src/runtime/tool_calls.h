// Tool calls in an answer's text, as they come.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "runtime/chat_template.h"

namespace kvcast {

/// A part of a call. The first part of each names the tool; what all of them add is its arguments.
struct ToolCallPart {
  int64_t index = 0;      ///< of the call within the answer
  std::string name;       ///< empty but in the first part
  std::string arguments;  ///< JSON text, perhaps a piece of it
};

/// What an answer says, and what it calls.
struct AnswerParts {
  std::string content;
  std::vector<ToolCallPart> calls;
};

/// {"name": ..., "arguments": ...}, byte by byte: names and extents of its values are known as soon
/// as they are there. Llama 3 says "parameters" for "arguments".
class ToolCallObject {
 public:
  /// Takes the next byte; false: the object is over, or is none, and the byte is not part of it.
  bool add(char c);
  [[nodiscard]] bool is_complete() const { return state_ == State::kComplete; }
  [[nodiscard]] bool is_broken() const { return state_ == State::kBroken; }
  /// Empty until it is known.
  [[nodiscard]] const std::string& name() const { return name_; }
  /// Arguments that have come since the last time.
  std::string take_arguments();

 private:
  enum class State { kStart, kKey, kInKey, kColon, kValue, kInValue, kAfter, kComplete, kBroken };
  [[nodiscard]] bool ends_value(char c);
  void begin_value(char c);
  void end_value();

  State state_ = State::kStart;
  std::string key_, value_;  // of the member that is being read, as JSON
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
  std::string name_, arguments_;
  bool has_arguments_ = false, streams_ = false;
};

/// Separates calls from text: <tool_call>{...}</tool_call> anywhere (Hermes, Qwen), or objects that
/// the answer begins with (Llama 3), in a code fence or not. An object that names none of the tools
/// is text.
class ToolCallReader {
 public:
  /// `parallel` false: one call at most; what follows it is dropped.
  ToolCallReader(std::vector<std::string> tools, bool parallel)
      : tools_(std::move(tools)), parallel_(parallel) {}

  /// Takes the next piece of the answer and appends to `parts` what is certain by now.
  void add(std::string_view piece, AnswerParts& parts);
  /// Nothing comes any more: appends what was held back.
  void end(AnswerParts& parts);
  [[nodiscard]] bool has_calls() const { return calls_ > 0; }

 private:
  enum class State { kBegin, kText, kCall, kAfterCall, kDone };
  void add(char c, AnswerParts& parts);
  void settle(AnswerParts& parts);
  void drop_held();
  void begin_call(std::string_view close);
  void add_to_call(char c, AnswerParts& parts);
  void give_call(AnswerParts& parts);

  std::vector<std::string> tools_;
  bool parallel_;
  State state_ = State::kBegin;
  std::string held_;        // may be the beginning of a call, or the space before one
  std::string compact_;     // the same without space
  std::string_view close_;  // what ends the call's wrapping
  ToolCallObject call_;
  bool announced_ = false;  // the call's name has been given out
  int64_t calls_ = 0;
};

/// Whether templates can print it anywhere.
bool is_tool_name(std::string_view name);
/// The name of a tool as OpenAI's API has it. An error says what was expected.
Result<std::string> tool_name(const Json& tool);

/// What an answer that must call a tool begins with; `name`: which one, empty: any.
std::string tool_call_opening(ToolCallForm form, std::string_view name);

}  // namespace kvcast
