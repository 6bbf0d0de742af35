/* For C and C++: the release that these headers are of. */
#pragma once

#define KVCAST_VERSION_MAJOR 0
#define KVCAST_VERSION_MINOR 1
#define KVCAST_VERSION_PATCH 0
#define KVCAST_VERSION "0.1.0"
