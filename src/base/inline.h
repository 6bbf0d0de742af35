// Functions and lambdas that have to become part of their callers.
#pragma once

#define KVCAST_INLINE inline __attribute__((always_inline))
#define KVCAST_LAMBDA_INLINE __attribute__((always_inline))
