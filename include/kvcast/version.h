#pragma once

#include <string_view>

namespace kvcast {

/// "0.1.0"
std::string_view version();
/// The git commit this library was built from, "unknown" outside a checkout.
std::string_view commit();

}  // namespace kvcast
