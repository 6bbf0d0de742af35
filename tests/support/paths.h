// Where tests find the tree and what was built. Included by every test (tests/CMakeLists.txt); the
// values are compiled into one file, so that the other objects do not depend on where the tree lies
// and a compiler cache serves several checkouts.
#pragma once

extern const char* const KVCAST_GOLDEN_DIR;
extern const char* const KVCAST_SOURCE_DIR;
extern const char* const KVCAST_BINARY_DIR;
