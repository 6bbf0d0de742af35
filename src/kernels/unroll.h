// Loops over register tiles must be unrolled for the tile to live in registers.
#pragma once

#include "base/inline.h"

#if defined(__clang__)
#define KVCAST_UNROLL _Pragma("unroll")
#else
#define KVCAST_UNROLL _Pragma("GCC unroll 64")
#endif
