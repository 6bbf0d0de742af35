// Batched scoring and answering against the slow way: one prompt, one token at a time.
#include "eval/evaluator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kvcast/kvcast.h"
#include "prefill/mixing.h"
#include "runtime/model_impl.h"
#include "server/tiny_bundle.h"
#include "support/tensors.h"

namespace kvcast {
namespace {

constexpr double kClose = 1e-4;

const TinyBundle& tiny_bundle() {
  static const TinyBundle bundle;
  return bundle;
}

Tokens some_tokens(int64_t count, int32_t salt) {
  Tokens tokens = {1};
  for (int32_t i = 1; i < count; ++i) tokens.push_back((i * 37 + salt * 53) % 300 + 20);
  return tokens;
}

class EvaluatorTest : public testing::Test {
 protected:
  EvaluatorTest() {
    for (int32_t i = 0; i < 6; ++i) {
      prompts_.push_back(some_tokens(14 + 9 * i, i));
      std::ranges::copy(some_tokens(12, 99), prompts_.back().begin());  // all begin alike
    }
    for (size_t i = 0; i < prompts_.size(); ++i) {
      eval_prompts_.push_back(
          {&prompts_[i], &prompts_[(i + prompts_.size() - 1) % prompts_.size()]});
      for (int32_t k = 0; k <= static_cast<int32_t>(i) % 3; ++k) {
        Tokens continuation = some_tokens(1 + k * 3, 7 + k);
        continuation[0] = 40 + k;
        continuations_[i].push_back(continuation);
      }
    }
  }

  [[nodiscard]] const Models& models() const { return model_->impl().models; }
  Evaluator evaluator() const { return {models(), *model_->impl().tokenizer, 1 << 24}; }
  static EvalStrategy strategy(const std::string& spec) { return *EvalStrategy::parse(spec); }

  /// Prefill of one prompt, then its continuation token by token.
  double plain_score(const std::string& spec, const Tokens& prompt, const Tokens& continuation) {
    Sequence sequence(models());
    sequence.tokens = prompt;
    Sequence* const batch[] = {&sequence};
    std::vector<float> logits(static_cast<size_t>(models().base->config().vocab_size));
    PrefillWorkspace workspace;
    (*PrefillStrategy::parse(spec))->prefill(models(), batch, logits.data(), workspace, {});
    double sum = 0;
    for (const int32_t token : continuation) {
      double total = 0;
      for (const float logit : logits) total += std::exp(static_cast<double>(logit));
      sum += logits[static_cast<size_t>(token)] - std::log(total);
      sequence.tokens.push_back(token);
      next_logits(models(), batch, logits.data(), workspace);
    }
    return sum;
  }

