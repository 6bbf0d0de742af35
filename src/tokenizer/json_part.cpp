#include <fmt/format.h>

#include "tokenizer/tokenizer_json_parts.h"

namespace kvcast {

const Json* JsonPart::find(std::string_view name) const {
  if (!json.is_object()) return nullptr;
  const auto found = json.find(name);
  return found == json.end() || found->is_null() ? nullptr : &*found;
}

Result<bool> JsonPart::flag(std::string_view name, bool otherwise) const {
  const Json* value = find(name);
  if (!value) return otherwise;
  if (!value->is_boolean()) return refuse(fmt::format("{}: expected true or false", name));
  return value->get<bool>();
}

Result<std::string> JsonPart::text(std::string_view name, std::string_view otherwise) const {
  const Json* value = find(name);
  if (!value) return std::string(otherwise);
  if (!value->is_string()) return refuse(fmt::format("{}: expected a string", name));
  return value->get<std::string>();
}

Result<const Json*> JsonPart::list(std::string_view name) const {
  const Json* value = find(name);
  if (!value || !value->is_array()) return refuse(fmt::format("{}: expected a list", name));
  return value;
}

JsonPart JsonPart::inside(std::string_view name, const Json& value) const {
  return {value, fmt::format("{}: {}", where, name)};
}

tl::unexpected<Error> JsonPart::refuse(std::string_view what) const {
  return fail(fmt::format("{}: {}", where, what));
}

}  // namespace kvcast
