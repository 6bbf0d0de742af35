#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/api_error.h"

namespace kvcast {

struct AccessOptions {
  /// Any of these opens every route but /health: as a Bearer token, or as the password of Basic
  /// authentication, which browsers ask for by themselves. Empty: no key is asked for.
  std::vector<std::string> api_keys;
  /// Origins whose pages may call the API; "*": all. Empty: CORS is off.
  std::vector<std::string> cors_origins;
  /// The server is only reachable from this machine: then a Host that is no loopback name means a
  /// page elsewhere that got its own name resolved to here (DNS rebinding).
  bool loopback_only = true;
  std::string host;  ///< the name it was told to bind, which is fine as a Host too
};

/// Who asks, for taking turns.
struct Caller {
  std::string client;
};

/// Decides whether a request may be served. Immutable; any thread.
class Access {
 public:
  explicit Access(AccessOptions options) : options_(std::move(options)) {}

  tl::expected<Caller, ApiError> check(const HttpRequest& request) const;
  /// Headers that let the request's origin read the answer; empty for others.
  [[nodiscard]] HttpHeaders cors_headers(const HttpRequest& request) const;
  /// The answer to OPTIONS: a preflight request if it comes from a page.
  [[nodiscard]] HttpResponse preflight(const HttpRequest& request) const;

 private:
  [[nodiscard]] bool host_is_fine(std::string_view host) const;
  [[nodiscard]] bool origin_is_fine(const HttpRequest& request) const;
  /// Index of the key that the header carries.
  [[nodiscard]] std::optional<size_t> key_of(std::string_view authorization) const;

  AccessOptions options_;
};

/// Standard base64; none if it is not that.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace kvcast
