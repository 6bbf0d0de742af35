// Constructs of public chat templates, as PyPI's jinja2 renders them; tests/golden/jinja/make.py
// made the cases.
#include <gtest/gtest.h>

#include "base/mapped_file.h"
#include "io/json.h"
#include "runtime/jinja/template.h"

namespace kvcast {
namespace {

using OrderedJson = nlohmann::ordered_json;

jinja::Value value_of(const OrderedJson& json) {
  if (json.is_string()) return json.get<std::string>();
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number()) return json.get<double>();
  if (json.is_null()) return jinja::None{};
  if (json.is_array()) {
    jinja::List list;
    for (const auto& item : json) list.push_back(value_of(item));
    return list;
  }
  const jinja::Value map((jinja::Map()));
  for (const auto& [key, value] : json.items()) map.set(key, value_of(value));
  return map;
}

TEST(JinjaGolden, TemplatesRenderAsJinjaRendersThem) {
  const auto file = std::filesystem::path(KVCAST_GOLDEN_DIR) / "jinja/cases.json";
  const auto json = OrderedJson::parse(*read_text_file(file));
  const jinja::Value globals = value_of(json["globals"]);
  ASSERT_GT(json["cases"].size(), 50U);
  for (const auto& one : json["cases"]) {
    const auto source = one["template"].get<std::string>();
    const auto parsed = jinja::Template::parse(source);
    ASSERT_TRUE(parsed) << source << "\n" << parsed.error().message;
    const auto text = parsed->render(globals);
    ASSERT_TRUE(text) << source << "\n" << text.error().message;
    EXPECT_EQ(*text, one["output"].get<std::string>()) << source;
  }
}

}  // namespace
}  // namespace kvcast
