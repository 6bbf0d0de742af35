#include "runtime/scheduler.h"

#include <thread>

#include "base/macros.h"
#include "runtime/scheduler_rounds.h"

namespace kvcast {

struct Scheduler::Impl {
  explicit Impl(std::unique_ptr<SchedulerRounds> made) : rounds(std::move(made)) {}

  void run(const std::stop_token& stop) {
    while (!(stop.stop_requested() && rounds->idle())) {
      rounds->wait(stop);
      rounds->round();
    }
  }

  std::unique_ptr<SchedulerRounds> rounds;
  std::jthread thread;  // last: joins before the rest goes
};

Result<std::unique_ptr<Scheduler>> Scheduler::start(std::shared_ptr<const Model> model,
                                                    const SchedulerOptions& options) {
  KVCAST_TRY(auto rounds, SchedulerRounds::make(std::move(model), options));
  auto impl = std::make_unique<Impl>(std::move(rounds));
  Impl& state = *impl;
  std::unique_ptr<Scheduler> scheduler(new Scheduler(std::move(impl)));
  state.thread = std::jthread([&state](const std::stop_token& stop) { state.run(stop); });
  return scheduler;
}

Scheduler::Scheduler(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Scheduler::~Scheduler() {
  cancel_all();
  impl_->thread = {};  // asks it to stop and joins
}

Result<std::string> Scheduler::check_strategy(std::string_view spec) const {
  return impl_->rounds->check_strategy(spec);
}
tl::expected<std::shared_ptr<Ticket>, EngineError> Scheduler::submit(
    EngineRequest request, std::shared_ptr<RequestObserver> observer) {
  return impl_->rounds->submit(std::move(request), std::move(observer));
}
void Scheduler::drain() { impl_->rounds->drain(); }
void Scheduler::cancel_all() { impl_->rounds->cancel_all(); }
SchedulerStats Scheduler::stats() const { return impl_->rounds->stats(); }
const std::string& Scheduler::default_prefill() const { return impl_->rounds->default_prefill(); }
const Model& Scheduler::model() const { return impl_->rounds->model(); }

}  // namespace kvcast
