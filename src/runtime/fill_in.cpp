#include "runtime/fill_in.h"

#include <algorithm>
#include <array>

namespace kvcast {
namespace {

/// Control tokens before prefix, suffix and what is to be filled in, by the names that models give
/// them.
constexpr std::array<std::array<std::string_view, 3>, 4> kFillInTokens = {{
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},
    {"<fim-prefix>", "<fim-suffix>", "<fim-middle>"},
    {"<PRE>", "<SUF>", "<MID>"},
}};

}  // namespace

std::optional<std::vector<int32_t>> fill_in_prompt(const Tokenizer& tokenizer,
                                                   std::string_view prefix,
                                                   std::string_view suffix) {
  const auto controls = tokenizer.control_tokens();
  for (const auto& names : kFillInTokens) {
    std::array<int32_t, 3> ids{};
    size_t found = 0;
    for (const auto& [name, id] : controls) {
      const auto at = std::ranges::find(names, std::string_view(name));
      if (at == names.end()) continue;
      ids[static_cast<size_t>(at - names.begin())] = id;
      ++found;
    }
    if (found < names.size()) continue;
    std::vector<int32_t> tokens = {ids[0]};
    const auto append = [&](std::string_view text, int32_t control) {
      const auto encoded = tokenizer.encode(text, false);
      tokens.insert(tokens.end(), encoded.begin(), encoded.end());
      tokens.push_back(control);
    };
    append(prefix, ids[1]);
    append(suffix, ids[2]);
    return tokens;
  }
  return std::nullopt;
}

std::vector<int32_t> fill_in_end_tokens(const Tokenizer& tokenizer) {
  std::vector<int32_t> tokens;
  for (const auto& [name, id] : tokenizer.control_tokens()) tokens.push_back(id);
  return tokens;
}

}  // namespace kvcast
