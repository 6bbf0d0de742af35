#include "runtime/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/macros.h"
#include "runtime/fair_queue.h"
#include "runtime/job.h"
#include "runtime/model_impl.h"
#include "runtime/step.h"

namespace kvcast {

struct Scheduler::Impl {
  Impl(std::shared_ptr<const Model> loaded, const SchedulerOptions& chosen)
      : model(std::move(loaded)), options(chosen), engine(*model, options) {}

  void run(const std::stop_token& stop);
  void remove_dead_from_queue();
  void admit();
  [[nodiscard]] int64_t cache_bytes_of(const EngineRequest& request, const CacheUse& use) const;
  void publish_stats();

  std::shared_ptr<const Model> model;
  SchedulerOptions options;
  StepEngine engine;                          // the scheduler's thread only
  std::vector<std::unique_ptr<Job>> running;  // the scheduler's thread only
  int64_t reserved_bytes = 0;                 // of `running`

  mutable std::mutex mutex;  // guards what follows
  std::condition_variable_any work;
  FairQueue<std::unique_ptr<Job>> queue;
  SchedulerStats stats;
  bool draining = false;
  bool cancelling = false;
  std::stop_source idle_work;  // asked to stop when something else is to be done

  std::jthread thread;  // last: joins before the rest goes
};

namespace {

EngineError invalid(std::string message) {
  return {EngineError::Kind::kInvalid, std::move(message)};
}

int64_t cache_bytes_per_token(const ModelConfig& config, KvType type) {
  int64_t width = 0;
  for (int64_t i = 0; i < config.n_layers(); ++i) width += config.kv_width(i);
  return 2 * width * static_cast<int64_t>(kv_element_bytes(type));
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

Result<std::unique_ptr<Scheduler>> Scheduler::start(std::shared_ptr<const Model> model,
                                                    const SchedulerOptions& options) {
  auto impl = std::make_unique<Impl>(std::move(model), options);
  if (impl->options.default_prefill.empty()) {
    impl->options.default_prefill = impl->model->default_prefill();
  }
  std::unique_ptr<Scheduler> scheduler(new Scheduler(std::move(impl)));
  KVCAST_TRY(scheduler->impl_->options.default_prefill,
             scheduler->check_strategy(scheduler->impl_->options.default_prefill));
  Impl& state = *scheduler->impl_;
  if (!options.prefix_store.empty()) {
    const Model& served = *state.model;
    KVCAST_TRY(auto store, PrefixStore::open(options.prefix_store, prefix_key(served),
                                             served.impl().models, options.max_store_bytes));
    state.engine.pool().keep_in(std::move(store));
  }
  state.thread = std::jthread([&state](const std::stop_token& stop) { state.run(stop); });
  return scheduler;
}

Scheduler::Scheduler(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Scheduler::~Scheduler() {
  cancel_all();
  impl_->thread = {};  // asks it to stop and joins
}

Result<std::string> Scheduler::check_strategy(std::string_view spec) const {
  KVCAST_TRY(const auto strategy, PrefillStrategy::parse(spec));
  KVCAST_CHECK(kvcast::check_strategy(*strategy, impl_->model->impl().models));
  return strategy->spec();
}

tl::expected<std::shared_ptr<Ticket>, EngineError> Scheduler::submit(
    EngineRequest request, std::shared_ptr<RequestObserver> observer) {
  Impl& state = *impl_;
  auto strategy = PrefillStrategy::parse(request.prefill.empty() ? state.options.default_prefill
                                                                 : request.prefill);
  if (!strategy) return tl::unexpected(invalid(std::move(strategy.error().message)));
  const Models& models = state.model->impl().models;
  if (auto ok = check(request, **strategy, models, state.options.max_batch); !ok) {
    return tl::unexpected(std::move(ok.error()));
  }
  const int64_t bytes = state.cache_bytes_of(request, (*strategy)->cache_use());
  if (bytes > state.options.max_cache_bytes) {
    return tl::unexpected(EngineError{
        EngineError::Kind::kTooLarge,
        fmt::format("the KV caches of this request need {} MiB, the server's limit is {} MiB; ask "
                    "for fewer max_tokens or a smaller n",
                    bytes >> 20, state.options.max_cache_bytes >> 20)});
  }
  auto job = std::make_unique<Job>(std::move(request), std::move(observer), std::move(*strategy));
  job->reserved_bytes = bytes;
  auto ticket = job->ticket;
  const std::lock_guard lock(state.mutex);
  if (state.draining) {
    return tl::unexpected(
        EngineError{EngineError::Kind::kShuttingDown, "the server is shutting down"});
  }
  if (static_cast<int64_t>(state.queue.size()) >= state.options.max_queue) {
    return tl::unexpected(EngineError{
        EngineError::Kind::kQueueFull,
        fmt::format("{} requests are waiting already; try again later", state.queue.size())});
  }
  const std::string client = job->request.client;
  state.queue.push(client, std::move(job));
  state.stats.waiting = static_cast<int64_t>(state.queue.size());
  state.idle_work.request_stop();
  state.work.notify_one();
  return ticket;
}

void Scheduler::drain() {
  const std::lock_guard lock(impl_->mutex);
  impl_->draining = true;
}

void Scheduler::cancel_all() {
  const std::lock_guard lock(impl_->mutex);
  impl_->draining = true;
  impl_->cancelling = true;
  impl_->idle_work.request_stop();
  impl_->work.notify_one();
}

SchedulerStats Scheduler::stats() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->stats;
}

const std::string& Scheduler::default_prefill() const { return impl_->options.default_prefill; }
const Model& Scheduler::model() const { return *impl_->model; }

int64_t Scheduler::Impl::cache_bytes_of(const EngineRequest& request, const CacheUse& use) const {
  const Models& models = model->impl().models;
  const ModelConfig& base = models.base->config();
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const auto whole = std::min(prompt + request.max_tokens, base.max_context_tokens);
  constexpr int64_t kGranule = 64;  // rows; KVCache grows in such steps
  const auto bytes = [&](int64_t rows, const ModelConfig& config) {
    return (rows + kGranule) * cache_bytes_per_token(config, models.kv_type);
  };
  const bool by_base = use.answerer == Sequence::Answerer::kBase;
  int64_t total = by_base ? bytes(whole, base) : 0;
  const auto& auxiliary = models.auxiliary;
  if (use.auxiliary_reads && auxiliary) {
    total += bytes(by_base ? prompt : whole, auxiliary->config());
  }
  if (use.family == CacheFamily::kHealing && models.plan.exact_layers > 1) {
    total += prompt * base.model_dim * static_cast<int64_t>(sizeof(float));  // kept_residual()
  }
  return total * request.choices;
}

void Scheduler::Impl::remove_dead_from_queue() {
  queue.remove_if([&](const std::unique_ptr<Job>& job) {
    if (cancelling || job->stop.stop_requested()) {
      job->fail({EngineError::Kind::kCancelled, "cancelled"});
      return true;
    }
    if (job->expired()) {
      job->fail({EngineError::Kind::kTimeout, "the request's time ran out while it was waiting"});
      return true;
    }
    return false;
  });
}

void Scheduler::Impl::admit() {
  int64_t answers = 0;
  for (const auto& job : running) answers += job->request.choices;
  while (!queue.empty()) {
    const Job& next = *queue.front();
    if (answers + next.request.choices > options.max_batch && answers > 0) break;
    if (reserved_bytes + next.reserved_bytes > options.max_cache_bytes) break;
    // Stored prefixes make room for running requests.
    engine.pool().shrink_to(options.max_cache_bytes - reserved_bytes - next.reserved_bytes);
    answers += next.request.choices;
    reserved_bytes += next.reserved_bytes;
    running.push_back(queue.pop());
  }
}

void Scheduler::Impl::publish_stats() {
  stats.running = static_cast<int64_t>(running.size());
  stats.waiting = static_cast<int64_t>(queue.size());
  stats.cache_bytes = reserved_bytes;
  stats.prefix_bytes = engine.pool().bytes();
  stats.steps = engine.steps();
  stats.longest_step_ms = engine.longest_step_ms();
}

void Scheduler::Impl::run(const std::stop_token& stop) {
  bool idle_work_left = true;
  while (true) {
    std::stop_token interrupted;
    {
      std::unique_lock lock(mutex);
      if (running.empty() && !idle_work_left) {
        work.wait(lock, stop, [&] { return !queue.empty(); });
      }
      idle_work = {};
      interrupted = idle_work.get_token();
      remove_dead_from_queue();
      if (stop.stop_requested() && running.empty() && queue.empty()) return;
      if (cancelling) {
        for (const auto& job : running) job->ticket->cancel();
      }
      admit();
      publish_stats();
    }
    if (running.empty()) {
      idle_work_left = engine.refine_stored(interrupted);
      continue;
    }
    idle_work_left = true;  // it may leave something
    engine.step(running);
    std::erase_if(running, [&](const std::unique_ptr<Job>& job) {
      if (job->stage != Job::Stage::kOver) return false;
      reserved_bytes -= job->reserved_bytes;
      return true;
    });
    if (running.empty()) {
      const std::lock_guard lock(mutex);
      publish_stats();
    }
  }
}

}  // namespace kvcast
