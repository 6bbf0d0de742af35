#include "server/access.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string>

#include "server/http_text.h"

namespace kvcast {
namespace {

/// Takes as long for a wrong key as for a right one of the same length.
bool equal_in_constant_time(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
  }
  return difference == 0;
}

bool has_scheme(std::string_view header, std::string_view scheme) {
  return header.size() > scheme.size() &&
         equal_ignoring_case(header.substr(0, scheme.size()), scheme);
}

/// "localhost:8080" -> "localhost"; "[::1]:8080" -> "[::1]"; a name may end with the root's dot.
std::string_view host_name(std::string_view host) {
  const size_t colon = host.rfind(':');
  if (colon != std::string_view::npos && !host.ends_with(']')) host = host.substr(0, colon);
  if (host.ends_with('.')) host.remove_suffix(1);
  return host;
}

/// 127.0.0.0/8, and not a name that begins like it.
bool is_loopback_address(std::string_view name) {
  in_addr address{};
  return inet_pton(AF_INET, std::string(name).c_str(), &address) == 1 &&
         ntohl(address.s_addr) >> 24 == 127;
}

/// Letters, digits, '-' and what else separates names of headers: nothing that ends a header.
bool is_list_of_names(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("!#$%&'*+-.^_`|~, \t").find(c) != std::string_view::npos;
  });
}

}  // namespace

std::optional<std::string> decode_base64(std::string_view text) {
  while (text.ends_with('=')) text.remove_suffix(1);
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  unsigned bits = 0;
  int held = 0;
  for (const char c : text) {
    const size_t value = kAlphabet.find(c);
    if (value == std::string_view::npos) return std::nullopt;
    bits = (bits << 6 | static_cast<unsigned>(value)) & 0xFFFFU;
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes.push_back(static_cast<char>(bits >> held & 0xFFU));
    }
  }
  return bytes;
}

bool Access::host_is_fine(std::string_view host) const {
  const std::string_view name = host_name(host);
  return !options_.loopback_only || host.empty() || equal_ignoring_case(name, "localhost") ||
         name == "[::1]" || is_loopback_address(name) || equal_ignoring_case(name, options_.host);
}

bool Access::origin_is_fine(const HttpRequest& request) const {
  const std::string& origin = request.origin;
  if (origin.empty()) return true;
  const auto is_own = [&](std::string_view scheme) {
    return equal_ignoring_case(origin, std::string(scheme) + request.host);
  };
  if (is_own("http://") || is_own("https://")) return true;
  return std::ranges::any_of(options_.cors_origins, [&](const std::string& allowed) {
    return allowed == "*" || equal_ignoring_case(allowed, origin);
  });
}

std::optional<size_t> Access::key_of(std::string_view header) const {
  std::string given;
  if (has_scheme(header, "bearer ")) {
    given = header.substr(7);
  } else if (has_scheme(header, "basic ")) {
    const auto decoded = decode_base64(header.substr(6));
    if (!decoded) return std::nullopt;
    const size_t colon = decoded->find(':');
    if (colon == std::string::npos) return std::nullopt;
    given = decoded->substr(colon + 1);
  }
  std::optional<size_t> found;
  for (size_t i = 0; i < options_.api_keys.size(); ++i) {
    if (equal_in_constant_time(given, options_.api_keys[i])) found = i;
  }
  return found;
}

tl::expected<Caller, ApiError> Access::check(const HttpRequest& request) const {
  if (!host_is_fine(request.host)) {
    return tl::unexpected(ApiError{403,
                                   "permission_error",
                                   "host_not_allowed",
                                   {},
                                   fmt::format("Host \"{}\" is not this machine; a server bound to "
                                               "loopback answers only to loopback names",
                                               request.host)});
  }
  if (!origin_is_fine(request)) {
    return tl::unexpected(ApiError{403,
                                   "permission_error",
                                   "origin_not_allowed",
                                   {},
                                   fmt::format("requests from pages of {} are not allowed (see "
                                               "--cors-origin)",
                                               request.origin)});
  }
  if (options_.api_keys.empty() || request.path == "/health") {
    return Caller{request.client_address};
  }
  const auto key = key_of(request.authorization);
  if (!key) {
    return tl::unexpected(ApiError{401,
                                   "authentication_error",
                                   "invalid_api_key",
                                   {},
                                   "expected \"Authorization: Bearer KEY\" with one of the "
                                   "server's API keys"});
  }
  return Caller{fmt::format("key {}", *key)};
}

HttpHeaders Access::cors_headers(const HttpRequest& request) const {
  if (options_.cors_origins.empty()) return {};
  HttpHeaders headers = {{"Vary", "Origin"}};
  if (!request.origin.empty() && origin_is_fine(request)) {
    headers.emplace_back("Access-Control-Allow-Origin", request.origin);
    headers.emplace_back("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate");
  }
  return headers;
}

HttpResponse Access::preflight(const HttpRequest& request) const {
  HttpHeaders headers = cors_headers(request);
  if (!request.origin.empty() && (!origin_is_fine(request) || !host_is_fine(request.host))) {
    HttpResponse refused =
        to_response({403,
                     "permission_error",
                     "origin_not_allowed",
                     {},
                     fmt::format("requests from pages of {} are not allowed (see "
                                 "--cors-origin)",
                                 request.origin)});
    refused.headers.insert(refused.headers.end(), headers.begin(), headers.end());
    return refused;
  }
  headers.emplace_back("Allow", "GET, HEAD, POST, OPTIONS");
  if (!request.origin.empty()) {
    // Clients send headers of their own (x-stainless-os and the like): whatever is asked for.
    const std::string& asked = request.requested_headers;
    const bool is_fine = !asked.empty() && asked.size() <= 2048 && is_list_of_names(asked);
    headers.emplace_back("Access-Control-Allow-Headers",
                         is_fine ? asked : "Authorization, Content-Type");
    headers.emplace_back("Access-Control-Allow-Methods", "GET, POST");
    headers.emplace_back("Access-Control-Max-Age", "600");
  }
  return {204, "", "", std::move(headers)};
}

}  // namespace kvcast
