#pragma once

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

}  // namespace kvcast
