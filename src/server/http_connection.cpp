#include "server/http_connection.h"

#include <fmt/format.h>

#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <new>

#include "server/http_text.h"

namespace kvcast {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr size_t kWatchBytes = 4096;
/// Bytes of further requests that are read ahead while one is being answered.
constexpr size_t kMaxReadAhead = 64 << 10;
/// How long, and how much, a refused client may go on sending before the connection is cut; cutting
/// at once would reset it and lose the answer.
constexpr double kLingerSeconds = 2;
constexpr size_t kLingerBytes = 4 << 20;

/// A completion handler of this connection: `handle` (self, arguments...). Where memory runs out
/// the connection is closed, since nobody knows what it was about to do.
template <typename Handle>
auto guarded(std::shared_ptr<HttpConnection> self, Handle handle) {
  return [self = std::move(self), handle](const auto&... arguments) {
    try {
      handle(*self, arguments...);
    } catch (const std::bad_alloc&) {
      self->close();
    }
  };
}

std::string to_string(boost::beast::string_view text) { return {text.data(), text.size()}; }

}  // namespace

HttpConnection::HttpConnection(std::shared_ptr<HttpShared> shared, asio::ip::tcp::socket socket)
    : shared_(std::move(shared)), socket_(std::move(socket)), timer_(shared_->io) {
  error_code ignored;
  client_address_ = socket_.remote_endpoint(ignored).address().to_string();
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  shared_->open.insert(this);
  ++shared_->connections;
}

HttpConnection::~HttpConnection() {
  shared_->open.erase(this);
  --shared_->connections;
}

void HttpConnection::start() {
  set_deadline(shared_->limits.header_seconds);
  watch();
}

void HttpConnection::drain() {
  keep_alive_ = false;
  if (state_ == State::kIdle) close();
}

void HttpConnection::close() {
  if (state_ == State::kClosed) return;
  const bool was_answering = state_ == State::kAnswering;
  state_ = State::kClosed;
  error_code ignored;
  socket_.close(ignored);
  timer_.cancel();
  if (was_answering && !answer_complete_) log_access(false);
  if (was_answering && gone_) std::exchange(gone_, {})();
  gone_ = {};
}

// ---- reading ----

/// Waits for bytes: the next request's first ones, or the end of the connection.
void HttpConnection::watch() {
  watching_ = true;
  socket_.async_read_some(
      buffer_.prepare(kWatchBytes),
      guarded(shared_from_this(), [](HttpConnection& self, const error_code& error, size_t bytes) {
        self.on_watched(error, bytes);
      }));
}

void HttpConnection::begin_request() {
  // Some clients end a body with a line of its own, which belongs to no request (RFC 9112, 2.2).
  const auto* begin = static_cast<const char*>(buffer_.data().data());
  size_t blank = 0;
  while (blank < buffer_.size() && (begin[blank] == '\r' || begin[blank] == '\n')) ++blank;
  buffer_.consume(blank);
  return buffer_.size() > 0 ? read_head() : watch();
}

void HttpConnection::on_watched(const error_code& error, size_t bytes) {
  watching_ = false;
  if (state_ == State::kClosed) return;
  // next_request() took the read back because a pipelined request is here already.
  if (error == asio::error::operation_aborted && state_ == State::kIdle) return begin_request();
  if (error) return close();
  if (state_ == State::kLingering) {
    lingered_bytes_ += bytes;
    if (lingered_bytes_ > kLingerBytes) return close();
    return watch();
  }
  buffer_.commit(bytes);
  if (state_ == State::kIdle) return begin_request();
  if (buffer_.size() < kMaxReadAhead) watch();
}

void HttpConnection::read_head() {
  state_ = State::kReading;
  set_deadline(shared_->limits.header_seconds);
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(shared_->limits.max_header_bytes));
  parser_->body_limit(static_cast<uint64_t>(shared_->limits.max_body_bytes));
  http::async_read_header(
      socket_, buffer_, *parser_,
      guarded(shared_from_this(),
              [](HttpConnection& self, const error_code& error, size_t) { self.on_head(error); }));
}

