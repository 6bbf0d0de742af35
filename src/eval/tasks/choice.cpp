#include <fmt/format.h>

#include <algorithm>

#include "base/macros.h"
#include "eval/data_file.h"
#include "eval/task.h"
#include "eval/text_score.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

/// A question in the form that LM Evaluation Harness makes of it.
struct ChoiceText {
  std::vector<std::string> contexts;       ///< one, or one per choice
  std::vector<std::string> continuations;  ///< with the space before them
  std::vector<std::string> choices;        ///< whose lengths acc_norm divides by
  size_t label = 0;
};

std::string question_answer(std::string_view question) {
  return fmt::format("Question: {}\nAnswer:", question);
}

ChoiceText with_context(std::string context, std::vector<std::string> choices, size_t label) {
  ChoiceText text{{std::move(context)}, {}, std::move(choices), label};
  for (const std::string& choice : text.choices) text.continuations.push_back(" " + choice);
  return text;
}

/// {"query"/"question", "choices": [...], "label"}, or Hugging Face's ARC: {"question",
/// "choices": {"text", "label"}, "answerKey"}.
Result<ChoiceText> read_arc(const DataRow& row) {
  KVCAST_TRY(const std::string question, row.text(row.has("query") ? "query" : "question"));
  if (!row.has("answerKey")) {
    KVCAST_TRY(auto choices, row.texts("choices"));
    KVCAST_TRY(const size_t label, row.index("label", choices.size()));
    return with_context(question_answer(question), std::move(choices), label);
  }
  KVCAST_TRY(const DataRow choices, row.object("choices"));
  KVCAST_TRY(auto texts, choices.texts("text"));
  KVCAST_TRY(const auto labels, choices.texts("label"));
  KVCAST_TRY(const std::string key, row.text("answerKey"));
  const auto label = static_cast<size_t>(std::ranges::find(labels, key) - labels.begin());
  if (label >= texts.size()) return row.error("answerKey names none of the choices");
  return with_context(question_answer(question), std::move(texts), label);
}

Result<ChoiceText> read_boolq(const DataRow& row) {
  KVCAST_TRY(const std::string passage, row.text("passage"));
  KVCAST_TRY(const std::string question, row.text("question"));
  KVCAST_TRY(const size_t label, row.index("label", 2));
  return with_context(fmt::format("{}\nQuestion: {}?\nAnswer:", passage, question), {"no", "yes"},
                      label);
}

Result<ChoiceText> read_hellaswag(const DataRow& row) {
  KVCAST_TRY(std::string query, row.text("query"));
  KVCAST_TRY(auto choices, row.texts("choices"));
  KVCAST_TRY(const size_t label, row.index("label", choices.size()));
  return with_context(std::move(query), std::move(choices), label);
}

Result<ChoiceText> read_piqa(const DataRow& row) {
  KVCAST_TRY(const std::string goal, row.text("goal"));
  KVCAST_TRY(std::string first, row.text("sol1"));
  KVCAST_TRY(std::string second, row.text("sol2"));
  KVCAST_TRY(const size_t label, row.index("label", 2));
  return with_context(question_answer(goal), {std::move(first), std::move(second)}, label);
}

/// With "choices" and "label", or as published: distractor1..3 and correct_answer.
Result<ChoiceText> read_sciq(const DataRow& row) {
  std::string support;
  if (row.has("support")) {
    KVCAST_TRY(support, row.text("support"));
  }
  KVCAST_TRY(const std::string question, row.text("question"));
  const size_t first = std::min(support.find_first_not_of(" \t\n\r"), support.size());
  std::string context = support.substr(first) + "\n" + question_answer(question);
  if (row.has("choices")) {
    KVCAST_TRY(auto choices, row.texts("choices"));
    KVCAST_TRY(const size_t label, row.index("label", choices.size()));
    return with_context(std::move(context), std::move(choices), label);
  }
  std::vector<std::string> choices;
  for (const char* key : {"distractor1", "distractor2", "distractor3", "correct_answer"}) {
    KVCAST_TRY(choices.emplace_back(), row.text(key));
  }
  return with_context(std::move(context), std::move(choices), 3);
}

/// The options take the place of "_"; what is scored is the rest of the sentence.
Result<ChoiceText> read_winogrande(const DataRow& row) {
  KVCAST_TRY(const std::string sentence, row.text("sentence"));
  const size_t blank = sentence.find('_');
  if (blank == std::string::npos) return row.error("expected a \"_\" in \"sentence\"");
  ChoiceText text;
  const std::string rest(strip(std::string_view(sentence).substr(blank + 1)));
  for (const char* key : {"option1", "option2"}) {
    KVCAST_TRY(const std::string option, row.text(key));
    text.contexts.push_back(sentence.substr(0, blank) + option);
    text.continuations.push_back(" " + rest);
    text.choices.push_back(text.contexts.back());
  }
  if (row.has("label")) {
    KVCAST_TRY(text.label, row.index("label", 2));
  } else {
    KVCAST_TRY(const std::string answer, row.text("answer"));
    text.label = answer == "1" ? 0 : 1;
  }
  return text;
}

using ReadChoice = Result<ChoiceText> (*)(const DataRow&);
ReadChoice reader_of(std::string_view task) {
  if (task == "boolq") return read_boolq;
  if (task == "hellaswag") return read_hellaswag;
  if (task == "piqa") return read_piqa;
  if (task == "sciq") return read_sciq;
  if (task == "winogrande") return read_winogrande;
  return read_arc;
}

