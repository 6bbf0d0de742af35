// An answer of a small model, step by step, for tests that compare ways of decoding it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "prefill/strategy.h"
#include "runtime/answer_step.h"
#include "support/cache_rows.h"
#include "support/small_openelm.h"

namespace kvcast {

struct AnsweredOptions {
  std::string prefill = "exact";
  AnswerRules rules = {.max_tokens = 60, .sampling = {}, .stop = {}, .ignore_end_of_text = true};
  bool revise = false;
};

/// One answer, alone or beside others.
struct Answered {
  Answered(const Models& models, const AnsweredOptions& asked, const std::vector<int32_t>& prompt,
           int64_t drafts)
      : options(asked),
        sequence(models),
        drafter(drafts, auxiliary_may_guess(**PrefillStrategy::parse(asked.prefill), models)),
        writer(asked.rules, nullptr) {
    sequence.tokens = prompt;
    Sequence* const one[] = {&sequence};
    logits.resize(kSmallVocab);
    PrefillWorkspace workspace;
    const auto strategy = *PrefillStrategy::parse(options.prefill);
    strategy->prefill(models, one, logits.data(), workspace, {});
    if (strategy->refine_rows() != 0) {
      refiner.emplace(sequence,
                      RefineOptions{.rows = strategy->refine_rows(), .revise = options.revise});
    }
  }
  Answering answering() {
    return {&sequence, &writer, refiner ? &*refiner : nullptr,
            drafter.most() == 0 ? nullptr : &drafter};
  }

  AnsweredOptions options;
  Sequence sequence;
  Drafter drafter;
  AnswerWriter writer;
  std::optional<AnswerRefiner> refiner;
  std::vector<float> logits;
};

inline void write_all(const Models& models, std::span<Answered* const> answers) {
  std::vector<Answering> answering;
  std::vector<float> logits;
  for (Answered* answer : answers) {
    answering.push_back(answer->answering());
    logits.insert(logits.end(), answer->logits.begin(), answer->logits.end());
  }
  PrefillWorkspace workspace;
  ASSERT_TRUE(write_answers(models, answering, logits, workspace, [](size_t, const auto&) {}));
}

inline void expect_equal(const KVCache& cache, const KVCache& expected, const std::string& what) {
  EXPECT_EQ(cache.next_position(), expected.next_position()) << what;
  for (int64_t layer = 0; layer < cache.n_layers(); ++layer) {
    ASSERT_EQ(cache.rows(layer), expected.rows(layer)) << what;
    const int64_t rows = cache.rows(layer);
    EXPECT_TRUE(bytes_of(cache, layer, rows) == bytes_of(expected, layer, rows))
        << what << ", layer " << layer;
  }
}

/// Text, reason of its end and the answering model's cache, to the bit.
inline void expect_equal(const Answered& drafted, const Answered& plain, const std::string& what) {
  EXPECT_EQ(drafted.writer.tokens(), plain.writer.tokens()) << what;
  EXPECT_EQ(drafted.sequence.tokens, plain.sequence.tokens) << what;
  EXPECT_EQ(drafted.writer.finished(), plain.writer.finished()) << what;
  expect_equal(drafted.sequence.answering_cache(), plain.sequence.answering_cache(), what);
}

/// What is asked for one of several answers.
struct Asked {
  AnsweredOptions options;
  std::vector<int32_t> prompt;
  int64_t drafts = 0;
};

/// Answers that are decoded together, with drafts, are those of each alone and without.
inline void expect_equal_together(const Models& models, const std::vector<Asked>& asked) {
  std::vector<std::unique_ptr<Answered>> plain, drafted;
  std::vector<Answered*> together;
  for (const Asked& one : asked) {
    plain.push_back(std::make_unique<Answered>(models, one.options, one.prompt, 0));
    drafted.push_back(std::make_unique<Answered>(models, one.options, one.prompt, one.drafts));
    Answered* const alone[] = {plain.back().get()};
    write_all(models, alone);
    together.push_back(drafted.back().get());
  }
  write_all(models, together);
  for (size_t i = 0; i < plain.size(); ++i) {
    expect_equal(*drafted[i], *plain[i], "answer " + std::to_string(i));
  }
}

}  // namespace kvcast
