#include "server/access_log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace kvcast {
namespace {

constexpr size_t kLongestPath = 200;  // of what names no route; a line stays a line

std::string time_text(double seconds) {
  const auto whole = static_cast<time_t>(seconds);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(whole),
                     static_cast<int>(std::floor((seconds - std::floor(seconds)) * 1e3)));
}

/// Milliseconds to the microsecond; tokens and the like are whole.
double rounded(double value) { return std::round(value * 1e3) / 1e3; }

}  // namespace

std::string access_json(const HttpAccess& access, double seconds_since_epoch) {
  nlohmann::ordered_json json = {{"time", time_text(seconds_since_epoch)},
                                 {"client", access.client_address},
                                 {"method", access.method},
                                 {"path", access.path.substr(0, kLongestPath)},
                                 {"status", access.status},
                                 {"complete", access.is_complete},
                                 {"received_bytes", access.received_bytes},
                                 {"sent_bytes", access.sent_bytes},
                                 {"ms", rounded(access.seconds * 1e3)}};
  for (const auto& [name, value] : access.fields) {
    if (const auto* number = std::get_if<double>(&value)) {
      const bool whole = *number == std::floor(*number) && std::abs(*number) < 1e15;
      json[name] = whole ? nlohmann::ordered_json(static_cast<int64_t>(*number))
                         : nlohmann::ordered_json(rounded(*number));
    } else {
      json[name] = std::get<std::string>(value);
    }
  }
  return json.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace);
}

std::string access_text(const HttpAccess& access, double seconds_since_epoch) {
  std::string line =
      fmt::format("{} {} {} {} {}{} {:.1f}ms", time_text(seconds_since_epoch),
                  access.client_address, access.method.empty() ? "-" : access.method,
                  access.path.empty() ? "-" : access.path.substr(0, kLongestPath), access.status,
                  access.is_complete ? "" : " gone", access.seconds * 1e3);
  for (const auto& [name, value] : access.fields) {
    if (const auto* number = std::get_if<double>(&value)) {
      line += fmt::format(" {}={:g}", name, rounded(*number));
    } else {
      line += fmt::format(" {}={}", name, std::get<std::string>(value));
    }
  }
  return one_line(line);
}

}  // namespace kvcast
