// From the API, on any thread, to a connection, on the server's.
#include <boost/asio/post.hpp>
#include <new>

#include "server/http_connection.h"

namespace kvcast {
namespace {

namespace asio = boost::asio;

/// The HttpExchange of one request: passes everything on to the server's thread.
class Exchange final : public HttpExchange {
 public:
  Exchange(std::shared_ptr<HttpShared> shared, std::weak_ptr<HttpConnection> connection,
           uint64_t request)
      : shared_(std::move(shared)), connection_(std::move(connection)), request_(request) {}

  /// Who is never answered, since memory ran out on the way, is not left waiting.
  ~Exchange() override {
    if (is_answered_) return;
    try {
      post([](HttpConnection& c, uint64_t request) { c.give_up(request); });
    } catch (const std::bad_alloc&) {
    }
  }

  void respond(HttpResponse response) override {
    post([response = std::move(response)](HttpConnection& c, uint64_t request) mutable {
      c.send_response(request, std::move(response));
    });
    is_answered_ = true;
  }
  void begin_stream(HttpResponse response) override {
    post([response = std::move(response)](HttpConnection& c, uint64_t request) mutable {
      c.send_stream_head(request, std::move(response));
    });
  }
  void write(std::string piece) override {
    post([piece = std::move(piece)](HttpConnection& c, uint64_t request) {
      c.send_piece(request, piece);
    });
  }
  void end_stream() override {
    post([](HttpConnection& c, uint64_t request) { c.send_stream_end(request); });
    is_answered_ = true;
  }
  void on_gone(std::function<void()> gone) override {
    if (const auto connection = connection_.lock()) {
      connection->set_gone(request_, std::move(gone));
    } else {
      gone();
    }
  }
  void describe(LogFields fields) override {
    post([fields = std::move(fields)](HttpConnection& c, uint64_t request) mutable {
      c.describe(request, std::move(fields));
    });
  }

 private:
  template <typename Task>
  void post(Task task) {
    asio::post(shared_->io,
               [connection = connection_, request = request_, task = std::move(task)]() mutable {
                 const auto alive = connection.lock();
                 if (!alive) return;
                 try {
                   task(*alive, request);
                 } catch (const std::bad_alloc&) {
                   alive->close();
                 }
               });
  }
  std::shared_ptr<HttpShared> shared_;
  std::weak_ptr<HttpConnection> connection_;
  uint64_t request_;
  bool is_answered_ = false;
};

}  // namespace

std::shared_ptr<HttpExchange> make_exchange(std::shared_ptr<HttpShared> shared,
                                            std::weak_ptr<HttpConnection> connection,
                                            uint64_t request) {
  return std::make_shared<Exchange>(std::move(shared), std::move(connection), request);
}

}  // namespace kvcast
