// Tests that try every place of a file, or every tensor, take many times as long under sanitizers:
// there every kSparser-th will do.
#pragma once

namespace kvcast {

#ifdef KVCAST_SANITIZED
inline constexpr int kSparser = 3;
#else
inline constexpr int kSparser = 1;
#endif

}  // namespace kvcast
