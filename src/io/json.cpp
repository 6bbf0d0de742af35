#include "io/json.h"

#include <fmt/format.h>

#include "base/macros.h"
#include "base/mapped_file.h"
#include "io/json_tree.h"

namespace kvcast {

Result<Json> parse_json(std::string_view text, std::string_view where) {
  return JsonTree().parse(text, where);
}

Result<Json> read_json_object(const std::filesystem::path& path) {
  KVCAST_TRY(const std::string text, read_text_file(path));
  KVCAST_TRY(Json json, parse_json(text, path.string()));
  if (!json.is_object()) return fail(fmt::format("{}: expected a JSON object", path.string()));
  return json;
}

}  // namespace kvcast
