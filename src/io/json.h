// The JSON edge. JSON is turned into typed structs here and in the callers of read_json_file;
// nothing behind the edge sees a json value.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

#include "kvcast/result.h"

namespace kvcast {

using Json = nlohmann::json;

/// Parses text; nesting deeper than 64 levels, keys that appear twice in an object and trailing
/// bytes are errors. `where` names the source in messages.
Result<Json> parse_json(std::string_view text, std::string_view where);

/// Reads and parses a file whose top level must be an object.
Result<Json> read_json_object(const std::filesystem::path& path);

}  // namespace kvcast
