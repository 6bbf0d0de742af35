#include "runtime/scheduler_rounds.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "base/macros.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

// Made once: telling them needs no memory.
const EngineError kCancelled{EngineError::Kind::kCancelled, "cancelled"};
const EngineError kTimeout{EngineError::Kind::kTimeout,
                           "the request's time ran out while it was waiting"};

EngineError invalid(std::string message) {
  return {EngineError::Kind::kInvalid, std::move(message)};
}

EngineError too_large(int64_t bytes, int64_t limit) {
  return {
      EngineError::Kind::kTooLarge,
      fmt::format("the KV caches of this request need {} MiB, the server's limit is {} MiB; ask "
                  "for fewer max_tokens or a smaller n",
                  bytes >> 20, limit >> 20)};
}

tl::expected<void, EngineError> check(const EngineRequest& request, const PrefillStrategy& strategy,
                                      const Models& models, int64_t max_batch) {
  const auto refuse = [](std::string message) {
    return tl::unexpected(invalid(std::move(message)));
  };
  const auto tokens = static_cast<int64_t>(request.prompt.size());
  if (auto ok = check_prompt(strategy, models, request.prompt); !ok) {
    PromptError& error = ok.error();
    return tl::unexpected(EngineError{
        error.too_long ? EngineError::Kind::kContextLength : EngineError::Kind::kInvalid,
        std::move(error.message)});
  }
  if (const Status status = validate(request.sampling); !status) {
    return refuse(status.error().message);
  }
  if (request.drafts) {
    if (const Status status = check_drafts(*request.drafts); !status) {
      return refuse(status.error().message);
    }
  }
  if (request.max_tokens < 0) return refuse("max_tokens must not be negative");
  if (request.choices < 1 || request.choices > max_batch) {
    return refuse(fmt::format("n: {} is not within 1..{}", request.choices, max_batch));
  }
  if (!request.score_prompt) return {};
  if (!request.context_tokens && !strategy.cache_use().computes_all_rows) {
    return refuse(
        fmt::format("scoring a prompt under {} needs context_length: the number of "
                    "tokens before the scored ones",
                    strategy.spec()));
  }
  const int64_t context = request.context_tokens.value_or(1);
  if (context < 1 || context > tokens) {
    return refuse(fmt::format("context_length: {} is not within 1..{}, the prompt's tokens",
                              context, tokens));
  }
  return {};
}

}  // namespace

SchedulerRounds::SchedulerRounds(std::shared_ptr<const Model> model,
                                 const SchedulerOptions& options)
    : model_(std::move(model)), options_(options), engine_(*model_, options_) {}

Result<std::unique_ptr<SchedulerRounds>> SchedulerRounds::make(std::shared_ptr<const Model> model,
                                                               const SchedulerOptions& options) {
  SchedulerOptions chosen = options;
  if (chosen.default_prefill.empty()) chosen.default_prefill = model->default_prefill();
  std::unique_ptr<SchedulerRounds> rounds(new SchedulerRounds(std::move(model), chosen));
  KVCAST_TRY(const auto strategy, PrefillStrategy::parse(chosen.default_prefill));
  KVCAST_CHECK(kvcast::check_strategy(*strategy, rounds->model_->impl().models));
  rounds->options_.default_prefill = strategy->spec();
  strategy->measure(rounds->model_->impl().models);
  if (!options.prefix_store.empty()) {
    const Model& served = *rounds->model_;
    KVCAST_TRY(auto store, PrefixStore::open(options.prefix_store, prefix_key(served),
                                             served.impl().models, options.max_store_bytes));
    rounds->pool().keep_in(std::move(store));
  }
  return rounds;
}

Result<std::string> SchedulerRounds::check_strategy(std::string_view spec) const {
  KVCAST_TRY(const auto strategy, PrefillStrategy::parse(spec));
  KVCAST_CHECK(kvcast::check_strategy(*strategy, model_->impl().models));
  return strategy->spec();
}

tl::expected<std::shared_ptr<Ticket>, EngineError> SchedulerRounds::submit(
    EngineRequest request, std::shared_ptr<RequestObserver> observer) {
  auto strategy =
      PrefillStrategy::parse(request.prefill.empty() ? options_.default_prefill : request.prefill);
  if (!strategy) return tl::unexpected(invalid(std::move(strategy.error().message)));
  const Models& models = model_->impl().models;
  if (auto ok = check(request, **strategy, models, options_.max_batch); !ok) {
    return tl::unexpected(std::move(ok.error()));
  }
  if (!request.drafts) request.drafts = options_.default_drafts;
  const int64_t bytes = cache_bytes_of(request, **strategy);
  if (bytes > options_.max_cache_bytes) {
    return tl::unexpected(too_large(bytes, options_.max_cache_bytes));
  }
  if (request.pin_prefix) {
    const int64_t kept =
        std::ssize(request.prompt) * kv_token_bytes(models.base->config(), models.kv_type);
    if (kept > engine_.pool().max_bytes()) {
      return tl::unexpected(EngineError{
          EngineError::Kind::kTooLarge,
          fmt::format("the KV cache of {} tokens that are to stay takes {} MiB, prefixes may take "
                      "{} MiB; give caches more memory",
                      request.prompt.size(), kept >> 20, engine_.pool().max_bytes() >> 20)});
    }
  }
  auto job = std::make_unique<Job>(std::move(request), std::move(observer), std::move(*strategy));
  job->reserved_bytes = bytes;
  auto ticket = job->ticket;
  const std::lock_guard lock(mutex_);
  if (draining_) {
    return tl::unexpected(
        EngineError{EngineError::Kind::kShuttingDown, "the server is shutting down"});
  }
  if (static_cast<int64_t>(queue_.size()) >= options_.max_queue) {
    return tl::unexpected(EngineError{
        EngineError::Kind::kQueueFull,
        fmt::format("{} requests are waiting already; try again later", queue_.size())});
  }
  const std::string client = job->request.client;
  queue_.push(client, std::move(job));
  stats_.waiting = static_cast<int64_t>(queue_.size());
  idle_work_.request_stop();
  work_.notify_one();
  return ticket;
}

