#include "runtime/tool_calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace kvcast {
namespace {

/// What calls are wrapped in, white space left out.
struct Wrapping {
  std::string_view open, close;
  bool anywhere;  ///< else only where an answer begins, or behind another call
};
constexpr Wrapping kWrappings[] = {
    {"<tool_call>", "</tool_call>", true},
    {"{", "", false},
    {"```json{", "```", false},  // Qwen2.5-Coder does not always do as its template says
    {"```{", "```", false},
};

constexpr std::string_view kSpaces = " \n\r\t";
bool is_space(char c) { return kSpaces.find(c) != std::string_view::npos; }

/// The text of a JSON string; what is none stays as it is.
std::string text_of(const std::string& json) {
  const Json parsed = Json::parse(json, nullptr, false);
  return parsed.is_string() ? parsed.get<std::string>() : json;
}

}  // namespace

bool ToolCallObject::ends_value(char c) {
  if (in_string_) {
    if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      in_string_ = false;
      return depth_ == 0;
    }
    return false;
  }
  if (c == '"') in_string_ = true;
  if (c == '{' || c == '[') ++depth_;
  return (c == '}' || c == ']') && --depth_ == 0;
}

void ToolCallObject::begin_value(char c) {
  value_.clear();
  depth_ = 0;
  in_string_ = escaped_ = false;
  const bool is_arguments = key_ == "\"arguments\"" || key_ == "\"parameters\"";
  // Text that holds the arguments' JSON has to be complete before it can be read.
  streams_ = is_arguments && !has_arguments_ && c == '{';
  state_ = State::kInValue;
}

void ToolCallObject::end_value() {
  state_ = State::kAfter;
  if (key_ == "\"name\"") {
    if (value_.front() != '"' || !name_.empty()) state_ = State::kBroken;
    name_ = text_of(value_);
  } else if (key_ == "\"arguments\"" || key_ == "\"parameters\"") {
    if (!streams_ && !has_arguments_) arguments_ = value_ == "null" ? "{}" : text_of(value_);
    has_arguments_ = true;
  }
  streams_ = false;
}

bool ToolCallObject::add(char c) {
  const auto become = [&](bool expected, State next) {
    state_ = expected ? next : State::kBroken;
    return expected;
  };
  switch (state_) {
    case State::kComplete:
    case State::kBroken:
      return false;
    case State::kInKey:
      key_ += c;
      if (ends_value(c)) state_ = State::kColon;
      return true;
    case State::kInValue: {
      const bool is_scalar = depth_ == 0 && !in_string_ && !value_.empty();
      if (is_scalar && (c == ',' || c == '}' || is_space(c))) {
        end_value();
        return add(c);
      }
      value_ += c;
      if (streams_) arguments_ += c;
      if (ends_value(c)) end_value();
      return depth_ >= 0 || become(false, State::kBroken);
    }
    default:
      break;
  }
  if (is_space(c)) return true;
  switch (state_) {
    case State::kStart:
      return become(c == '{', State::kKey);
    case State::kKey:
      key_ = c;
      depth_ = 0;
      in_string_ = true;
      escaped_ = false;
      return become(c == '"', State::kInKey);
    case State::kColon:
      return become(c == ':', State::kValue);
    case State::kValue:
      if (c == ',' || c == '}' || c == ']' || c == ':') return become(false, State::kBroken);
      begin_value(c);
      return add(c);
    default:  // kAfter
      if (c == ',') return become(true, State::kKey);
      return become(c == '}', State::kComplete);
  }
}

std::string ToolCallObject::take_arguments() {
  if (is_complete() && !has_arguments_) {
    has_arguments_ = true;
    arguments_ = "{}";
  }
  return std::exchange(arguments_, {});
}

void ToolCallReader::add(std::string_view piece, AnswerParts& parts) {
  for (const char c : piece) add(c, parts);
}

void ToolCallReader::add(char c, AnswerParts& parts) {
  if (state_ == State::kDone) return;
  if (state_ == State::kCall) return add_to_call(c, parts);
  held_ += c;
  if (is_space(c)) return;
  compact_ += c;
  settle(parts);
}