  std::shared_ptr<const Model> model_ =
      *Model::load(tiny_bundle().path(), {.dtype = Dtype::kF32, .threads = 2});
  std::vector<Tokens> prompts_;
  std::vector<EvalPrompt> eval_prompts_;
  Evaluator::Continuations continuations_ = Evaluator::Continuations(6);
};

TEST_F(EvaluatorTest, ScoresAreThoseOfOneByOneAndTokenByToken) {
  for (const char* spec :
       {"exact", "kv-prediction", "kv-prediction:tail=4", "kv-prediction:tail=4,mix=0.25",
        "auxiliary", "random:0.5", "static:0.5", "lazy:0.75-0.25", "zero-cache"}) {
    for (const int64_t shared : {int64_t{0}, int64_t{11}}) {
      Evaluator batched = evaluator();
      for (int pass = 0; pass < 2; ++pass) {  // the second finds what the first has kept
        auto batch = batched.prefill(strategy(spec), eval_prompts_, shared);
        const auto scores = batched.score(batch, continuations_);
        for (size_t i = 0; i < prompts_.size(); ++i) {
          for (size_t k = 0; k < continuations_[i].size(); ++k) {
            EXPECT_NEAR(scores[i][k], plain_score(spec, prompts_[i], continuations_[i][k]), kClose)
                << spec << ", shared " << shared << ", prompt " << i << ", continuation " << k;
          }
          EXPECT_EQ(batch.sequences[i].tokens, prompts_[i]);
          EXPECT_EQ(batch.sequences[i].answering_cache().next_position(), std::ssize(prompts_[i]));
        }
      }
    }
  }
}

TEST_F(EvaluatorTest, ContinuationLogitsArriveOnceEachAndAgreeWithScores) {
  Evaluator batched = evaluator();
  std::vector<Tokens> one_each;
  for (const auto& of_prompt : continuations_) one_each.push_back(of_prompt.back());
  auto batch = batched.prefill(strategy("kv-prediction"), eval_prompts_);
  std::vector<std::vector<double>> found;
  for (const Tokens& continuation : one_each) found.emplace_back(continuation.size(), NAN);
  batched.continuation_logits(batch, one_each, [&](size_t s, size_t t, auto logits) {
    EXPECT_TRUE(std::isnan(found[s][t]));
    found[s][t] = log_probability(logits, one_each[s][t]);
  });
  for (size_t i = 0; i < prompts_.size(); ++i) {
    double sum = 0;
    for (const double log_probability : found[i]) sum += log_probability;
    EXPECT_NEAR(sum, plain_score("kv-prediction", prompts_[i], one_each[i]), kClose);
  }
}

TEST_F(EvaluatorTest, AnswersAreThoseOfASession) {
  Evaluator batched = evaluator();
  AnswerOptions options;
  options.max_tokens = 12;
  options.stop = {"e"};
  for (const char* spec : {"exact", "kv-prediction", "auxiliary"}) {
    const auto answers = batched.answer(batched.prefill(strategy(spec), eval_prompts_), options);
    for (size_t i = 0; i < prompts_.size(); ++i) {
      Session session(model_);
      const auto expected =
          session.generate(prompts_[i], {.prefill = spec, .max_tokens = 12, .stop = {"e"}});
      ASSERT_TRUE(expected);
      EXPECT_EQ(answers[i].text, expected->text) << spec;
      EXPECT_EQ(answers[i].tokens, expected->tokens) << spec;
    }
  }
}

TEST_F(EvaluatorTest, SampledAnswersDependOnTheirSeedAlone) {
  Evaluator batched = evaluator();
  AnswerOptions options;
  options.max_tokens = 8;
  options.ignore_end_of_text = true;
  options.sampling.temperature = 20;
  options.seeds = {11, 12, 11, 12};
  const auto batch = batched.prefill(strategy("exact"), std::span(eval_prompts_).first(2));
  const auto answers = batched.answer(batched.replicate(batch, 2), options);
  options.seeds = {12};
  const auto one = batched.answer(
      batched.prefill(strategy("exact"), std::span(eval_prompts_).subspan(1, 1)), options);
  EXPECT_EQ(answers[3].tokens, one[0].tokens);
  EXPECT_NE(answers[2].tokens, answers[3].tokens);
}

TEST_F(EvaluatorTest, WrongCacheIsTheForecastOfTheOtherPrompt) {
  for (const int64_t tail : {1, 5}) {
    const std::string suffix = tail == 1 ? "" : ":tail=" + std::to_string(tail);
    Evaluator batched = evaluator();
    const EvalStrategy wrong = strategy("wrong-cache" + suffix);
    EXPECT_EQ(wrong.spec, "wrong-cache" + suffix);
    auto batch = batched.prefill(wrong, eval_prompts_, 11);
    const auto scores = batched.score(batch, continuations_);
    for (size_t i = 0; i < prompts_.size(); ++i) {
      const Tokens& other = prompts_[(i + prompts_.size() - 1) % prompts_.size()];
      Tokens read = prompts_[i];
      for (size_t t = 0; t + static_cast<size_t>(tail) < read.size(); ++t) {
        read[t] = other[t % other.size()];
      }
      EXPECT_NEAR(scores[i][0], plain_score("kv-prediction" + suffix, read, continuations_[i][0]),
                  kClose);
    }
  }
}

TEST(EvalStrategyTest, KnowsItsSpecsAndNoOthers) {
  EXPECT_EQ(EvalStrategy::parse("wrong-cache:tail=1")->spec, "wrong-cache");
  EXPECT_EQ(EvalStrategy::parse("wrong-cache:refine=auto,mix=0.5")->tail, 1);
  EXPECT_EQ(EvalStrategy::parse("wrong-cache:mix=0.5,tail=4")->tail, 4);
  EXPECT_EQ(EvalStrategy::parse("lazy:0.75-0.25")->spec, "lazy:0.75-0.25");
  for (const char* spec :
       {"wrong-cache:", "wrong-cache:tail=0", "wrong", "random", "random:0", "random:1.5",
        "lazy:0.25-0.75", "lazy:0.5", "static:", "static:x", "zero-cache:tail=-1", "exact:1"}) {
    EXPECT_FALSE(EvalStrategy::parse(spec)) << spec;
  }
}

// The paper authors' own training pass: the base reads predicted K/V at every position.
TEST(PredictedScoring, IsTheTrainingForwardPassOfTheAuthorsCode) {
  const auto bundle = std::filesystem::path(KVCAST_GOLDEN_DIR) / "openelm-tiny-kvp-c";
  const auto expected_file = *Safetensors::open(bundle / "expected.safetensors");
  const auto logits = float_values(*expected_file, "train/base_logits");
  const auto ids = int_values(*expected_file, "input_ids");
  const Models models = *load_models(bundle, WeightType::kF32, 2);
  const auto tokenizer =
      *Tokenizer::load(std::filesystem::path(KVCAST_SOURCE_DIR) / "tests/data/tokenizer.model");
  Evaluator evaluator(models, *tokenizer, 0);
  const auto vocab = static_cast<size_t>(models.base->config().vocab_size);
  constexpr size_t kTokens = 9;
  std::vector<Tokens> prompts;
  std::vector<EvalPrompt> eval_prompts;
  Evaluator::Continuations continuations;
  for (size_t b = 0; b < 2; ++b) {
    const Tokens all(ids.begin() + b * kTokens, ids.begin() + (b + 1) * kTokens);
    prompts.emplace_back(all.begin(), all.begin() + 4);
    continuations.push_back(
        {Tokens(all.begin() + 4, all.begin() + 7), {all[4]}, Tokens(all.begin() + 4, all.end())});
  }
  for (const Tokens& prompt : prompts) eval_prompts.push_back({&prompt, nullptr});
  const auto scores = evaluator.score_predicted(eval_prompts, continuations);
  for (size_t b = 0; b < 2; ++b) {
    for (size_t k = 0; k < 3; ++k) {
      double expected = 0;
      for (size_t t = 0; t < continuations[b][k].size(); ++t) {
        const auto row = std::span(logits).subspan((b * kTokens + 3 + t) * vocab, vocab);
        expected += log_probability(row, continuations[b][k][t]);
      }
      EXPECT_NEAR(scores[b][k], expected, 1e-3) << b << " " << k;
    }
  }
}

TEST(KlDivergence, IsTheSumOverTheVocabulary) {
  const float p[] = {0.0F, 1.0F, -2.0F}, q[] = {1.0F, 0.5F, 0.0F};
  const auto probability = [](const float* x, int i) {
    return std::exp(x[i]) / (std::exp(x[0]) + std::exp(x[1]) + std::exp(x[2]));
  };
  double expected = 0;
  for (int i = 0; i < 3; ++i) {
    expected += probability(p, i) * std::log(probability(p, i) / probability(q, i));
  }
  EXPECT_NEAR(kl_divergence(p, q), expected, 1e-6);
  EXPECT_NEAR(kl_divergence(p, p), 0, 1e-12);
}

TEST(EncodePair, SplitsTheJointEncodingAndMovesTrailingSpaces) {
  const auto tokenizer =
      *Tokenizer::load(std::filesystem::path(KVCAST_SOURCE_DIR) / "tests/data/tokenizer.model");
  const TokenPair pair = encode_pair(*tokenizer, "Question: who?\nAnswer: ", "the king", true);
  const TokenPair same = encode_pair(*tokenizer, "Question: who?\nAnswer:", " the king", true);
  EXPECT_EQ(pair.context, same.context);
  EXPECT_EQ(pair.continuation, same.continuation);
  Tokens whole = pair.context;
  whole.insert(whole.end(), pair.continuation.begin(), pair.continuation.end());
  EXPECT_EQ(whole, tokenizer->encode("Question: who?\nAnswer: the king", true));
  const TokenPair brief = encode_pair(*tokenizer, "Answer:", " the king", false);
  EXPECT_EQ(brief.continuation, pair.continuation) << "the words before do not matter";
}

}  // namespace
}  // namespace kvcast