void HttpConnection::on_head(const error_code& error) {
  if (state_ == State::kClosed) return;
  if (error) return refuse_malformed(error);
  const auto& head = parser_->get();
  if (head.version() != 11 && head.version() != 10) {
    return refuse(505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
  }
  // A request whose length two readers could understand differently is never served (RFC 9112,
  // section 6.3).
  if (head.count(http::field::content_length) + head.count(http::field::transfer_encoding) > 1) {
    return refuse(400, "more than one of Content-Length and Transfer-Encoding");
  }
  const auto encoding = head[http::field::transfer_encoding];
  if (!encoding.empty() && !boost::beast::iequals(encoding, "chunked")) {
    return refuse(400, "expected no other Transfer-Encoding than chunked");
  }
  if (head.count(http::field::host) > 1 ||
      (head.version() == 11 && head.count(http::field::host) == 0)) {
    return refuse(400, "expected exactly one Host header");
  }
  if (head.count(http::field::authorization) > 1) {
    return refuse(400, "expected at most one Authorization header");
  }
  if (boost::beast::iequals(head[http::field::expect], "100-continue")) {
    send("HTTP/1.1 100 Continue\r\n\r\n");
  }
  read_body();
}

void HttpConnection::read_body() {
  set_deadline(shared_->limits.body_seconds);
  http::async_read(socket_, buffer_, *parser_,
                   guarded(shared_from_this(), [](HttpConnection& self, const error_code& error,
                                                  size_t) { self.on_body(error); }));
}

void HttpConnection::on_body(const error_code& error) {
  if (state_ == State::kClosed) return;
  if (error) return refuse_malformed(error);
  dispatch();
}

void HttpConnection::dispatch() {
  clear_deadline();
  auto message = parser_->release();
  parser_.reset();
  HttpRequest request;
  request.arrival = arrival_ = std::chrono::steady_clock::now();
  request.method = to_string(message.method_string());
  const std::string target = path_and_query(to_string(message.target()));
  const size_t mark = target.find('?');
  request.path = target.substr(0, mark);
  if (mark != std::string::npos) request.query = target.substr(mark + 1);
  request.authorization = to_string(message[http::field::authorization]);
  request.content_type = to_string(message[http::field::content_type]);
  request.host = to_string(message[http::field::host]);
  request.origin = to_string(message[http::field::origin]);
  request.requested_headers = to_string(message[http::field::access_control_request_headers]);
  request.body = std::move(message.body());
  request.client_address = client_address_;
  keep_alive_ = message.keep_alive() && !shared_->draining;
  chunked_ = message.version() == 11;
  head_only_ = message.method() == http::verb::head;
  state_ = State::kAnswering;
  answer_complete_ = false;
  ++request_;
  if (!watching_ && buffer_.size() < kMaxReadAhead) watch();
  access_ = {.client_address = client_address_,
             .method = request.method,
             .path = request.path,
             .received_bytes = std::ssize(request.body),
             .fields = {}};
  shared_->hooks.handle(std::move(request), make_exchange(shared_, weak_from_this(), request_));
}

// ---- answering ----

void HttpConnection::refuse(int status, std::string_view message) {
  ++shared_->dropped;
  state_ = State::kAnswering;
  refused_ = true;
  keep_alive_ = false;
  head_only_ = false;
  answer_complete_ = false;
  ++request_;
  arrival_ = std::chrono::steady_clock::now();
  access_ = {.client_address = client_address_, .method = {}, .path = {}, .fields = {}};
  send_response(request_,
                {status, "application/json", http_error_body(status, message), refusal_headers()});
}

/// A page may read why it was refused, as it may read every answer.
HttpHeaders HttpConnection::refusal_headers() const {
  if (!shared_->hooks.refusal_headers) return {};
  HttpRequest request;
  if (parser_) {  // as far as the head was read
    request.host = to_string(parser_->get()[http::field::host]);
    request.origin = to_string(parser_->get()[http::field::origin]);
  }
  if (request.origin.empty()) {
    const std::string_view bytes(static_cast<const char*>(buffer_.data().data()), buffer_.size());
    request.host = find_header(bytes, "host");
    request.origin = find_header(bytes, "origin");
  }
  return shared_->hooks.refusal_headers(request);
}

void HttpConnection::refuse_malformed(const error_code& error) {
  if (error == http::error::body_limit) {
    return refuse(413, fmt::format("the request body is larger than {} bytes",
                                   shared_->limits.max_body_bytes));
  }
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return refuse(431, fmt::format("the request's head is larger than {} bytes",
                                   shared_->limits.max_header_bytes));
  }
  const bool malformed =
      error.category() == http::make_error_code(http::error::bad_method).category();
  if (malformed && error != http::error::end_of_stream && error != http::error::partial_message) {
    return refuse(400, fmt::format("not a valid HTTP request: {}", error.message()));
  }
  close();
}

std::string HttpConnection::head_of(const HttpResponse& response, std::optional<size_t> length) {
  access_.status = response.status;
  std::string head = response_head(response);
  if (response.status == 204) {
    // No body, and so no length either (RFC 9110, 8.6).
  } else if (length) {
    head += fmt::format("Content-Length: {}\r\n", *length);
  } else if (chunked_) {
    head += "Transfer-Encoding: chunked\r\n";
  } else {
    keep_alive_ = false;  // HTTP/1.0: the end of the connection is the end of the answer
  }
  head += keep_alive_ ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return head;
}

