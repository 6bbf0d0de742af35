// One connection of the Beast server. Only for src/server/http_*.cpp.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>

#include "server/http.h"

namespace kvcast {

class HttpConnection;

/// What connections share. The server's thread only, but for the counters.
struct HttpShared {
  boost::asio::io_context io{1};
  HttpLimits limits;
  HttpHooks hooks;
  std::unordered_set<HttpConnection*> open;
  bool draining = false;
  std::atomic<int64_t> connections{0};
  std::atomic<int64_t> dropped{0};
};

/// Reads one request after the other and writes the answers. While an answer is being made a read
/// is kept pending, so that a client that goes away is noticed.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(std::shared_ptr<HttpShared> shared, boost::asio::ip::tcp::socket socket);
  ~HttpConnection();
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  void start();
  /// Closes at once if no request is under way, else after its answer.
  void drain();
  void close();
  [[nodiscard]] HttpShared& shared() { return *shared_; }

  // From the exchange, on the server's thread. `request` is the number of the request answered:
  // calls for an earlier one do nothing.
  void send_response(uint64_t request, HttpResponse response);
  void send_stream_head(uint64_t request, HttpResponse response);
  void send_piece(uint64_t request, const std::string& piece);
  void send_stream_end(uint64_t request);
  void give_up(uint64_t request);
  void set_gone(uint64_t request, std::function<void()> gone);
  void describe(uint64_t request, LogFields fields);

 private:
  enum class State { kIdle, kReading, kAnswering, kLingering, kClosed };

  void watch();
  void begin_request();
  void on_watched(const boost::system::error_code& error, size_t bytes);
  void read_head();
  void on_head(const boost::system::error_code& error);
  void read_body();
  void on_body(const boost::system::error_code& error);
  void dispatch();
  void refuse(int status, std::string_view message);
  void refuse_malformed(const boost::system::error_code& error);
  [[nodiscard]] HttpHeaders refusal_headers() const;
  [[nodiscard]] std::string head_of(const HttpResponse& response, std::optional<size_t> length);
  void log_access(bool is_complete);
  void finish_answer();
  void next_request();
  void linger();
  void send(std::string bytes);
  void write_next();
  void on_sent(const boost::system::error_code& error);
  void set_deadline(double seconds);
  void clear_deadline() { timer_.cancel(); }

  std::shared_ptr<HttpShared> shared_;
  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer timer_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  std::string client_address_;
  State state_ = State::kIdle;
  uint64_t request_ = 0;  // counts the requests of this connection
  bool watching_ = false;
  bool keep_alive_ = true;
  bool chunked_ = false;    // the answer is streamed in chunks (HTTP/1.1)
  bool head_only_ = false;  // HEAD
  std::function<void()> gone_;
  HttpAccess access_;  // of the request that is being answered
  std::chrono::steady_clock::time_point arrival_;
  std::deque<std::string> unsent_;
  size_t unsent_bytes_ = 0;
  bool writing_ = false;
  bool answer_complete_ = false;
  bool refused_ = false;  // the request may not have been read to its end
  size_t lingered_bytes_ = 0;
};

/// The exchange of one connection's request number `request`: passes everything on to the server's
/// thread.
std::shared_ptr<HttpExchange> make_exchange(std::shared_ptr<HttpShared> shared,
                                            std::weak_ptr<HttpConnection> connection,
                                            uint64_t request);

}  // namespace kvcast
