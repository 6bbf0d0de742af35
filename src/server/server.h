// The whole server: HTTP, API, scheduler and model under one roof.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "kvcast/model.h"
#include "kvcast/result.h"
#include "runtime/scheduler.h"
#include "server/http.h"
#include "server/requests.h"

namespace kvcast {

struct ServerOptions {
  std::filesystem::path model_directory;
  LoadOptions load;
  std::string model_name;          ///< as clients call it; empty: the directory's name
  bool strict_model_name = false;  ///< refuse requests that name another
  std::string host = "127.0.0.1";
  uint16_t port = 8080;  ///< 0: a free one
  SchedulerOptions scheduler;
  std::string system_prompt;  ///< read before the server is ready, and kept; empty: none
  HttpLimits http;
  RequestLimits requests;
  double request_seconds = 600;  ///< 0: no limit
  double drain_seconds = 30;     ///< how long running answers may go on after a stop request
  std::vector<std::string> api_keys;
  std::vector<std::string> cors_origins;
  /// Called once for each request, on the server's thread: the access log.
  std::function<void(const HttpAccess&)> on_access;
};

/// Listens at once, loads the model meanwhile (/health says 503 until it is there). Errors of
/// loading end run().
class Server {
 public:
  /// Binds. Errors name the address.
  static Result<std::unique_ptr<Server>> listen(ServerOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  [[nodiscard]] uint16_t port() const;
  /// Serves until `stop` fires, then drains: no new requests, running answers go on for up to
  /// drain_seconds. `on_ready` is called once, on another thread, when the model is loaded; its
  /// note says what will not work with this model, if anything.
  using OnReady = std::function<void(const std::string& note)>;
  Status run(const std::stop_token& stop, const OnReady& on_ready = {});

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvcast
