#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "runtime/engine_request.h"
#include "server/http.h"

namespace kvcast {

/// An error in the shape that OpenAI's clients understand.
struct ApiError {
  int status = 400;
  std::string type = "invalid_request_error";
  std::string code = {};   ///< e.g. context_length_exceeded; empty: null
  std::string param = {};  ///< the field that is wrong; empty: null
  std::string message = {};
};

ApiError bad_request(std::string message, std::string_view param = {});
ApiError to_api_error(const EngineError& error);
/// {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}
std::string error_body(const ApiError& error);
HttpResponse to_response(const ApiError& error);
/// On one line; bytes that are no UTF-8 become U+FFFD.
std::string json_line(const nlohmann::ordered_json& json);

}  // namespace kvcast
