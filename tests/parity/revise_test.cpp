// Answers that are revised while their cache is refined are the exact model's own.
#include <gtest/gtest.h>

#include <algorithm>

#include "prefill/refine.h"
#include "prefill/strategy.h"
#include "runtime/answer_step.h"
#include "support/small_openelm.h"
#include "support/weight_types.h"

namespace kvcast {
namespace {

class Revise : public testing::TestWithParam<WeightType> {};

/// Greedy answers of 40 tokens: exact, and by a strategy with refinement.
struct Answer {
  std::vector<int32_t> tokens;
  Refinement refinement;
};
Answer answer(const Models& models, const std::string& spec, const std::vector<int32_t>& prompt,
              bool revise, const SamplingOptions& sampling = {}, int64_t max_tokens = 40) {
  Sequence sequence(models);
  Sequence* const one[] = {&sequence};
  std::vector<float> logits(kSmallVocab);
  PrefillWorkspace workspace;
  const auto strategy = *PrefillStrategy::parse(spec);
  sequence.tokens = prompt;
  strategy->prefill(models, one, logits.data(), workspace, {});
  AnswerWriter writer(
      {.max_tokens = max_tokens, .sampling = sampling, .stop = {}, .ignore_end_of_text = true},
      nullptr);
  AnswerRefiner refiner(sequence, {.rows = strategy->refine_rows(), .revise = revise});
  const bool refines = strategy->refine_rows() != 0;
  const Answering answering[] = {{&sequence, &writer, refines ? &refiner : nullptr}};
  EXPECT_TRUE(write_answers(models, answering, logits, workspace, [](size_t, const auto&) {}));
  return {writer.tokens(), refiner.report()};
}

TEST_P(Revise, ARevisedGreedyAnswerIsTheExactOne) {
  const Models models = small_pair(GetParam(), 2);
  int64_t revised = 0;
  for (int32_t salt = 0; salt < 12; ++salt) {
    const auto prompt = some_tokens(20 + 9 * static_cast<size_t>(salt), salt);
    const Answer exact = answer(models, "exact", prompt, false);
    for (const char* spec :
         {"kv-prediction:refine=1", "kv-prediction:tail=8,refine=7", "kv-prediction:refine=64",
          "kv-prediction:refine=auto", "kv-prediction:tail=8,refine=3,mix=0.5"}) {
      const Answer found = answer(models, spec, prompt, true);
      EXPECT_EQ(found.tokens, exact.tokens) << spec << ", prompt " << salt;
      EXPECT_GE(found.refinement.exact_after_tokens, 0);
      revised += found.refinement.revised_tokens;
    }
  }
  EXPECT_GT(revised, 0);  // else nothing was tried
}

TEST_P(Revise, AgreementCountsTheTokensThatExactWouldHaveChosen) {
  const Models models = small_pair(GetParam(), 2);
  const auto prompt = some_tokens(48);
  const Answer found = answer(models, "kv-prediction:refine=16", prompt, false);
  // Each token as exact chooses it after the same tokens.
  int64_t agreed = 0;
  for (size_t i = 0; i < found.tokens.size(); ++i) {
    auto before = prompt;
    before.insert(before.end(), found.tokens.begin(),
                  found.tokens.begin() + static_cast<std::ptrdiff_t>(i));
    agreed += answer(models, "exact", before, false, {}, 1).tokens[0] == found.tokens[i] ? 1 : 0;
  }
  EXPECT_EQ(found.refinement.compared_tokens, 40);
  EXPECT_EQ(found.refinement.agreed_tokens, static_cast<double>(agreed));
  EXPECT_GE(found.refinement.refined_rows, 48);
  EXPECT_LE(found.refinement.exact_after_tokens, 8);
}

KVCAST_FOR_EVERY_WEIGHT_TYPE(Revise);

/// Tokens 1 to 3 of the answer, drawn often: revised answers are distributed as exact ones.
class ReviseSampling : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Strategies, ReviseSampling,
                         testing::Values("kv-prediction:refine=4",
                                         "kv-prediction:refine=4,mix=0.5"));

TEST_P(ReviseSampling, RevisedAnswersAreDistributedAsExactOnes) {
  const ModelConfig base = make_openelm_config({.n_layers = 3,
                                                .model_dim = 32,
                                                .head_dim = 8,
                                                .gqa_groups = 2,
                                                .ffn_dim_divisor = 16,
                                                .vocab_size = 12,
                                                .max_context_tokens = 64});
  const Models models =
      random_models(base, &base, std::vector<int64_t>{0, 1, 2}, WeightType::kF32, 1);
  std::vector<int32_t> prompt(14);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>(i * 5 % 12);
  constexpr int kDraws = 10000;
  // Exact and revised counts of the second token, and of the pair of second and third.
  std::vector<double> exact(144), revised(144);
  int64_t taken_back = 0;
  const auto draw = [&](const char* spec, bool revise, uint64_t seed, std::vector<double>& counts) {
    Sequence sequence(models);
    Sequence* const one[] = {&sequence};
    std::vector<float> logits(12);
    PrefillWorkspace workspace;
    sequence.tokens = prompt;
    const auto strategy = *PrefillStrategy::parse(spec);
    strategy->prefill(models, one, logits.data(), workspace, {});
    SamplingOptions sampling{.temperature = 0.7F, .top_p = 0.95F};
    sampling.seed = seed;
    AnswerWriter writer(
        {.max_tokens = 3, .sampling = sampling, .stop = {}, .ignore_end_of_text = true}, nullptr);
    AnswerRefiner refiner(sequence, {.rows = 4, .revise = revise});
    const Answering answering[] = {{&sequence, &writer, revise ? &refiner : nullptr}};
    ASSERT_TRUE(write_answers(models, answering, logits, workspace, [](size_t, const auto&) {}));
    ++counts[static_cast<size_t>(writer.tokens()[0] * 12 + writer.tokens()[1])];
    taken_back += refiner.report().revised_tokens;
  };
  for (int i = 0; i < kDraws; ++i) {
    draw("exact", false, 1'000'000 + static_cast<uint64_t>(i), exact);
    draw(GetParam(), true, static_cast<uint64_t>(i), revised);
  }
  EXPECT_GT(taken_back, kDraws / 20);  // else nothing was tried
  double chi_square = 0;
  int cells = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double both = exact[i] + revised[i];
    if (both < 20) continue;
    chi_square += (exact[i] - revised[i]) * (exact[i] - revised[i]) / both;
    ++cells;
  }
  ASSERT_GT(cells, 4);
  // The mean of chi-square is its degrees of freedom, its variance twice that: 4 deviations.
  EXPECT_LT(chi_square, cells + 4 * std::sqrt(2.0 * cells));
}

}  // namespace
}  // namespace kvcast
