#include "server/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "base/macros.h"
#include "runtime/chat_template.h"
#include "runtime/model_impl.h"
#include "server/api.h"
#include "server/work_thread.h"

namespace kvcast {
namespace {

/// Touches the memory and starts the threads, so that the first request is not the slow one.
class WarmUp final : public RequestObserver {
 public:
  void on_token(const TokenEvent& /*event*/) override {}
  void on_choice_finished(int64_t, std::string_view, FinishReason) override {}
  void on_finished(const EngineTimings& /*timings*/) override { set_done({}); }
  void on_error(const EngineError& error) override { set_done(fail(error.message)); }
  Status wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return outcome_.has_value(); });
    return *outcome_;
  }

 private:
  void set_done(Status outcome) {
    const std::lock_guard lock(mutex_);
    outcome_ = std::move(outcome);
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Status> outcome_;
};

void warm_up(Scheduler& scheduler) {
  EngineRequest request;
  const auto tokens = std::min<int64_t>(32, scheduler.model().context_tokens());
  request.prompt.assign(static_cast<size_t>(tokens), 1);
  request.max_tokens = 2;
  request.reuse_prefix = false;
  const auto observer = std::make_shared<WarmUp>();
  if (scheduler.submit(std::move(request), observer)) {
    (void)observer->wait();  // what keeps it from answering is told to the first request
  }
}

/// What every conversation with this system prompt begins with.
Result<std::vector<int32_t>> beginning_of_chats(const ChatTemplate& chat, const std::string& text) {
  const auto with_user = [&](const std::string& said) {
    return chat.render({{.role = "system", .content = text}, {.role = "user", .content = said}});
  };
  KVCAST_TRY(ChatPrompt one, with_user("a"));
  KVCAST_TRY(const ChatPrompt other, with_user("b"));
  one.tokens.erase(std::ranges::mismatch(one.tokens, other.tokens).in1, one.tokens.end());
  return std::move(one.tokens);
}

/// Reads the system prompt exactly, as requests will begin with it, and keeps its rows.
Status read_system_prompt(Scheduler& scheduler, const ChatTemplate* chat, const std::string& text) {
  EngineRequest request;
  if (chat != nullptr) {
    KVCAST_TRY(request.prompt, beginning_of_chats(*chat, text));
  } else {
    KVCAST_TRY(request.prompt, scheduler.model().tokenize(text));
  }
  request.prefill = "exact";
  request.max_tokens = 1;
  request.pin_prefix = true;
  const auto observer = std::make_shared<WarmUp>();
  const auto ticket = scheduler.submit(std::move(request), observer);
  if (!ticket) return fail(fmt::format("--warm: {}", ticket.error().message));
  if (const Status read = observer->wait(); !read) {
    return fail(fmt::format("--warm: {}", read.error().message));
  }
  return {};
}

std::string name_of(const std::filesystem::path& directory) {
  const auto absolute = std::filesystem::absolute(directory).lexically_normal();
  const auto last = absolute.filename().empty() ? absolute.parent_path() : absolute;
  return last.filename().string();
}

}  // namespace

struct Server::Impl {
  ServerOptions options;
  Metrics metrics;
  std::unique_ptr<HttpServer> http;
  std::unique_ptr<Api> api;
  std::optional<WorkThread> preparing;
  std::unique_ptr<Scheduler> scheduler;  // before http and metrics, which its observers use
  std::mutex mutex;                      // guards scheduler and error
  std::optional<Error> error;

  Status load(const std::stop_token& stop, const OnReady& on_ready);
  void drain();
};

