// A running server, by default on the tiny bundle.
#pragma once

#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "server/http_client.h"
#include "server/server.h"
#include "server/tiny_bundle.h"

namespace kvcast {

inline constexpr auto kCompletions = "/v1/completions";
inline constexpr auto kChat = "/v1/chat/completions";
inline const std::string kPrompt =
    "The cache is predicted from a smaller model, and the base model";

inline const TinyBundle& tiny_bundle() {
  static const TinyBundle bundle;
  return bundle;
}

class RunningServer {
 public:
  /// `options.model_directory` empty: the tiny bundle. Throws if it does not come up, which fails
  /// the test.
  explicit RunningServer(ServerOptions options = {}) {
    if (options.model_directory.empty()) options.model_directory = tiny_bundle().path();
    options.model_name = "tiny";
    options.load.threads = 2;
    options.port = 0;
    auto listening = Server::listen(std::move(options));
    EXPECT_TRUE(listening) << listening.error().message;
    server_ = std::move(*listening);
    thread_ = std::thread([this] {
      status_ = server_->run(stop_.get_token(),
                             [this](const std::string& /*note*/) { set(State::kReady); });
      set(State::kOver);
    });
    if (!becomes_ready()) {
      ask_to_stop();
      thread_.join();
      throw std::runtime_error("no server: " +
                               (status_ ? "not ready in time" : status_.error().message));
    }
  }
  ~RunningServer() { stop(); }
  RunningServer(const RunningServer&) = delete;
  RunningServer& operator=(const RunningServer&) = delete;

  void ask_to_stop() { stop_.request_stop(); }
  void stop() {
    ask_to_stop();
    if (thread_.joinable()) thread_.join();
    EXPECT_TRUE(status_);
  }
  [[nodiscard]] uint16_t port() const { return server_->port(); }

  /// A gauge or counter of /metrics.
  [[nodiscard]] double metric(const std::string& name) const {
    const std::string text = HttpClient(port()).get("/metrics").body;
    const size_t at = text.find("\nkvcast:" + name + "{");
    if (at == std::string::npos) return -1;
    return std::stod(text.substr(text.find("} ", at) + 2));
  }
  /// Waits until nothing is running or waiting.
  [[nodiscard]] bool becomes_idle(double seconds = 20) const {
    const auto end = std::chrono::steady_clock::now() +
                     std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3));
    while (std::chrono::steady_clock::now() < end) {
      if (metric("num_requests_running") == 0 && metric("num_requests_waiting") == 0) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

 private:
  bool becomes_ready() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    {
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, end, [this] { return state_ != State::kStarting; });
      if (state_ != State::kReady) return false;
    }
    // on_ready comes just before the API is told.
    while (HttpClient(port()).get("/health").status != 200) {
      if (std::chrono::steady_clock::now() > end) return false;
    }
    return true;
  }
  void set(auto state) {
    const std::lock_guard lock(mutex_);
    state_ = state;
    changed_.notify_all();
  }

  std::unique_ptr<Server> server_;
  std::stop_source stop_;
  std::mutex mutex_;
  std::condition_variable changed_;
  enum class State { kStarting, kReady, kOver } state_ = State::kStarting;
  Status status_;
  std::thread thread_;
};

}  // namespace kvcast
