#include "tokenizer/tokenizer_json_parts.h"

#include <fmt/format.h>

#include "base/macros.h"
#include "tokenizer/word_patterns.h"

namespace kvcast {
namespace {

constexpr size_t kMaxSteps = 32;

/// Calls `read` with the part, or with each of a Sequence's, however they are nested.
Status each_part(const JsonPart& part, std::string_view list_name,
                 const std::function<Status(const JsonPart&, const std::string& type)>& read) {
  if (!part.json.is_object()) return part.refuse("expected an object with a type");
  KVCAST_TRY(const std::string type, part.text("type", ""));
  if (type != "Sequence") return read(part, type);
  KVCAST_TRY(const Json* list, part.list(list_name));
  if (list->size() > kMaxSteps) {
    return part.refuse(fmt::format("{} steps; expected at most {}", list->size(), kMaxSteps));
  }
  for (const Json& step : *list) KVCAST_CHECK(each_part({step, part.where}, list_name, read));
  return {};
}

/// {"String": "..."} or {"Regex": "..."}.
Result<Regex> read_pattern(const JsonPart& part) {
  const Json* pattern = part.find("pattern");
  if (pattern && pattern->is_object()) {
    const JsonPart inside = part.inside("pattern", *pattern);
    KVCAST_TRY(const std::string regex, inside.text("Regex", ""));
    if (!regex.empty()) return Regex::compile(regex, part.where);
    KVCAST_TRY(const std::string text, inside.text("String", ""));
    if (!text.empty()) return Regex::literal(text, part.where);
  }
  return part.refuse("pattern: expected a String or a Regex");
}

Result<PreTokenizerStep> split_step(std::string_view regex, const JsonPart& part) {
  PreTokenizerStep step;
  KVCAST_TRY(Regex compiled, Regex::compile(regex, part.where));
  step.regex.push_back(std::move(compiled));
  return step;
}

Result<PreTokenizerStep::Matches> read_behavior(const JsonPart& part) {
  using Matches = PreTokenizerStep::Matches;
  static constexpr std::pair<std::string_view, Matches> kNames[] = {
      {"Isolated", Matches::kIsolated},
      {"Removed", Matches::kRemoved},
      {"MergedWithPrevious", Matches::kMergedWithPrevious},
      {"MergedWithNext", Matches::kMergedWithNext},
      {"Contiguous", Matches::kContiguous}};
  KVCAST_TRY(const std::string name, part.text("behavior", ""));
  for (const auto& [known, matches] : kNames) {
    if (name == known) return matches;
  }
  return part.refuse(fmt::format("behavior \"{}\" is not known", name));
}

/// Steps that put spaces in front and cut before them.
Status read_metaspace(const JsonPart& part, BpeDescription& made) {
  KVCAST_TRY(const std::string symbol, part.text("replacement", kSpaceSymbol));
  if (symbol != kSpaceSymbol) return part.refuse("Metaspace: replacement: expected U+2581");
  KVCAST_TRY(const bool prefix, part.flag("add_prefix_space", true));
  KVCAST_TRY(const std::string scheme, part.text("prepend_scheme", prefix ? "always" : "never"));
  KVCAST_TRY(const bool is_split, part.flag("split", true));
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return part.refuse(fmt::format("Metaspace: prepend_scheme \"{}\" is not known", scheme));
  }
  made.pre_tokenizer.steps.push_back(
      {.kind = PreTokenizerStep::Kind::kSpaces, .regex = {}, .text = std::string(kSpaceSymbol)});
  if (scheme != "never") {
    made.pre_tokenizer.steps.push_back({.kind = PreTokenizerStep::Kind::kPrepend,
                                        .regex = {},
                                        .text = std::string(kSpaceSymbol),
                                        .only_at_start = scheme == "first"});
  }
  if (is_split) {
    KVCAST_TRY(PreTokenizerStep step, split_step(kSpaceSymbol, part));
    step.matches = PreTokenizerStep::Matches::kMergedWithNext;
    made.pre_tokenizer.steps.push_back(std::move(step));
  }
  return {};
}

Status read_byte_level(const JsonPart& part, BpeDescription& made) {
  made.byte_level = true;
  KVCAST_TRY(const bool prefix, part.flag("add_prefix_space", true));
  KVCAST_TRY(const bool cuts_words, part.flag("use_regex", true));
  if (prefix) {
    made.pre_tokenizer.steps.push_back(
        {.kind = PreTokenizerStep::Kind::kPrepend, .regex = {}, .text = " "});
  }
  if (cuts_words) {
    KVCAST_TRY(PreTokenizerStep step, split_step(kGpt2Words, part));
    made.pre_tokenizer.steps.push_back(std::move(step));
  }
  return {};
}

}  // namespace

Status read_normalizer(const JsonPart& whole, BpeDescription& made) {
  return each_part(
      whole, "normalizers", [&](const JsonPart& part, const std::string& type) -> Status {
        NormalizerStep step;
        if (type == "NFC") {
          step.kind = NormalizerStep::Kind::kCanonical;
        } else if (type == "NFKC") {
          step.kind = NormalizerStep::Kind::kCompatibility;
        } else if (type == "Prepend") {
          step.kind = NormalizerStep::Kind::kPrepend;
          KVCAST_TRY(step.text, part.text("prepend", ""));
        } else if (type == "Replace") {
          step.kind = NormalizerStep::Kind::kReplace;
          KVCAST_TRY(Regex regex, read_pattern(part));
          step.regex.push_back(std::move(regex));
          KVCAST_TRY(step.text, part.text("content", ""));
        } else {
          return part.refuse(fmt::format(
              "\"{}\" is not supported; expected NFC, NFKC, Prepend, Replace or Sequence", type));
        }
        made.normalizer.steps.push_back(std::move(step));
        return {};
      });
}