Result<std::unique_ptr<Server>> Server::listen(ServerOptions options) {
  auto impl = std::make_unique<Impl>();
  Impl& state = *impl;
  if (options.model_name.empty()) options.model_name = name_of(options.model_directory);
  state.options = std::move(options);
  const ServerOptions& chosen = state.options;
  state.preparing.emplace();
  HttpHooks hooks;
  hooks.handle = [&state](HttpRequest request, const auto& exchange) {
    state.api->handle(std::move(request), exchange);
  };
  hooks.refusal_headers = [&state](const HttpRequest& request) {
    return state.api->access().cors_headers(request);
  };
  hooks.on_access = chosen.on_access;
  KVCAST_TRY(state.http,
             HttpServer::listen(chosen.host, chosen.port, chosen.http, std::move(hooks)));
  state.api = std::make_unique<Api>(
      ApiOptions{chosen.model_name, chosen.strict_model_name, chosen.request_seconds,
                 chosen.scheduler.max_batch, chosen.requests},
      Access({chosen.api_keys, chosen.cors_origins, state.http->is_loopback(), chosen.host}),
      state.metrics, [&state](std::function<void()> task) { state.http->post(std::move(task)); },
      [&state](std::function<void()> task) { state.preparing->post(std::move(task)); });
  state.api->set_http(*state.http);
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() {
  impl_->preparing.reset();  // no new tasks from here on
  impl_->api->close();
  impl_->scheduler.reset();  // no callbacks from here on
  impl_->http.reset();       // drops the connections and with them the tasks
}

uint16_t Server::port() const { return impl_->http->port(); }

Status Server::Impl::load(const std::stop_token& stop, const OnReady& on_ready) {
  KVCAST_TRY(const auto model, Model::load(options.model_directory, options.load));
  if (stop.stop_requested()) return {};
  KVCAST_TRY(auto started, Scheduler::start(model, options.scheduler));
  const auto chat = std::make_shared<Result<std::unique_ptr<ChatTemplate>>>(
      fail(fmt::format("prompts as token ids only: {}", model->impl().tokenizer_hint)));
  if (model->has_tokenizer()) {
    *chat = ChatTemplate::load(options.model_directory, *model->impl().tokenizer);
  }
  warm_up(*started);
  if (!options.system_prompt.empty()) {
    KVCAST_CHECK(
        read_system_prompt(*started, *chat ? (*chat)->get() : nullptr, options.system_prompt));
  }
  Scheduler& ready = *started;
  {
    const std::lock_guard lock(mutex);
    scheduler = std::move(started);
  }
  const std::string note = *chat ? "" : "no chat: " + chat->error().message;
  http->post([this, &ready, chat] { api->set_ready(ready, std::move(*chat)); });
  if (on_ready) on_ready(note);
  return {};
}

/// Lets running answers finish, then cancels what is left, and ends the server's loop.
void Server::Impl::drain() {
  http->post([this] { api->set_draining(); });
  http->drain();
  const auto deadline =
      SteadyClock::now() + std::chrono::duration_cast<SteadyClock::duration>(
                               std::chrono::duration<double>(options.drain_seconds));
  const auto wait_until_idle = [&](SteadyClock::time_point until) {
    while (SteadyClock::now() < until && http->connections() > 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  };
  {
    const std::lock_guard lock(mutex);
    if (scheduler) scheduler->drain();
  }
  wait_until_idle(deadline);
  {
    const std::lock_guard lock(mutex);
    if (scheduler) scheduler->cancel_all();
  }
  // Time to tell the clients.
  wait_until_idle(SteadyClock::now() + std::chrono::seconds(2));
  http->stop();
}

Status Server::run(const std::stop_token& stop, const OnReady& on_ready) {
  Impl& state = *impl_;
  std::mutex mutex;
  std::condition_variable_any changed;
  bool failed = false;
  std::jthread loader([&](const std::stop_token&) {
    if (Status status = state.load(stop, on_ready); !status) {
      const std::lock_guard lock(mutex);
      state.error = std::move(status.error());
      failed = true;
      changed.notify_all();
    }
  });
  std::jthread stopper([&] {
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, stop, [&] { return failed; });
    }
    if (failed) return state.http->stop();
    state.drain();
  });
  state.http->run();
  stopper.join();
  loader.join();
  if (state.error) return tl::unexpected(*state.error);
  return {};
}

}  // namespace kvcast
