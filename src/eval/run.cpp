#include "eval/run.h"

#include <algorithm>
#include <numeric>

#include "base/macros.h"

namespace kvcast {
namespace {

/// Examples still to be scored, in batches of like size, the largest first.
std::vector<std::vector<size_t>> make_batches(const Task& task, const std::vector<bool>& done,
                                              const RunOptions& options) {
  std::vector<size_t> order;
  for (size_t example = 0; example < task.size(); ++example) {
    if (!done[example]) order.push_back(example);
  }
  std::ranges::stable_sort(order, std::greater(),
                           [&](size_t example) { return task.work_tokens(example); });
  std::vector<std::vector<size_t>> batches;
  int64_t tokens = 0;
  for (const size_t example : order) {
    const int64_t of_example = task.work_tokens(example);
    if (batches.empty() || tokens + of_example > options.batch_tokens ||
        std::ssize(batches.back()) >= options.batch_examples) {
      batches.emplace_back();
      tokens = 0;
    }
    batches.back().push_back(example);
    tokens += of_example;
  }
  return batches;
}

}  // namespace

Result<std::vector<std::vector<ExampleScore>>> run_task(Task& task, Evaluator& evaluator,
                                                        std::span<const EvalStrategy> strategies,
                                                        const RunOptions& options,
                                                        PartialFile& partial) {
  std::vector<std::vector<ExampleScore>> scores(strategies.size(),
                                                std::vector<ExampleScore>(task.size()));
  std::vector<bool> done(task.size());
  size_t finished = 0;
  for (const PartialFile::Record& record : partial.records()) {
    if (record.example >= task.size() || record.scores.size() != strategies.size()) continue;
    for (size_t s = 0; s < strategies.size(); ++s) {
      scores[s][record.example] = record.scores[s];
    }
    finished += done[record.example] ? 0 : 1;
    done[record.example] = true;
  }
  options.on_progress(finished, task.size());
  for (const auto& batch : make_batches(task, done, options)) {
    if (options.stop.stop_requested()) return std::vector<std::vector<ExampleScore>>{};
    task.prepare(evaluator, batch);
    for (size_t s = 0; s < strategies.size(); ++s) {
      KVCAST_TRY(auto of_batch, task.score(evaluator, strategies[s], batch));
      for (size_t i = 0; i < batch.size(); ++i) scores[s][batch[i]] = std::move(of_batch[i]);
    }
    std::vector<PartialFile::Record> records;
    for (const size_t example : batch) {
      records.push_back({example, {}});
      for (const auto& of_strategy : scores) records.back().scores.push_back(of_strategy[example]);
    }
    KVCAST_CHECK(partial.append(records));
    finished += batch.size();
    options.on_progress(finished, task.size());
  }
  return scores;
}

}  // namespace kvcast