/// Gives out what of the held text cannot begin a call.
void ToolCallReader::settle(AnswerParts& parts) {
  while (!compact_.empty()) {
    const bool is_after = state_ == State::kAfterCall;
    if (is_after && (compact_ == close_ || compact_ == ";")) {
      close_ = {};
      return drop_held();
    }
    bool may_become_one = is_after && close_.starts_with(compact_);
    for (const Wrapping& wrapping : kWrappings) {
      if (state_ == State::kText && !wrapping.anywhere) continue;
      if (compact_ == wrapping.open) return begin_call(wrapping.close);
      may_become_one |= wrapping.open.starts_with(compact_);
    }
    if (may_become_one) return;
    state_ = State::kText;
    const size_t end = held_.find_first_not_of(kSpaces) + 1;
    parts.content.append(held_, 0, end);
    held_.erase(0, end);
    compact_.erase(0, 1);
  }
}

void ToolCallReader::drop_held() {
  held_.clear();
  compact_.clear();
}

void ToolCallReader::begin_call(std::string_view close) {
  state_ = State::kCall;
  close_ = close;
  call_ = {};
  announced_ = false;
  if (compact_.back() == '{') call_.add('{');
}

void ToolCallReader::add_to_call(char c, AnswerParts& parts) {
  const bool taken = call_.add(c);
  const bool names_none = call_.name().empty()
                              ? call_.is_complete()
                              : std::ranges::find(tools_, call_.name()) == tools_.end();
  if (!announced_ && (call_.is_broken() || names_none)) {  // text after all
    state_ = State::kText;
    parts.content += held_ + c;
    return drop_held();
  }
  if (!announced_) held_ += c;
  give_call(parts);
  if (!call_.is_complete() && !call_.is_broken()) return;
  state_ = parallel_ ? State::kAfterCall : State::kDone;
  if (!taken) add(c, parts);
}

void ToolCallReader::give_call(AnswerParts& parts) {
  if (call_.name().empty()) return;
  if (!announced_) {
    announced_ = true;
    drop_held();
    parts.calls.push_back({calls_++, call_.name(), {}});
  }
  std::string arguments = call_.take_arguments();
  if (arguments.empty()) return;
  const bool goes_on = !parts.calls.empty() && parts.calls.back().index == calls_ - 1;
  if (!goes_on) parts.calls.push_back({calls_ - 1, {}, {}});
  parts.calls.back().arguments += arguments;
}

void ToolCallReader::end(AnswerParts& parts) {
  const bool is_rest_of_call = state_ == State::kAfterCall || (has_calls() && compact_.empty());
  if (!is_rest_of_call) parts.content += held_;
  drop_held();
  state_ = State::kDone;
}

bool is_tool_name(std::string_view name) {
  const auto is_fine = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  return !name.empty() && name.size() <= 64 && std::ranges::all_of(name, is_fine);
}

Result<std::string> tool_name(const Json& tool) {
  const Json type = tool.is_object() ? tool.value("type", Json()) : Json();
  const Json found = tool.is_object() ? tool.value("function", Json()) : Json();
  const Json function = found.is_object() ? found : Json::object();
  const Json name = function.value("name", Json());
  if (type != "function" || !name.is_string() || !is_tool_name(name.get<std::string>())) {
    return fail(R"(tools of type "function" with a name of 1..64 letters, digits, _, - or .)");
  }
  const Json parameters = function.value("parameters", Json());
  if (!parameters.is_null() && !parameters.is_object()) {
    return fail("parameters that are an object");
  }
  if (function.value("strict", Json()) == true) {
    return fail("\"strict\" not to be true: nothing here holds arguments to their schema");
  }
  return name.get<std::string>();
}

std::string tool_call_opening(ToolCallForm form, std::string_view name) {
  const std::string_view before = form == ToolCallForm::kTagged ? "<tool_call>\n" : "";
  const std::string_view key = form == ToolCallForm::kTagged ? "arguments" : "parameters";
  if (name.empty()) return fmt::format("{}{{\"name\": \"", before);
  // A model's own next token begins with the space.
  return fmt::format("{}{{\"name\": \"{}\", \"{}\":", before, name, key);
}

}  // namespace kvcast
