// What HTTP messages consist of, as text.
#pragma once

#include <string>
#include <string_view>

#include "server/http.h"

namespace kvcast {

/// The part of a request's target that names something here: proxies may send the whole URL.
std::string path_and_query(std::string target);

/// The value of a header in bytes that could not be read as a request; `name` in small letters.
std::string find_header(std::string_view bytes, std::string_view name);

/// Status line and headers up to those that say how the body ends.
std::string response_head(const HttpResponse& response);

/// Without regard to the case of ASCII letters.
bool equal_ignoring_case(std::string_view a, std::string_view b);

}  // namespace kvcast
