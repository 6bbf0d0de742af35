#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <chrono>
#include <new>
#include <thread>
#include <utility>

#include "server/http_connection.h"

namespace kvcast {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

class BeastServer final : public HttpServer {
 public:
  BeastServer(std::shared_ptr<HttpShared> shared, tcp::acceptor acceptor)
      : shared_(std::move(shared)), acceptor_(std::move(acceptor)), retry_(shared_->io) {
    error_code ignored;
    endpoint_ = acceptor_.local_endpoint(ignored);
    accept();
  }
  ~BeastServer() override {
    // Connections are kept alive by what is pending on them; run_one after close hands that back.
    error_code ignored;
    acceptor_.close(ignored);
    close_all([](HttpConnection& connection) { connection.close(); });
    shared_->io.restart();
    shared_->io.poll();
    shared_->hooks = {};
  }

  [[nodiscard]] uint16_t port() const override { return endpoint_.port(); }
  [[nodiscard]] bool is_loopback() const override { return endpoint_.address().is_loopback(); }
  [[nodiscard]] int64_t connections() const override { return shared_->connections; }
  [[nodiscard]] int64_t dropped_connections() const override { return shared_->dropped; }

  void run() override {
    const auto keep = asio::make_work_guard(shared_->io);
    bool accepts = true;
    while (!shared_->io.stopped()) {
      try {
        if (!std::exchange(accepts, true)) accept_anew();
        shared_->io.run();
      } catch (const std::bad_alloc&) {
        // What needed the memory is gone with its connection; it may have been the next accept.
        accepts = false;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
    }
  }
  void post(std::function<void()> task) override { asio::post(shared_->io, std::move(task)); }
  void stop() override { shared_->io.stop(); }
  void drain() override {
    post([this] {
      shared_->draining = true;
      error_code ignored;
      acceptor_.close(ignored);
      close_all([](HttpConnection& connection) { connection.drain(); });
    });
  }

 private:
  template <typename Action>
  void close_all(const Action& action) {
    // close() may destroy a connection and so change the set.
    const std::vector<HttpConnection*> open(shared_->open.begin(), shared_->open.end());
    for (HttpConnection* connection : open) {
      if (shared_->open.contains(connection)) action(*connection);
    }
  }

  void accept() {
    acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
      if (!acceptor_.is_open()) return;
      if (error) return accept_later();
      if (shared_->connections >= shared_->limits.max_connections) {
        ++shared_->dropped;
        error_code ignored;
        socket.close(ignored);
      } else {
        std::make_shared<HttpConnection>(shared_, std::move(socket))->start();
      }
      accept();
    });
  }

  /// Whether or not an accept is under way.
  void accept_anew() {
    if (!acceptor_.is_open()) return;
    error_code ignored;
    acceptor_.cancel(ignored);
    accept_later();
  }

  /// Out of file descriptors, most likely: wait until some are given back.
  void accept_later() {
    retry_.expires_after(std::chrono::milliseconds(100));
    retry_.async_wait([this](const error_code& error) {
      if (!error && acceptor_.is_open()) accept();
    });
  }

  std::shared_ptr<HttpShared> shared_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  tcp::endpoint endpoint_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::listen(const std::string& host, uint16_t port,
                                                       const HttpLimits& limits, HttpHooks hooks) {
  const auto refuse = [&](const error_code& error) {
    std::string_view hint;
    if (error == boost::asio::error::address_in_use) {
      hint = " by another program: --port names another, 0 a free one";
    } else if (error == boost::asio::error::access_denied) {
      hint = ": ports below 1024 are the administrator's; --port names another";
    }
    return fail(
        fmt::format("cannot listen on {} port {}: {}{}", host, port, error.message(), hint));
  };
  auto shared = std::make_shared<HttpShared>();
  shared->limits = limits;
  shared->hooks = std::move(hooks);
  error_code error;
  tcp::resolver resolver(shared->io);
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (error || found.empty()) return refuse(error);
  const tcp::endpoint endpoint = found.begin()->endpoint();
  tcp::acceptor acceptor(shared->io);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return refuse(error);
  return std::make_unique<BeastServer>(std::move(shared), std::move(acceptor));
}

}  // namespace kvcast
