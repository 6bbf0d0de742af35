#include "kvcast/version.h"

namespace kvcast {

std::string_view version() { return KVCAST_VERSION; }
std::string_view commit() { return KVCAST_COMMIT; }

}  // namespace kvcast