void HttpConnection::send_response(uint64_t request, HttpResponse response) {
  if (request != request_ || state_ != State::kAnswering) return;
  std::string bytes = head_of(response, response.body.size());
  if (!head_only_) bytes += response.body;
  answer_complete_ = true;
  send(std::move(bytes));
  log_access(true);
}

void HttpConnection::send_stream_head(uint64_t request, HttpResponse response) {
  if (request != request_ || state_ != State::kAnswering) return;
  send(head_of(response, std::nullopt));
  send_piece(request, response.body);
}

void HttpConnection::send_piece(uint64_t request, const std::string& piece) {
  if (request != request_ || state_ != State::kAnswering || piece.empty() || head_only_) return;
  send(chunked_ ? fmt::format("{:x}\r\n{}\r\n", piece.size(), piece) : piece);
}

void HttpConnection::send_stream_end(uint64_t request) {
  if (request != request_ || state_ != State::kAnswering) return;
  answer_complete_ = true;
  log_access(true);
  if (chunked_ && !head_only_) return send("0\r\n\r\n");
  if (!writing_ && unsent_.empty()) finish_answer();
}

/// Nobody answers any more.
void HttpConnection::give_up(uint64_t request) {
  if (request == request_ && state_ == State::kAnswering && !answer_complete_) close();
}

void HttpConnection::set_gone(uint64_t request, std::function<void()> gone) {
  if (request == request_ && state_ == State::kAnswering) {
    gone_ = std::move(gone);
  } else {
    gone();
  }
}

void HttpConnection::describe(uint64_t request, LogFields fields) {
  if (request == request_) access_.fields = std::move(fields);
}

void HttpConnection::log_access(bool is_complete) {
  if (!shared_->hooks.on_access) return;
  access_.is_complete = is_complete;
  access_.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - arrival_).count();
  shared_->hooks.on_access(access_);
}

void HttpConnection::send(std::string bytes) {
  access_.sent_bytes += std::ssize(bytes);
  unsent_bytes_ += bytes.size();
  if (unsent_bytes_ > static_cast<size_t>(shared_->limits.max_unsent_bytes) && unsent_.size() > 1) {
    ++shared_->dropped;
    return close();
  }
  unsent_.push_back(std::move(bytes));
  if (!writing_) write_next();
}

void HttpConnection::write_next() {
  writing_ = true;
  if (state_ == State::kAnswering) set_deadline(shared_->limits.write_seconds);
  // Pieces that have piled up go out in one write.
  while (unsent_.size() > 1 && unsent_.front().size() < kMaxReadAhead) {
    unsent_.front() += unsent_[1];
    unsent_.erase(unsent_.begin() + 1);
  }
  asio::async_write(socket_, asio::buffer(unsent_.front()),
                    guarded(shared_from_this(), [](HttpConnection& self, const error_code& error,
                                                   size_t) { self.on_sent(error); }));
}

void HttpConnection::on_sent(const error_code& error) {
  writing_ = false;
  if (state_ == State::kClosed) return;
  if (error) return close();
  unsent_bytes_ -= unsent_.front().size();
  unsent_.pop_front();
  if (!unsent_.empty()) return write_next();
  if (state_ != State::kAnswering) return;
  clear_deadline();
  if (answer_complete_) finish_answer();
}

void HttpConnection::finish_answer() {
  gone_ = {};
  if (!keep_alive_ || shared_->draining) {
    const bool may_send_more = refused_ || buffer_.size() > 0;
    return may_send_more ? linger() : close();
  }
  next_request();
}

void HttpConnection::next_request() {
  state_ = State::kIdle;
  set_deadline(shared_->limits.idle_seconds);
  if (buffer_.size() == 0) {
    if (!watching_) watch();
  } else if (watching_) {
    error_code ignored;
    socket_.cancel(ignored);  // goes on in on_watched
  } else {
    begin_request();
  }
}

void HttpConnection::linger() {
  state_ = State::kLingering;
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  buffer_.clear();
  set_deadline(kLingerSeconds);
  if (!watching_) watch();
}

void HttpConnection::set_deadline(double seconds) {
  timer_.expires_after(std::chrono::microseconds(static_cast<int64_t>(seconds * 1e6)));
  timer_.async_wait([weak = weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (error || !self || self->timer_.expiry() > asio::steady_timer::clock_type::now()) return;
    if (self->state_ == State::kReading || self->state_ == State::kAnswering) {
      ++self->shared_->dropped;
    }
    self->close();
  });
}

}  // namespace kvcast
