#include "server/http_text.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

namespace kvcast {
namespace {

char small_letter(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

std::string_view status_text(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

}  // namespace

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, small_letter, small_letter);
}

std::string path_and_query(std::string target) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!equal_ignoring_case(std::string_view(target).substr(0, scheme.size()), scheme)) continue;
    const size_t slash = target.find_first_of("/?", scheme.size());
    if (slash == std::string::npos) return "/";
    return target[slash] == '/' ? target.substr(slash) : "/" + target.substr(slash);
  }
  return target;
}

std::string find_header(std::string_view bytes, std::string_view name) {
  for (size_t line = 0; line < bytes.size();) {
    const size_t end = std::min(bytes.find('\n', line), bytes.size());
    std::string_view text = bytes.substr(line, end - line);
    line = end + 1;
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (text.size() <= name.size() || text[name.size()] != ':') continue;
    if (!equal_ignoring_case(text.substr(0, name.size()), name)) continue;
    text.remove_prefix(name.size() + 1);
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
    return std::string(text);
  }
  return {};
}

std::string response_head(const HttpResponse& response) {
  std::string head =
      fmt::format("HTTP/1.1 {} {}\r\nServer: kvcast\r\nDate: {:%a, %d %b %Y %H:%M:%S} GMT\r\n",
                  response.status, status_text(response.status), fmt::gmtime(std::time(nullptr)));
  if (response.status != 204) head += fmt::format("Content-Type: {}\r\n", response.content_type);
  for (const auto& [name, value] : response.headers) {
    head += fmt::format("{}: {}\r\n", name, value);
  }
  return head;
}

}  // namespace kvcast
