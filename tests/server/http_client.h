// A plain HTTP client on a raw socket, so that tests can also send what no client library would.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace kvcast {

struct ClientResponse {
  int status = 0;  ///< 0: the connection ended without an answer
  std::string head;
  std::string body;
  [[nodiscard]] nlohmann::json json() const { return nlohmann::json::parse(body, nullptr, false); }
};

class HttpClient {
 public:
  explicit HttpClient(uint16_t port, int timeout_seconds = 20) {
    socket_ = ::socket(AF_INET, SOCK_STREAM, 0);
    const timeval timeout{.tv_sec = timeout_seconds, .tv_usec = 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~HttpClient() { close(); }
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  [[nodiscard]] bool connected() const { return connected_; }
  void close() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }
  /// Drops the connection the hard way.
  void reset() {
    const linger hard{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close();
  }
  void shut_down_sending() { ::shutdown(socket_, SHUT_WR); }

  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  /// More bytes into the buffer; false at the end of the connection or after the time-out.
  bool read_some() {
    char bytes[16384];
    const ssize_t count = ::recv(socket_, bytes, sizeof bytes, 0);
    if (count <= 0) return false;
    buffer_.append(bytes, static_cast<size_t>(count));
    return true;
  }
  [[nodiscard]] const std::string& buffer() const { return buffer_; }
  /// Bytes have come that nobody has read yet. Does not wait.
  [[nodiscard]] bool has_answer() const {
    char byte = 0;
    return !buffer_.empty() || ::recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
  }

  /// One whole response, the chunks of a streamed body put together.
  ClientResponse read_response() {
    ClientResponse response;
    while (buffer_.find("\r\n\r\n") == std::string::npos) {
      if (!read_some()) return response;
    }
    const size_t end = buffer_.find("\r\n\r\n") + 4;
    response.head = buffer_.substr(0, end);
    buffer_.erase(0, end);
    response.status = std::atoi(response.head.c_str() + 9);
    if (response.status == 100) return read_response();
    if (response.status == 204) return response;
    if (const auto length = header(response.head, "Content-Length")) {
      const auto bytes = static_cast<size_t>(std::stoul(*length));
      while (buffer_.size() < bytes && read_some()) {
      }
      response.body = buffer_.substr(0, bytes);
      buffer_.erase(0, std::min(bytes, buffer_.size()));
    } else if (header(response.head, "Transfer-Encoding")) {
      read_chunks(response.body);
    } else {
      while (read_some()) {
      }
      response.body = std::move(buffer_);
      buffer_.clear();
    }
    return response;
  }

  ClientResponse get(const std::string& path, const std::string& headers = "") {
    send("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n");
    return read_response();
  }
  static std::string post_text(const std::string& path, const std::string& body,
                               const std::string& headers = "") {
    return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
           headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  ClientResponse post(const std::string& path, const std::string& body,
                      const std::string& headers = "") {
    send(post_text(path, body, headers));
    return read_response();
  }
  ClientResponse post(const std::string& path, const nlohmann::json& body) {
    return post(path, body.dump());
  }

  static std::optional<std::string> header(const std::string& head, const std::string& name) {
    const size_t at = head.find("\r\n" + name + ": ");
    if (at == std::string::npos) return std::nullopt;
    const size_t start = at + name.size() + 4;
    return head.substr(start, head.find("\r\n", start) - start);
  }

 private:
  void read_chunks(std::string& body) {
    while (true) {
      while (buffer_.find("\r\n") == std::string::npos) {
        if (!read_some()) return;
      }
      const size_t line = buffer_.find("\r\n");
      const size_t size = std::stoul(buffer_.substr(0, line), nullptr, 16);
      while (buffer_.size() < line + 2 + size + 2) {
        if (!read_some()) return;
      }
      body += buffer_.substr(line + 2, size);
      buffer_.erase(0, line + 2 + size + 2);
      if (size == 0) return;
    }
  }

  int socket_ = -1;
  bool connected_ = false;
  std::string buffer_;
};

/// The data of each server-sent event, named or not, "[DONE]" left out; `done`: whether it came.
struct Events {
  std::vector<nlohmann::json> data;
  bool done = false;

  explicit Events(const std::string& body) {
    for (size_t at = 0; at < body.size();) {
      const size_t end = std::min(body.find("\n\n", at), body.size());
      const size_t name = body.compare(at, 7, "event: ") == 0 ? body.find('\n', at) + 1 : at;
      const std::string event = body.substr(name, end - name);
      at = end + 2;
      EXPECT_TRUE(event.starts_with("data: ")) << event;
      if (event == "data: [DONE]") {
        done = true;
      } else {
        data.push_back(nlohmann::json::parse(event.substr(6), nullptr, false));
      }
    }
  }
};

}  // namespace kvcast
