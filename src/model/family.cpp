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

Result<const ModelFamily*> find_gguf_family(std::string_view architecture,
                                            const std::string& where) {
  std::string known;
  for (const ModelFamily* family : kFamilies) {
    if (family->gguf_architecture.empty()) continue;
    if (family->gguf_architecture == architecture) return family;
    known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", family->gguf_architecture);
  }
  return fail(fmt::format("{}: key \"general.architecture\": expected one of {}, found \"{}\"",
                          where, known, architecture));
}

const ModelFamily& family_of(const ModelConfig& config) {
  const auto found = std::ranges::find(kFamilies, config.family, &ModelFamily::name);
  assert(found != kFamilies.end());
  return **found;
}

}  // namespace kvcast