Status read_pre_tokenizer(const JsonPart& whole, BpeDescription& made) {
  return each_part(
      whole, "pretokenizers", [&](const JsonPart& part, const std::string& type) -> Status {
        if (made.byte_level) return part.refuse(fmt::format("\"{}\" after ByteLevel", type));
        if (type == "ByteLevel") return read_byte_level(part, made);
        if (type == "Metaspace") return read_metaspace(part, made);
        PreTokenizerStep step;
        if (type == "Split") {
          KVCAST_TRY(Regex regex, read_pattern(part));
          step.regex.push_back(std::move(regex));
          KVCAST_TRY(step.matches, read_behavior(part));
          KVCAST_TRY(step.invert, part.flag("invert", false));
        } else if (type == "Digits") {
          KVCAST_TRY(step, split_step(kDigit, part));
          KVCAST_TRY(const bool one_by_one, part.flag("individual_digits", false));
          if (!one_by_one) step.matches = PreTokenizerStep::Matches::kContiguous;
        } else {
          return part.refuse(fmt::format(
              "\"{}\" is not supported; expected ByteLevel, Digits, Metaspace, Split or Sequence",
              type));
        }
        made.pre_tokenizer.steps.push_back(std::move(step));
        return {};
      });
}

Status read_decoder(const JsonPart& whole, BpeDescription& made) {
  return each_part(whole, "decoders", [&](const JsonPart& part, const std::string& type) -> Status {
    if (type == "ByteLevel" || type == "ByteFallback" || type == "Fuse") return {};
    if (type == "Metaspace") {
      made.space_symbol = true;
      KVCAST_TRY(const bool prefix, part.flag("add_prefix_space", true));
      KVCAST_TRY(const std::string scheme,
                 part.text("prepend_scheme", prefix ? "always" : "never"));
      if (scheme != "never") made.leading_space = LeadingSpace::kFirstDropped;
      return {};
    }
    if (type == "Replace") {
      KVCAST_TRY(const Regex from, read_pattern(part));
      KVCAST_TRY(const std::string to, part.text("content", ""));
      if (from.pattern() != kSpaceSymbol || to != " ") {
        return part.refuse("Replace: expected U+2581 by a space");
      }
      made.space_symbol = true;
      return {};
    }
    if (type == "Strip") {
      KVCAST_TRY(const std::string what, part.text("content", ""));
      if (what != " " || part.json.value("start", Json()) != 1 ||
          part.json.value("stop", Json()) != 0) {
        return part.refuse("Strip: expected one space at the start");
      }
      made.leading_space = LeadingSpace::kFirstDropped;
      return {};
    }
    return part.refuse(
        fmt::format("\"{}\" is not supported; expected ByteLevel, ByteFallback, Fuse, "
                    "Metaspace, Replace, Strip or Sequence",
                    type));
  });
}

Status read_post_processor(const JsonPart& whole, BpeDescription& made) {
  return each_part(
      whole, "processors", [&](const JsonPart& part, const std::string& type) -> Status {
        if (type == "ByteLevel") return {};  // moves offsets only
        if (type != "TemplateProcessing") {
          return part.refuse(fmt::format(
              "\"{}\" is not supported; expected ByteLevel, TemplateProcessing or Sequence", type));
        }
        KVCAST_TRY(const Json* single, part.list("single"));
        const Json* special = part.find("special_tokens");
        auto* side = &made.special.before;
        for (const Json& item : *single) {
          const JsonPart piece = part.inside("single", item);
          if (item.is_object() && item.contains("Sequence")) {
            if (side == &made.special.after) return piece.refuse("the text is there twice");
            side = &made.special.after;
            continue;
          }
          const Json* token = item.is_object() ? piece.find("SpecialToken") : nullptr;
          if (!token || !token->is_object() || !special || !special->is_object()) {
            return piece.refuse(
                "expected Sequence, or SpecialToken with an entry in special_tokens");
          }
          KVCAST_TRY(const std::string name, (piece.inside("SpecialToken", *token).text("id", "")));
          const auto entry = special->find(name);
          const Json* ids = entry != special->end() && entry->is_object()
                                ? part.inside("special_tokens", *entry).find("ids")
                                : nullptr;
          if (!ids || !ids->is_array()) return piece.refuse(fmt::format("\"{}\" has no ids", name));
          for (const Json& id : *ids) {
            if (!id.is_number_integer() || id < 0 || id >= kMaxVocabulary) {
              return piece.refuse(fmt::format("\"{}\": its id is out of range", name));
            }
            side->push_back(id.get<int32_t>());
          }
        }
        if (!made.special.before.empty()) made.special.bos = made.special.before.front();
        if (!made.special.after.empty()) made.special.eos = made.special.after.back();
        return {};
      });
}

}  // namespace kvcast
