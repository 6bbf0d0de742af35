#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/macros.h"
#include "eval/data_file.h"
#include "eval/task.h"
#include "eval/text_score.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

/// The next line of a program (RepoBench, Liu et al. 2023, asks the same): greedy until the line
/// ends, compared without the white space around it.
class NextLineTask final : public Task {
 public:
  struct Example {
    Tokens prompt;
    std::string line;  ///< stripped
  };
  NextLineTask(std::vector<Example> examples, int64_t prefix, int64_t max_tokens)
      : examples_(std::move(examples)), prefix_(prefix), max_tokens_(max_tokens) {}

  [[nodiscard]] std::string name() const override { return "next_line"; }
  [[nodiscard]] std::vector<std::string> metrics() const override {
    return {"exact_match", "edit_similarity"};
  }
  [[nodiscard]] std::map<std::string, int64_t> parameters() const override {
    return {{"prefix", prefix_}, {"max_tokens", max_tokens_}};
  }
  [[nodiscard]] size_t size() const override { return examples_.size(); }
  [[nodiscard]] const Tokens& prompt(size_t example) const override {
    return examples_[example].prompt;
  }
  [[nodiscard]] int64_t work_tokens(size_t example) const override {
    return std::ssize(examples_[example].prompt) + max_tokens_ / 2;
  }

  Result<std::vector<ExampleScore>> score(Evaluator& evaluator, const EvalStrategy& strategy,
                                          std::span<const size_t> examples) override {
    AnswerOptions options;
    options.max_tokens = max_tokens_;
    options.stop = {"\n"};
    const auto answers = evaluator.answer(evaluator.prefill(strategy, prompts(examples)), options);
    std::vector<ExampleScore> scores;
    for (size_t i = 0; i < examples.size(); ++i) {
      const std::string& line = examples_[examples[i]].line;
      const std::string_view answer = strip(answers[i].text);
      const Json output = {{"line", line}, {"answer", answer}};
      scores.push_back({{answer == line ? 1.0 : 0.0, edit_similarity(answer, line)},
                        output.dump(-1, ' ', false, Json::error_handler_t::replace)});
    }
    return scores;
  }

 private:
  std::vector<Example> examples_;
  int64_t prefix_, max_tokens_;
};

/// Lines worth asking for: not blank, not a comment or bracket alone, with enough text before.
std::vector<size_t> askable_lines(std::string_view text) {
  constexpr size_t kLeastBefore = 400, kLeastLine = 4;  // bytes
  std::vector<size_t> starts;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = strip(text.substr(begin, end - begin));
    if (begin >= kLeastBefore && line.size() >= kLeastLine && line.front() != '#') {
      starts.push_back(begin);
    }
    begin = end + 1;
  }
  return starts;
}

}  // namespace

Result<std::unique_ptr<Task>> make_next_line_task(const TaskOptions& options, const Model& model) {
  constexpr size_t kLinesPerDocument = 8, kBytesBefore = 16384;
  const Tokenizer& tokenizer = *model.impl().tokenizer;
  KVCAST_TRY(const auto documents, read_documents(options.data));
  std::mt19937_64 random(options.seed);
  std::vector<NextLineTask::Example> examples;
  const auto limit = static_cast<size_t>(options.limit);
  for (const std::string& document : documents) {
    std::vector<size_t> starts = askable_lines(document);
    // One file as a whole is one document: then all its lines may be asked for.
    const size_t most = documents.size() == 1 ? starts.size() : kLinesPerDocument;
    for (size_t i = 0; i < std::min(most, starts.size()); ++i) {
      if (limit > 0 && examples.size() == limit) break;
      std::swap(starts[i], starts[i + random() % (starts.size() - i)]);
      const size_t start = starts[i];
      const size_t from = start > kBytesBefore ? document.find('\n', start - kBytesBefore) + 1 : 0;
      NextLineTask::Example& example = examples.emplace_back();
      example.prompt = tokenizer.encode(document.substr(from, start - from), options.add_bos);
      keep_newest(example.prompt, options.prefix, tokenizer.bos_token());
      const size_t end = std::min(document.find('\n', start), document.size());
      example.line = strip(std::string_view(document).substr(start, end - start));
    }
  }
  if (examples.empty()) {
    return fail(fmt::format("{}: no program with lines to complete", options.data.string()));
  }
  const int64_t max_tokens = options.max_tokens.value_or(64);
  if (options.prefix + max_tokens > context_tokens(model)) {
    return fail(fmt::format("--prefix {} and {} answer tokens do not fit the context of {} tokens",
                            options.prefix, max_tokens, context_tokens(model)));
  }
  return std::make_unique<NextLineTask>(std::move(examples), options.prefix, max_tokens);
}

}  // namespace kvcast
