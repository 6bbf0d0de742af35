// Tasks that cannot be answered without the prompt, made from a seed.
#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/macros.h"
#include "eval/task.h"
#include "eval/text_score.h"
#include "io/json.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

constexpr int64_t kDefaultExamples = 100;

/// A prompt and the one right answer to it: is it written, and how likely is it?
class LookUpTask final : public Task {
 public:
  struct Example {
    Tokens prompt, answer_tokens;
    std::string answer;
  };
  LookUpTask(std::string name, int64_t length, std::vector<Example> examples)
      : name_(std::move(name)), length_(length), examples_(std::move(examples)) {}

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] std::vector<std::string> metrics() const override { return {"exact_match", "nll"}; }
  [[nodiscard]] std::map<std::string, int64_t> parameters() const override {
    return {{"length", length_}};
  }
  [[nodiscard]] size_t size() const override { return examples_.size(); }
  [[nodiscard]] const Tokens& prompt(size_t example) const override {
    return examples_[example].prompt;
  }
  [[nodiscard]] int64_t work_tokens(size_t example) const override {
    return std::ssize(examples_[example].prompt);
  }

  Result<std::vector<ExampleScore>> score(Evaluator& evaluator, const EvalStrategy& strategy,
                                          std::span<const size_t> examples) override {
    PrefilledBatch batch = evaluator.prefill(strategy, prompts(examples));
    Evaluator::Continuations right;
    AnswerOptions options;
    options.stop = {"\n", "."};
    options.max_tokens = 0;
    for (const size_t example : examples) {
      right.push_back({examples_[example].answer_tokens});
      options.max_tokens =
          std::max(options.max_tokens, std::ssize(examples_[example].answer_tokens) + 2);
    }
    const auto log_probabilities = evaluator.score(batch, right);
    const auto answers = evaluator.answer(std::move(batch), options);
    std::vector<ExampleScore> scores;
    for (size_t i = 0; i < examples.size(); ++i) {
      const std::string& answer = examples_[examples[i]].answer;
      const Json output = {{"right", answer}, {"answer", answers[i].text}};
      scores.push_back({{strip(answers[i].text) == answer ? 1.0 : 0.0, -log_probabilities[i][0]},
                        output.dump()});
    }
    return scores;
  }

 private:
  std::string name_;
  int64_t length_;
  std::vector<Example> examples_;
};

/// Makes examples of at most `length` tokens: `make(fill)` gives a prompt text with `fill` units of
/// filling, and its answer; the largest filling that fits is taken.
template <typename Make>
Result<std::unique_ptr<Task>> make_look_up_task(const char* name, const TaskOptions& options,
                                                const Model& model, const Make& make) {
  const Tokenizer& tokenizer = *model.impl().tokenizer;
  if (options.length + 16 > context_tokens(model)) {
    return fail(
        fmt::format("--lengths {}: with the answer it does not fit the context of {} tokens",
                    options.length, context_tokens(model)));
  }
  std::vector<LookUpTask::Example> examples;
  const int64_t count = options.limit > 0 ? options.limit : kDefaultExamples;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t seed = options.seed * 1'000'003 + static_cast<uint64_t>(i);
    LookUpTask::Example example;
    for (int64_t fill = 1;; ++fill) {
      const auto [text, answer] = make(fill, seed);
      TokenPair pair = encode_pair(tokenizer, text, " " + answer, options.add_bos);
      if (std::ssize(pair.context) > options.length) break;
      example = {std::move(pair.context), std::move(pair.continuation), answer};
    }
    if (example.prompt.empty()) {
      return fail(fmt::format("--lengths {}: too short for task {}", options.length, name));
    }
    examples.push_back(std::move(example));
  }
  return std::make_unique<LookUpTask>(name, options.length, std::move(examples));
}

}  // namespace

/// A five-digit key somewhere in sentences that say nothing (Mohtashami and Jaggi 2023).
Result<std::unique_ptr<Task>> make_passkey_task(const TaskOptions& options, const Model& model) {
  return make_look_up_task("passkey", options, model, [](int64_t fill, uint64_t seed) {
    std::mt19937_64 random(seed);
    const std::string key = std::to_string(10000 + random() % 90000);
    const double depth = static_cast<double>(random() % 1000) / 1000;
    const auto before = static_cast<int64_t>(depth * static_cast<double>(fill + 1));
    std::string text = "There is a pass key hidden in this text. Remember it.\n";
    for (int64_t i = 0; i <= fill; ++i) {
      if (i == before) text += fmt::format("The pass key is {}. Remember it. ", key);
      if (i < fill) text += "The grass is green. The sky is blue. The sun is yellow. ";
    }
    return std::pair(text + "\nWhat is the pass key? The pass key is", key);
  });
}

/// Which word stood beside another in a list (Arora et al. 2023 call it associative recall).
Result<std::unique_ptr<Task>> make_recall_task(const TaskOptions& options, const Model& model) {
  return make_look_up_task("recall", options, model, [](int64_t fill, uint64_t seed) {
    static const std::vector<std::string> kWords = {
        "river",  "stone",  "apple",    "horse",  "king",   "house",  "water",  "bread",
        "ship",   "tree",   "mountain", "book",   "road",   "garden", "winter", "summer",
        "gold",   "silver", "bird",     "fish",   "sword",  "church", "city",   "island",
        "forest", "bridge", "paper",    "glass",  "window", "table",  "music",  "letter",
        "school", "army",   "field",    "cloud",  "fire",   "snow",   "wheel",  "tower",
        "queen",  "market", "valley",   "engine", "metal",  "dog",    "cat",    "rose",
        "corn",   "wine",   "salt",     "coat",   "hand",   "head",   "eye",    "heart",
        "door",   "wall",   "clock",    "map",    "star",   "moon",   "sea",    "lake"};
    std::mt19937_64 random(seed);
    std::vector<std::string> keys = kWords, values = kWords;
    for (auto* words : {&keys, &values}) {
      for (size_t i = 0; i + 1 < words->size(); ++i) {
        std::swap((*words)[i], (*words)[i + random() % (words->size() - i)]);
      }
    }
    const uint64_t choice = random();
    // Once all words are used, the list starts again: a prompt longer than that repeats itself.
    std::string text;
    for (int64_t i = 0; i < fill; ++i) {
      const size_t word = static_cast<size_t>(i) % keys.size();
      text += fmt::format("{}: {}\n", keys[word], values[word]);
    }
    const size_t asked = choice % std::min(static_cast<size_t>(fill), keys.size());
    return std::pair(text + keys[asked] + ":", values[asked]);
  });
}

}  // namespace kvcast
