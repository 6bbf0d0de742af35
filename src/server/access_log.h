#pragma once

#include <string>

#include "server/http.h"

namespace kvcast {

/// One line about one request, without its end. Nothing of a prompt or an answer is in it.
/// `seconds_since_epoch`: when the answer ended.
std::string access_json(const HttpAccess& access, double seconds_since_epoch);
std::string access_text(const HttpAccess& access, double seconds_since_epoch);

}  // namespace kvcast
