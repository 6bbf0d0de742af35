#include "tokenizer/pre_tokenizer.h"

#include <optional>

#include "tokenizer/vocabulary.h"

namespace kvcast {
namespace {

using Matches = PreTokenizerStep::Matches;

/// Takes matches and what lies between them, in order, and gives out pieces.
class Joiner {
 public:
  Joiner(Matches matches, const std::function<void(RegexMatch)>& sink)
      : matches_(matches), sink_(sink) {}

  void take(RegexMatch range, bool is_match) {
    switch (matches_) {
      case Matches::kIsolated:
        sink_(range);
        break;
      case Matches::kRemoved:
        if (!is_match) sink_(range);
        break;
      case Matches::kMergedWithPrevious:  // but not to a match
        if (is_match && held_ && !held_is_match_) {
          held_->end = range.end;
        } else {
          finish();
          held_ = range;
        }
        break;
      case Matches::kMergedWithNext:  // but not to a match
        if (!is_match && held_ && held_is_match_) {
          held_->end = range.end;
        } else {
          finish();
          held_ = range;
        }
        break;
      case Matches::kContiguous:
        if (held_ && held_is_match_ == is_match) {
          held_->end = range.end;
        } else {
          finish();
          held_ = range;
        }
        break;
    }
    held_is_match_ = is_match;
  }
  void finish() {
    if (held_) sink_(*held_);
    held_.reset();
  }

 private:
  Matches matches_;
  const std::function<void(RegexMatch)>& sink_;
  std::optional<RegexMatch> held_;
  bool held_is_match_ = false;
};

void split(std::string_view text, const PreTokenizerStep& step, RegexMatcher& matcher,
           const std::function<void(RegexMatch)>& sink) {
  Joiner joiner(step.matches, sink);
  size_t done = 0;
  matcher.for_each(step.regex.front(), text, [&](RegexMatch match) {
    if (match.begin > done) joiner.take({done, match.begin}, step.invert);
    joiner.take(match, !step.invert);
    done = match.end;
  });
  if (done < text.size()) joiner.take({done, text.size()}, step.invert);
  joiner.finish();
}

/// One text on its way through the steps.
struct Run {
  const std::vector<PreTokenizerStep>& steps;
  RegexMatcher& matcher;
  const PreTokenizer::Sink& sink;

  void apply(size_t index, std::string_view piece, bool is_first) const {
    if (piece.empty()) return;
    if (index == steps.size()) return sink(piece);
    const PreTokenizerStep& step = steps[index];
    if (step.kind == PreTokenizerStep::Kind::kSplit) {
      split(piece, step, matcher, [&](RegexMatch range) {
        apply(index + 1, piece.substr(range.begin, range.end - range.begin),
              is_first && range.begin == 0);
      });
    } else if (step.kind == PreTokenizerStep::Kind::kSpaces) {
      apply(index + 1, replace_all(piece, " ", step.text), is_first);
    } else if (piece.starts_with(step.text) || (step.only_at_start && !is_first)) {
      apply(index + 1, piece, is_first);
    } else {
      apply(index + 1, step.text + std::string(piece), is_first);
    }
  }
};

}  // namespace

void PreTokenizer::apply(std::string_view text, bool at_start, RegexMatcher& matcher,
                         const Sink& sink) const {
  Run{steps, matcher, sink}.apply(0, text, at_start);
}

}  // namespace kvcast