void SchedulerRounds::drain() {
  const std::lock_guard lock(mutex_);
  draining_ = true;
}

void SchedulerRounds::cancel_all() {
  const std::lock_guard lock(mutex_);
  draining_ = true;
  cancelling_ = true;
  idle_work_.request_stop();
  work_.notify_one();
}

SchedulerStats SchedulerRounds::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

int64_t SchedulerRounds::cache_bytes_of(const EngineRequest& request,
                                        const PrefillStrategy& strategy) const {
  const CacheUse use = strategy.cache_use();
  const Models& models = model_->impl().models;
  const ModelConfig& base = models.base->config();
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t most = base.max_context_tokens;
  const auto whole = std::min(prompt + std::min(request.max_tokens, most), most);
  constexpr int64_t kGranule = 64;  // rows; KVCache grows in such steps
  const auto bytes = [&](int64_t rows, const ModelConfig& config) {
    return (rows + kGranule) * kv_token_bytes(config, models.kv_type);
  };
  const bool by_base = use.answerer == Sequence::Answerer::kBase;
  int64_t total = by_base ? bytes(whole, base) : 0;
  const auto& auxiliary = models.auxiliary;
  if (use.auxiliary_reads && auxiliary) {
    const bool guesses = request.drafts.value_or(0) != 0 && auxiliary_may_guess(strategy, models);
    const int64_t rows = use.auxiliary_reads_answer || guesses ? whole : prompt;
    total += bytes(std::min(rows, auxiliary->config().max_context_tokens + 1), auxiliary->config());
  }
  if (use.family == CacheFamily::kHealing && models.plan.exact_layers > 1) {
    total += prompt * base.model_dim * static_cast<int64_t>(sizeof(float));  // kept_residual()
  }
  return total * request.choices;
}

void SchedulerRounds::remove_dead_from_queue() {
  queue_.remove_if([&](const std::unique_ptr<Job>& job) {
    if (cancelling_ || job->stop.stop_requested()) {
      job->fail(kCancelled);
      return true;
    }
    if (job->expired()) {
      job->fail(kTimeout);
      return true;
    }
    return false;
  });
}

void SchedulerRounds::admit() {
  int64_t answers = 0;
  for (const auto& job : running_) answers += job->request.choices;
  while (!queue_.empty()) {
    const Job& next = *queue_.front();
    if (answers + next.request.choices > options_.max_batch) break;
    const int64_t most = options_.max_cache_bytes - engine_.pool().pinned_bytes();
    if (reserved_bytes_ + next.reserved_bytes > most) {
      if (!running_.empty()) break;
      const EngineError error = too_large(next.reserved_bytes, most);
      queue_.pop()->fail(error);
      continue;
    }
    running_.reserve(running_.size() + 1);
    // Stored prefixes make room for running requests.
    engine_.pool().shrink_to(options_.max_cache_bytes - reserved_bytes_ - next.reserved_bytes);
    answers += next.request.choices;
    reserved_bytes_ += next.reserved_bytes;
    running_.push_back(queue_.pop());  // has room
  }
}

void SchedulerRounds::publish_stats() {
  stats_.running = static_cast<int64_t>(running_.size());
  stats_.waiting = static_cast<int64_t>(queue_.size());
  stats_.cache_bytes = reserved_bytes_;
  stats_.prefix_bytes = engine_.pool().bytes();
  stats_.pinned_bytes = engine_.pool().pinned_bytes();
  stats_.steps = engine_.steps();
  stats_.longest_step_ms = engine_.longest_step_ms();
}

bool SchedulerRounds::idle() const {
  const std::lock_guard lock(mutex_);
  return running_.empty() && queue_.empty();
}

void SchedulerRounds::wait(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  if (!running_.empty() || idle_work_left_) return;
  work_.wait(lock, stop, [&] { return !queue_.empty(); });
}

void SchedulerRounds::round() {
  try {
    take_round();
  } catch (const std::bad_alloc&) {
    for (const auto& job : running_) {
      if (job->stage != Job::Stage::kOver) job->fail(out_of_memory());
    }
  }
  std::erase_if(running_, [&](const std::unique_ptr<Job>& job) {
    if (job->stage != Job::Stage::kOver) return false;
    reserved_bytes_ -= job->reserved_bytes;
    return true;
  });
  if (running_.empty()) {
    const std::lock_guard lock(mutex_);
    publish_stats();
  }
}

void SchedulerRounds::take_round() {
  std::stop_token interrupted;
  {
    const std::lock_guard lock(mutex_);
    idle_work_ = {};
    interrupted = idle_work_.get_token();
    remove_dead_from_queue();
    if (cancelling_) {
      for (const auto& job : running_) job->ticket->cancel();
    }
    admit();
    publish_stats();
  }
  if (running_.empty()) {
    idle_work_left_ = engine_.refine_stored(interrupted);
    return;
  }
  idle_work_left_ = true;  // it may leave something
  engine_.step(running_);
}

}  // namespace kvcast
