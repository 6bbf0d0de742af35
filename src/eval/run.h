// Scores all examples of a task under several strategies.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <stop_token>
#include <vector>

#include "eval/partial_file.h"
#include "eval/task.h"

namespace kvcast {

struct RunOptions {
  int64_t batch_tokens = 4096;   ///< examples of about so many tokens together run at once
  int64_t batch_examples = 256;  ///< and at most so many
  std::stop_token stop;          ///< looked at between batches
  std::function<void(size_t done, size_t all)> on_progress = [](size_t, size_t) {};
};

/// scores[strategy][example]; empty if stopped. What `partial` holds is not run again, and what is
/// finished goes there.
Result<std::vector<std::vector<ExampleScore>>> run_task(Task& task, Evaluator& evaluator,
                                                        std::span<const EvalStrategy> strategies,
                                                        const RunOptions& options,
                                                        PartialFile& partial);

}  // namespace kvcast
