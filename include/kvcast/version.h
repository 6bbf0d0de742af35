#pragma once

#include <string_view>

#include "kvcast/macros.h"

namespace kvcast {

/// Of the library that runs, "0.1.0"; KVCAST_VERSION is that of these headers.
std::string_view version();
/// The git commit this library was built from, "unknown" outside a checkout.
std::string_view commit();

}  // namespace kvcast
