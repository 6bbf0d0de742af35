#include "io/json.h"

#include <fmt/format.h>

#include <set>
#include <string>
#include <vector>

#include "base/macros.h"
#include "base/mapped_file.h"

namespace kvcast {
namespace {

constexpr int kMaxJsonDepth = 64;

/// Refuses deep nesting before the parser builds (and later destroys) it recursively.
bool too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxJsonDepth) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view where) {
  if (too_deep(text)) {
    return fail(fmt::format("{}: JSON is nested deeper than {} levels", where, kMaxJsonDepth));
  }
  // nlohmann keeps the last of duplicated keys; here they are an error, since two readers of one
  // file would otherwise disagree about what it says.
  std::vector<std::set<std::string>> keys;
  std::string duplicate;
  const auto watch = [&](int /*depth*/, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key &&
        !keys.back().insert(value.get_ref<const std::string&>()).second) {
      duplicate = value.get<std::string>();
    }
    return true;
  };
  try {
    Json json = Json::parse(text, watch);
    if (!duplicate.empty()) {
      return fail(fmt::format("{}: key \"{}\" appears twice", where, duplicate));
    }
    return json;
  } catch (const Json::exception& error) {
    std::string reason = error.what();
    if (const auto end = reason.find("] "); end != std::string::npos) reason.erase(0, end + 2);
    return fail(fmt::format("{}: not valid JSON: {}", where, reason));
  }
}

Result<Json> read_json_object(const std::filesystem::path& path) {
  KVCAST_TRY(const std::string text, read_text_file(path));
  KVCAST_TRY(Json json, parse_json(text, path.string()));
  if (!json.is_object()) return fail(fmt::format("{}: expected a JSON object", path.string()));
  return json;
}

}  // namespace kvcast
