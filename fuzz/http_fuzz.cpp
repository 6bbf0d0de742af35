// The server from the socket on: whatever the bytes and however they are cut, each request that is
// handed on is one, each answer is HTTP, the connection ends, and the server goes on.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <deque>
#include <iterator>
#include <memory>
#include <string>
#include <thread>

#include "fuzz.h"
#include "server/http.h"

namespace kvcast {
namespace {

/// Whether the client leaves the end to the server. One that ends its side is cut off by it, most
/// often before all of its requests are answered.
std::atomic<bool> client_waits = false;

/// In one of the ways that the API answers, which the path's length chooses.
void answer(HttpRequest request, const std::shared_ptr<HttpExchange>& exchange) {
  static constexpr int kStatuses[] = {200, 204, 400, 401, 403, 404, 405,
                                      408, 415, 429, 500, 503, 504, 418};
  // Never destroyed: the server's threads go on when the program ends.
  static auto& unanswered = *new std::deque<std::shared_ptr<HttpExchange>>;
  const size_t way = request.path.size() % 16;
  if (way == 12) return;             // memory ran out
  if (way == 13 && !client_waits) {  // until the client goes, or never
    exchange->on_gone([exchange] { exchange->respond({.body = "late"}); });
    unanswered.push_back(exchange);
    if (unanswered.size() > 4) unanswered.pop_front();
  } else if (way == 14) {
    const int status = kStatuses[request.query.size() % std::size(kStatuses)];
    exchange->respond({status, "text/plain", status == 204 ? "" : request.query, {{"X-A", "b"}}});
  } else if (way % 2 == 0) {
    exchange->respond({.body = std::move(request.body)});
  } else {
    exchange->on_gone([] {});
    exchange->begin_stream({.body = "data: a\n\n"});
    for (size_t i = 0; i < (way == 15 ? 16 : 1); ++i) exchange->write(request.body);
    exchange->end_stream();
  }
}

void handle(HttpRequest request, const std::shared_ptr<HttpExchange>& exchange) {
  FUZZ_CHECK(!request.method.empty());
  FUZZ_CHECK(request.body.size() <= 4096);
  for (const std::string* text :
       {&request.method, &request.path, &request.query, &request.host, &request.origin,
        &request.authorization, &request.content_type, &request.requested_headers}) {
    FUZZ_CHECK(text->find_first_of("\r\n") == std::string::npos);
  }
  exchange->describe({{"bytes", static_cast<double>(request.body.size())}, {"word", "a"}});
  answer(std::move(request), exchange);
}

void check_access(const HttpAccess& access) {
  FUZZ_CHECK(access.status == 0 || (access.status >= 200 && access.status <= 505));
  FUZZ_CHECK(access.received_bytes >= 0 && access.received_bytes <= 4096);
  FUZZ_CHECK(access.sent_bytes >= 0 && access.seconds >= 0);
  FUZZ_CHECK(access.status != 0 || !access.is_complete);
}

/// One server for all inputs.
uint16_t port() {
  static const uint16_t bound = [] {
    HttpLimits limits;
    limits.max_body_bytes = 4096;
    limits.max_header_bytes = 2048;
    limits.max_unsent_bytes = 8192;
    limits.header_seconds = limits.body_seconds = 0.05;
    limits.idle_seconds = 0.01;  // what an input costs whose client waits
    HttpHooks hooks;
    hooks.handle = handle;
    hooks.refusal_headers = [](const HttpRequest&) { return HttpHeaders(); };
    hooks.on_access = check_access;
    auto server = HttpServer::listen("127.0.0.1", 0, limits, std::move(hooks));
    FUZZ_CHECK(server.has_value());
    const uint16_t at = (*server)->port();
    std::thread([owned = std::shared_ptr<HttpServer>(std::move(*server))] {
      owned->run();
    }).detach();
    return at;
  }();
  return bound;
}

int connect_to_server() {
  const int socket_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  FUZZ_CHECK(socket_fd >= 0);
  const int yes = 1;
  const linger reset = {.l_onoff = 1, .l_linger = 0};  // leaves no port waiting
  const timeval patience = {.tv_sec = 5, .tv_usec = 0};
  setsockopt(socket_fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  setsockopt(socket_fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  setsockopt(socket_fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  FUZZ_CHECK(connect(socket_fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  return socket_fd;
}

/// All that the server answers to `sent`, which comes in pieces of `step` bytes and then ends, or
/// after which the client waits for the server to lose its patience.
std::string exchange(std::string_view sent, size_t step) {
  const int socket_fd = connect_to_server();
  for (size_t at = 0; at < sent.size(); at += step) {
    const std::string_view piece = sent.substr(at, step);
    if (send(socket_fd, piece.data(), piece.size(), MSG_NOSIGNAL) < 0) break;  // was refused early
  }
  if (!client_waits) shutdown(socket_fd, SHUT_WR);
  std::string answer;
  char bytes[4096];
  ssize_t received = 0;
  // libFuzzer's own alarm, every 13 s, may end a wait, but not the patience for an answer.
  while ((received = recv(socket_fd, bytes, sizeof(bytes), 0)) > 0 ||
         (received < 0 && errno == EINTR)) {
    answer.append(bytes, static_cast<size_t>(std::max<ssize_t>(received, 0)));
  }
  FUZZ_CHECK(received == 0 || errno == ECONNRESET || errno == EPIPE);  // and no time-out
  close(socket_fd);
  return answer;
}

void check_answer(std::string_view answer) {
  if (answer.empty()) return;
  FUZZ_CHECK(answer.starts_with("HTTP/1.1 ") || answer.starts_with("HTTP/1.0 "));
  FUZZ_CHECK(answer.size() >= 12 && answer[9] >= '1' && answer[9] <= '5');
  FUZZ_CHECK(answer.find("\r\n\r\n") != std::string_view::npos);
}

}  // namespace
}  // namespace kvcast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvcast;
  Input input(data, size);
  const uint8_t way = input.byte();
  client_waits = way % 4 >= 2;
  const size_t step = way % 2 == 0 ? 65536 : 1 + input.byte();
  check_answer(exchange(input.rest(), step));
  return 0;
}
