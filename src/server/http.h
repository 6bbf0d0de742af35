// HTTP as the API sees it: plain structs, no library types.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "kvcast/result.h"

namespace kvcast {

struct HttpRequest {
  std::string method;
  std::string path;   ///< target up to '?', as sent
  std::string query;  ///< after '?'
  std::string authorization, content_type, host, origin;
  std::string requested_headers;  ///< a preflight's Access-Control-Request-Headers
  std::string body;
  std::string client_address;                     ///< without the port
  std::chrono::steady_clock::time_point arrival;  ///< when the last byte had been read
};

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  HttpHeaders headers = {};
};

/// A name and a number or word for the access log.
using LogFields = std::vector<std::pair<std::string, std::variant<double, std::string>>>;

/// The answer to one request: either respond(), or begin_stream(), write()..., end_stream(). Every
/// method may be called from any thread and returns at once; after the client has gone they do
/// nothing.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual void respond(HttpResponse response) = 0;
  /// Sends the head; `response.body` is the first piece.
  virtual void begin_stream(HttpResponse response) = 0;
  virtual void write(std::string piece) = 0;
  virtual void end_stream() = 0;
  /// `gone` is called once on the server's thread if the client disconnects before the answer is
  /// complete. Set it on the server's thread, before anything is written.
  virtual void on_gone(std::function<void()> gone) = 0;
  /// What the access log says about the request beside what HTTP shows. Before the answer is
  /// complete; never anything of a prompt or an answer.
  virtual void describe(LogFields fields) = 0;
};

using HttpHandler = std::function<void(HttpRequest, std::shared_ptr<HttpExchange>)>;

/// What happened to one request.
struct HttpAccess {
  std::string client_address, method, path;  ///< method and path empty: the head was no request
  int status = 0;                            ///< of the answer; 0: none was begun
  bool is_complete = false;                  ///< false: the client went away before its end
  int64_t received_bytes = 0;                ///< of the body
  int64_t sent_bytes = 0;
  double seconds = 0;  ///< from the request's last byte
  LogFields fields;
};

/// What the server above decides for the HTTP layer.
struct HttpHooks {
  HttpHandler handle;
  /// More headers for a request that the HTTP layer itself refuses; of the request only `host` and
  /// `origin` are known.
  std::function<HttpHeaders(const HttpRequest&)> refusal_headers;
  /// Called once for each request, on the server's thread; may be empty.
  std::function<void(const HttpAccess&)> on_access;
};

struct HttpLimits {
  int64_t max_body_bytes = int64_t{1} << 20;
  int64_t max_header_bytes = 16 << 10;
  int64_t max_connections = 1024;
  /// An answer that the client reads too slowly to keep up with is given up at this backlog.
  int64_t max_unsent_bytes = int64_t{4} << 20;
  double header_seconds = 10;  ///< from a request's first byte to the end of its head
  double body_seconds = 30;    ///< for the body after that
  double idle_seconds = 75;    ///< between requests
  double write_seconds = 30;   ///< for the client to take a piece of an answer
};

/// Accepts connections and reads requests; one thread runs everything (run()).
class HttpServer {
 public:
  /// Binds; port 0 takes a free one. Errors name the address.
  static Result<std::unique_ptr<HttpServer>> listen(const std::string& host, uint16_t port,
                                                    const HttpLimits& limits, HttpHooks hooks);
  virtual ~HttpServer() = default;

  [[nodiscard]] virtual uint16_t port() const = 0;
  /// True if only this machine can reach the address.
  [[nodiscard]] virtual bool is_loopback() const = 0;
  /// Serves until stop(). The handler is called on this thread.
  virtual void run() = 0;
  /// Runs `task` on the server's thread soon. Any thread.
  virtual void post(std::function<void()> task) = 0;
  /// No new connections; idle ones are closed, busy ones after their answer. Any thread.
  virtual void drain() = 0;
  /// Ends run() now. Any thread.
  virtual void stop() = 0;
  [[nodiscard]] virtual int64_t connections() const = 0;
  /// Connections that were refused or given up: limits, time-outs, malformed requests.
  [[nodiscard]] virtual int64_t dropped_connections() const = 0;
};

/// The API's error body, for the few errors that the HTTP layer itself answers.
std::string http_error_body(int status, std::string_view message);

}  // namespace kvcast
