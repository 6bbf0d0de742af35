#include "train/text/train_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <thread>
#include <unordered_map>

#include "base/mapped_file.h"
#include "train/data/documents.h"
#include "train/data/error.h"
#include "train/data/random.h"

namespace kvcast::train {
namespace {

/// SentencePiece leaves out lines above this length; ours are paragraphs.
constexpr size_t kMaxLineBytes = 16384;

/// A share of the lines of every source, `sample_fraction` times its epochs, chosen by hash.
class SampledLines : public sentencepiece::SentenceIterator {
 public:
  explicit SampledLines(const TokenizerRecipe& recipe) : recipe_(recipe) { Next(); }

  bool done() const override { return done_; }
  void Next() override {
    while (next_line()) {
      const double fraction = recipe_.sample_fraction * recipe_.sources[source_ - 1].epochs;
      const bool chosen = falls_in_fraction(mix(recipe_.seed, line_number_++), fraction);
      if (!chosen || value_.empty() || value_.size() > kMaxLineBytes) continue;
      ++report_.lines;
      report_.text_bytes += static_cast<int64_t>(value_.size());
      return;
    }
    done_ = true;
  }
  const std::string& value() const override { return value_; }
  sentencepiece::util::Status status() const override { return {}; }
  [[nodiscard]] const TokenizerReport& report() const { return report_; }

 private:
  /// The next line of the current document, or of the next one.
  bool next_line() {
    while (position_ >= document_.size()) {
      if (!next_document()) return false;
    }
    const size_t end = std::min(document_.find('\n', position_), document_.size());
    value_ = document_.substr(position_, end - position_);
    position_ = end + 1;
    return true;
  }

  bool next_document() {
    while (true) {
      if (!reader_) {
        if (source_ == recipe_.sources.size()) return false;
        const SourceRecipe& source = recipe_.sources[source_++];
        reader_ = std::make_unique<DocumentReader>(source.path, source.encoding);
      }
      if (auto document = reader_->next()) {
        document_ = std::move(*document);
        position_ = 0;
        return true;
      }
      reader_.reset();
    }
  }

  const TokenizerRecipe& recipe_;
  TokenizerReport report_;
  std::unique_ptr<DocumentReader> reader_;
  size_t source_ = 0, position_ = 0;
  uint64_t line_number_ = 0;
  std::string document_, value_;
  bool done_ = false;
};

std::unordered_map<std::string, std::string> trainer_arguments(const TokenizerRecipe& recipe) {
  const int64_t threads = recipe.threads > 0
                              ? recipe.threads
                              : std::max<int64_t>(1, std::thread::hardware_concurrency());
  return {{"model_type", recipe.algorithm},
          {"vocab_size", std::to_string(recipe.vocab_size)},
          {"num_threads", std::to_string(threads)},
          {"unk_id", "0"},
          {"bos_id", "1"},
          {"eos_id", "2"},
          {"pad_id", "-1"},
          {"byte_fallback", "true"},
          {"split_digits", "true"},
          {"normalization_rule_name", "identity"},
          {"add_dummy_prefix", recipe.dummy_prefix ? "true" : "false"},
          {"remove_extra_whitespaces", "false"},
          {"allow_whitespace_only_pieces", "true"},
          {"character_coverage", "0.9995"},
          {"max_sentence_length", std::to_string(kMaxLineBytes)},
          {"minloglevel", "1"}};
}

}  // namespace

TokenizerReport train_tokenizer(const TokenizerRecipe& recipe) {
  SampledLines lines(recipe);
  if (lines.done()) throw TrainError("the sources gave no line to learn a tokenizer from");
  std::string model;
  const auto status =
      sentencepiece::SentencePieceTrainer::Train(trainer_arguments(recipe), &lines, &model);
  if (!status.ok()) throw TrainError("SentencePiece: " + status.ToString());
  if (recipe.output.has_parent_path()) {
    std::filesystem::create_directories(recipe.output.parent_path());
  }
  unwrap(write_file_atomically(recipe.output, model));
  TokenizerReport report = lines.report();
  sentencepiece::SentencePieceProcessor processor;
  if (const auto loaded = processor.LoadFromSerializedProto(model); !loaded.ok()) {
    throw TrainError("SentencePiece: " + loaded.ToString());
  }
  report.vocab_size = processor.GetPieceSize();
  return report;
}

}  // namespace kvcast::train
