// The parts of a tokenizer.json beside its vocabulary.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>

#include "io/json.h"
#include "kvcast/result.h"
#include "tokenizer/bpe_description.h"

namespace kvcast {

/// An object of the file and what to call it in messages ("FILE: pre_tokenizer").
struct JsonPart {
  const Json& json;
  std::string where;

  /// Missing and null are the same; then `otherwise` is the answer.
  [[nodiscard]] Result<bool> flag(std::string_view name, bool otherwise) const;
  [[nodiscard]] Result<std::string> text(std::string_view name, std::string_view otherwise) const;
  /// Null if it is missing or null.
  [[nodiscard]] const Json* find(std::string_view name) const;
  /// The list `name`; an error if there is none.
  [[nodiscard]] Result<const Json*> list(std::string_view name) const;
  [[nodiscard]] JsonPart inside(std::string_view name, const Json& value) const;
  [[nodiscard]] tl::unexpected<Error> refuse(std::string_view what) const;
};

Status read_normalizer(const JsonPart& part, BpeDescription& made);
Status read_pre_tokenizer(const JsonPart& part, BpeDescription& made);
Status read_decoder(const JsonPart& part, BpeDescription& made);
Status read_post_processor(const JsonPart& part, BpeDescription& made);

}  // namespace kvcast
