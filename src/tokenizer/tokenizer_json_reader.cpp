#include "tokenizer/tokenizer_json_reader.h"

#include <fmt/format.h>

#include "base/macros.h"

namespace kvcast {

Result<Json> TokenizerJsonReader::read(std::string_view contents, const std::string& source) {
  texts_.reserve(contents.size());  // no text is longer than it is written
  return parse(contents, source);
}

std::string_view TokenizerJsonReader::keep(std::string_view text) {
  const size_t begin = texts_.size();
  texts_.append(text);
  return std::string_view(texts_).substr(begin);
}

bool TokenizerJsonReader::is_at(std::string_view member) const {
  return depth() == 3 && outer_ == "model" && inner_ == member;
}

bool TokenizerJsonReader::takes_value() {
  if (part_ == Part::kTree) return true;
  if (part_ != Part::kVocabulary) return refuse_merge();
  return refuse(
      fmt::format("model: vocab: \"{}\": expected an id within 0..{}", token_, kMaxVocabulary - 1));
}

bool TokenizerJsonReader::refuse_merge() {
  return refuse(fmt::format("model: merges: entry {}: expected two tokens", made_.merges.size()));
}

bool TokenizerJsonReader::number_integer(int64_t value) {
  return takes_value() && JsonTree::number_integer(value);  // negative ones alone come here
}

bool TokenizerJsonReader::number_unsigned(uint64_t value) {
  if (part_ == Part::kVocabulary && value < static_cast<uint64_t>(kMaxVocabulary)) {
    return add_token(value);
  }
  return takes_value() && JsonTree::number_unsigned(value);
}

bool TokenizerJsonReader::add_token(uint64_t id) {
  if (id >= made_.tokens.size()) made_.tokens.resize(id + 1);
  auto& place = made_.tokens[id];
  if (place.kind != TokenKind::kUnused) {
    return refuse(
        fmt::format("model: vocab: \"{}\" and \"{}\" both have id {}", place.text, token_, id));
  }
  if (!ids_.insert(token_, static_cast<int32_t>(id))) {
    return refuse(fmt::format("model: vocab: key \"{}\" appears twice", token_));
  }
  place = {token_, TokenKind::kText};
  return true;
}

/// "left right" or ["left", "right"].
bool TokenizerJsonReader::string(std::string& value) {
  if (part_ == Part::kMerge && pair_.size() < 2) {
    pair_.push_back(keep(value));
    return true;
  }
  if (part_ != Part::kMerges) return takes_value() && JsonTree::string(value);
  const std::string_view text = keep(value);
  const size_t space = text.find(' ');
  if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
    return refuse_merge();
  }
  return add_merge(text.substr(0, space), text.substr(space + 1));
}

bool TokenizerJsonReader::add_merge(std::string_view left, std::string_view right) {
  if (made_.merges.size() == static_cast<size_t>(kMaxVocabulary)) {
    return refuse(fmt::format("model: merges: more than {} entries", kMaxVocabulary));
  }
  made_.merges.emplace_back(left, right);
  return true;
}

bool TokenizerJsonReader::start_array(size_t elements) {
  if (part_ == Part::kMerges) {
    part_ = Part::kMerge;
    pair_.clear();
    return true;
  }
  if (!takes_value() || !JsonTree::start_array(elements)) return false;
  if (is_at("merges")) part_ = Part::kMerges;
  return true;
}

bool TokenizerJsonReader::end_array() {
  if (part_ == Part::kMerge) {
    if (pair_.size() != 2) return refuse_merge();
    part_ = Part::kMerges;
    return add_merge(pair_[0], pair_[1]);
  }
  part_ = Part::kTree;
  return JsonTree::end_array();
}

bool TokenizerJsonReader::start_object(size_t elements) {
  if (!takes_value() || !JsonTree::start_object(elements)) return false;
  if (is_at("vocab")) part_ = Part::kVocabulary;
  return true;
}

bool TokenizerJsonReader::end_object() {
  part_ = Part::kTree;
  return JsonTree::end_object();
}

bool TokenizerJsonReader::key(std::string& name) {
  if (part_ == Part::kVocabulary) {
    token_ = keep(name);
    return true;
  }
  if (depth() == 1) {
    outer_ = name;
    inner_.clear();
  } else if (depth() == 2) {
    inner_ = name;
  }
  return JsonTree::key(name);
}

}  // namespace kvcast
