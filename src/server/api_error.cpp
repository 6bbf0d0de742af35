#include "server/api_error.h"

#include <nlohmann/json.hpp>

namespace kvcast {

ApiError bad_request(std::string message, std::string_view param) {
  ApiError error;
  error.param = param;
  error.message = std::move(message);
  return error;
}

ApiError to_api_error(const EngineError& error) {
  using Kind = EngineError::Kind;
  switch (error.kind) {
    case Kind::kInvalid:
      return bad_request(error.message);
    case Kind::kContextLength:
      return {400, "invalid_request_error", "context_length_exceeded", "prompt", error.message};
    case Kind::kTooLarge:
      return {400, "invalid_request_error", "cache_memory_exceeded", {}, error.message};
    case Kind::kQueueFull:
      return {429, "overloaded_error", "queue_full", {}, error.message};
    case Kind::kTimeout:
      return {504, "timeout_error", "request_timeout", {}, error.message};
    case Kind::kCancelled:
    case Kind::kShuttingDown:
      return {503, "unavailable_error", "shutting_down", {}, "the server is shutting down"};
    case Kind::kInternal:
      break;
  }
  return {500, "server_error", {}, {}, error.message};
}

std::string error_body(const ApiError& error) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
  };
  const nlohmann::ordered_json body = {{"error",
                                        {{"message", error.message},
                                         {"type", error.type},
                                         {"param", or_null(error.param)},
                                         {"code", or_null(error.code)}}}};
  return json_line(body);
}

std::string json_line(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

HttpResponse to_response(const ApiError& error) {
  HttpResponse response{error.status, "application/json", error_body(error)};
  if (error.status == 429 || error.status == 503) response.headers = {{"Retry-After", "1"}};
  return response;
}

std::string http_error_body(int status, std::string_view message) {
  return error_body({status, "invalid_request_error", {}, {}, std::string(message)});
}

}  // namespace kvcast