/// Which continuation is the likeliest, in sum (acc) and per character of the choice (acc_norm).
class ChoiceTask final : public Task {
 public:
  ChoiceTask(std::string name, const TaskOptions& options, const Model& model,
             const std::vector<ChoiceText>& texts)
      : name_(std::move(name)) {
    const Tokenizer& tokenizer = *model.impl().tokenizer;
    for (const ChoiceText& text : texts) {
      Example& example = examples_.emplace_back();
      example.label = text.label;
      example.prompt = text.contexts[0];
      example.choices = text.choices;
      example.continuations.resize(text.contexts.size());
      for (size_t choice = 0; choice < text.continuations.size(); ++choice) {
        const size_t context = std::min(choice, text.contexts.size() - 1);
        TokenPair pair = encode_pair(tokenizer, text.contexts[context], text.continuations[choice],
                                     options.add_bos);
        keep_newest(pair.context,
                    std::max<int64_t>(context_tokens(model) - std::ssize(pair.continuation), 1),
                    tokenizer.bos_token());
        if (example.contexts.size() <= context) example.contexts.push_back(std::move(pair.context));
        example.continuations[context].push_back(std::move(pair.continuation));
        example.characters.push_back(
            static_cast<double>(length_in_characters(text.choices[choice])));
      }
    }
  }

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] std::vector<std::string> metrics() const override {
    if (name_ == "winogrande") return {"acc"};  // both choices end alike
    return {"acc", "acc_norm"};
  }
  [[nodiscard]] bool scores_given_texts() const override { return true; }
  [[nodiscard]] size_t size() const override { return examples_.size(); }
  [[nodiscard]] const Tokens& prompt(size_t example) const override {
    return examples_[example].contexts[0];
  }
  [[nodiscard]] int64_t work_tokens(size_t example) const override {
    const Example& e = examples_[example];
    return std::ssize(e.contexts) * (std::ssize(e.contexts[0]) + std::ssize(e.continuations[0][0]));
  }

  Result<std::vector<ExampleScore>> score(Evaluator& evaluator, const EvalStrategy& strategy,
                                          std::span<const size_t> examples) override {
    std::vector<EvalPrompt> contexts;
    Evaluator::Continuations continuations;
    for (const size_t index : examples) {
      const Tokens& other = prompt((index + size() - 1) % size());
      const Example& example = examples_[index];
      for (size_t i = 0; i < example.contexts.size(); ++i) {
        contexts.push_back({&example.contexts[i], &other});
        continuations.push_back(example.continuations[i]);
      }
    }
    Evaluator::LogProbabilities log_probabilities;
    if (strategy.scoring == EvalStrategy::Scoring::kPredicted) {
      log_probabilities = evaluator.score_predicted(contexts, continuations);
    } else {
      PrefilledBatch batch = evaluator.prefill(strategy, contexts);
      log_probabilities = evaluator.score(batch, continuations);
    }
    std::vector<ExampleScore> scores;
    size_t context = 0;
    for (const size_t index : examples) {
      std::vector<double> of_choices;
      for (size_t i = 0; i < examples_[index].contexts.size(); ++i) {
        const auto& some = log_probabilities[context++];
        of_choices.insert(of_choices.end(), some.begin(), some.end());
      }
      scores.push_back(score_choices(examples_[index], of_choices));
    }
    return scores;
  }

 private:
  struct Example {
    std::vector<Tokens> contexts;
    std::vector<std::vector<Tokens>> continuations;  // [contexts][choices of that context]
    std::vector<double> characters;                  // [choices]
    std::string prompt;                              ///< as text, for the outputs
    std::vector<std::string> choices;
    size_t label = 0;
  };

  /// Of equal values the first counts as the largest, as in numpy.
  [[nodiscard]] ExampleScore score_choices(const Example& example,
                                           const std::vector<double>& values) const {
    const auto is_right = [&](const std::vector<double>& of) {
      const auto best = static_cast<size_t>(std::ranges::max_element(of) - of.begin());
      return best == example.label ? 1.0 : 0.0;
    };
    std::vector<double> normalised;
    for (size_t i = 0; i < values.size(); ++i) {
      normalised.push_back(values[i] / example.characters[i]);
    }
    const Json output = {
        {"prompt", example.prompt}, {"choices", example.choices}, {"log_probabilities", values}};
    ExampleScore score{{is_right(values)},
                       output.dump(-1, ' ', false, Json::error_handler_t::replace)};
    if (metrics().size() > 1) score.metrics.push_back(is_right(normalised));
    return score;
  }

  std::string name_;
  std::vector<Example> examples_;
};

}  // namespace

Result<std::unique_ptr<Task>> make_choice_task(std::string_view name, const TaskOptions& options,
                                               const Model& model) {
  KVCAST_TRY(const auto rows, read_rows(options.data, static_cast<size_t>(options.limit)));
  const ReadChoice read = reader_of(name);
  std::vector<ChoiceText> texts;
  for (const DataRow& row : rows) {
    KVCAST_TRY(texts.emplace_back(), read(row));
    const ChoiceText& text = texts.back();
    if (std::ranges::any_of(text.contexts, &std::string::empty) ||
        std::ranges::any_of(text.choices, &std::string::empty)) {
      return row.error("expected a question and choices that are not empty");
    }
  }
  return std::make_unique<ChoiceTask>(std::string(name), options, model, texts);
}

}  // namespace kvcast
