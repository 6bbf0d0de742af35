// Loops over register tiles must be unrolled for the tile to live in registers.
#pragma once

#if defined(__clang__)
#define KVCAST_UNROLL _Pragma("unroll")
#else
#define KVCAST_UNROLL _Pragma("GCC unroll 64")
#endif
#define KVCAST_INLINE inline __attribute__((always_inline))
#define KVCAST_LAMBDA_INLINE __attribute__((always_inline))
