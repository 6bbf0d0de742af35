#include "eval/task.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/model_impl.h"

namespace kvcast {
namespace {

constexpr std::string_view kChoiceTasks[] = {"arc_easy", "arc_challenge", "boolq",     "hellaswag",
                                             "piqa",     "sciq",          "winogrande"};

using MakeTask = Result<std::unique_ptr<Task>> (*)(const TaskOptions&, const Model&);
struct NamedTask {
  std::string_view name;
  MakeTask make;
  bool needs_data;
};
constexpr NamedTask kTasks[] = {
    {"nll", make_nll_task, true},
    {"chats", make_chats_task, true},
    {"triviaqa", make_trivia_task, true},
    {"humaneval", make_human_eval_task, true},
    {"next_line", make_next_line_task, true},
    {"passkey", make_passkey_task, false},
    {"recall", make_recall_task, false},
    {"agreement", make_agreement_task, true},
};

}  // namespace

std::vector<EvalPrompt> Task::prompts(std::span<const size_t> examples) const {
  std::vector<EvalPrompt> out;
  for (const size_t example : examples) {
    out.push_back({&prompt(example), &prompt((example + size() - 1) % size())});
  }
  return out;
}

std::vector<std::string_view> task_names() {
  std::vector<std::string_view> names;
  for (const NamedTask& task : kTasks) names.push_back(task.name);
  names.insert(names.end(), std::begin(kChoiceTasks), std::end(kChoiceTasks));
  return names;
}

bool task_needs_data(std::string_view name) {
  const auto* const task = std::ranges::find(kTasks, name, &NamedTask::name);
  return task == std::end(kTasks) || task->needs_data;
}

Result<std::unique_ptr<Task>> make_task(std::string_view name, const TaskOptions& options,
                                        const Model& model) {
  const auto* const task = std::ranges::find(kTasks, name, &NamedTask::name);
  if (task != std::end(kTasks)) return task->make(options, model);
  if (std::ranges::find(kChoiceTasks, name) != std::end(kChoiceTasks)) {
    return make_choice_task(name, options, model);
  }
  return fail(
      fmt::format("unknown task \"{}\": expected one of {}", name, fmt::join(task_names(), ", ")));
}

int64_t context_tokens(const Model& model) {
  const Models& models = model.impl().models;
  const int64_t base = models.base->config().max_context_tokens;
  return models.auxiliary ? std::min(base, models.auxiliary->config().max_context_tokens) : base;
}

void keep_newest(Tokens& tokens, int64_t most, int32_t bos) {
  const int64_t excess = std::ssize(tokens) - most;
  if (excess <= 0) return;
  const auto first = tokens.begin() + (tokens.front() == bos ? 1 : 0);
  tokens.erase(first, first + excess);
}

std::vector<Tokens> text_windows(const std::vector<std::string>& documents,
                                 const Tokenizer& tokenizer, int64_t tokens, int64_t limit) {
  const int32_t bos = tokenizer.adds_bos() ? tokenizer.bos_token() : -1;
  const auto room = static_cast<size_t>(tokens - (bos >= 0 ? 1 : 0));
  std::vector<Tokens> windows;
  for (const std::string& document : documents) {
    const Tokens all = tokenizer.encode(document, false);
    for (size_t begin = 0; begin + room <= all.size(); begin += room) {
      Tokens& window = windows.emplace_back();
      if (bos >= 0) window.push_back(bos);
      const auto first = all.begin() + static_cast<std::ptrdiff_t>(begin);
      window.insert(window.end(), first, first + static_cast<std::ptrdiff_t>(room));
    }
  }
  const auto count = static_cast<size_t>(limit);
  if (limit == 0 || windows.size() <= count) return windows;
  std::vector<Tokens> chosen;
  for (size_t i = 0; i < count; ++i) chosen.push_back(windows[i * windows.size() / count]);
  return chosen;
}

}  // namespace kvcast
