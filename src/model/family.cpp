#include "model/family.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>

namespace kvcast {
namespace {

constexpr std::array kFamilies = {&kOpenElm, &kLlama, &kQwen2, &kQwen3};

}  // namespace

Result<const ModelFamily*> find_family(const JsonFields& fields) {
  const auto model_type = fields.string("model_type");
  std::string known;
  for (const ModelFamily* family : kFamilies) {
    for (const std::string_view name : family->model_types) {
      if (model_type && name == *model_type) return family;
      known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", name);
    }
  }
  return fields.wrong("model_type", kFamilies.size() > 1 ? "one of " + known : known);
}

const ModelFamily& family_of(const ModelConfig& config) {
  const auto found = std::ranges::find(kFamilies, config.family, &ModelFamily::name);
  assert(found != kFamilies.end());
  return **found;
}

}  // namespace kvcast
