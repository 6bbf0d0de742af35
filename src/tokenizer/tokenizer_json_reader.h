// A tokenizer.json as it is parsed: its vocabulary and merges, which are most of it, go to a
// BpeDescription at once, the rest to a tree.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/json_tree.h"
#include "tokenizer/bpe_description.h"
#include "tokenizer/token_index.h"

namespace kvcast {

/// Owns the texts that the description's views are of.
class TokenizerJsonReader final : public JsonTree {
 public:
  explicit TokenizerJsonReader(BpeDescription& made) : made_(made) {}

  /// The tree of the file, in which model.vocab and model.merges, if they are an object and a list,
  /// are empty. Errors name the source and the entry. Once.
  Result<Json> read(std::string_view contents, const std::string& source);

  /// The vocabulary's id of a token; -1 if it has none.
  [[nodiscard]] int32_t find(std::string_view token) const { return ids_.find(token); }

 private:
  enum class Part { kTree, kVocabulary, kMerges, kMerge };

  bool null() override { return takes_value() && JsonTree::null(); }
  bool boolean(bool value) override { return takes_value() && JsonTree::boolean(value); }
  bool number_integer(int64_t value) override;
  bool number_unsigned(uint64_t value) override;
  bool number_float(double value, const std::string& text) override {
    return takes_value() && JsonTree::number_float(value, text);
  }
  bool string(std::string& value) override;
  bool start_object(size_t elements) override;
  bool key(std::string& name) override;
  bool end_object() override;
  bool start_array(size_t elements) override;
  bool end_array() override;

  /// Whether what was opened last is that member of the model.
  [[nodiscard]] bool is_at(std::string_view member) const;
  /// Whether a value may stand here that is neither an id of the vocabulary nor part of a merge.
  bool takes_value();
  bool refuse_merge();
  bool add_token(uint64_t id);
  bool add_merge(std::string_view left, std::string_view right);
  std::string_view keep(std::string_view text);

  BpeDescription& made_;
  TokenIndex ids_;
  std::string texts_;  // never grows beyond what it was made for: views of it stay
  Part part_ = Part::kTree;
  std::string outer_, inner_;  // keys of the last members of the file and of its object `outer_`
  std::string_view token_;     // of the vocabulary; its id comes next
  std::vector<std::string_view> pair_;  // of the merge that is being read
};

}  // namespace kvcast
