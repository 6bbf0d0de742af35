// Plain loops that the compiler vectorises once for each generation of x86-64.
#pragma once

/// Before a function: it is compiled for AVX-512, for AVX2 and for the baseline, and the system's
/// linker chooses among them when the program starts. The code is the same, and sources that use it
/// are compiled without fused multiply-adds, so the bits are. For what is not worth a place in the
/// kernel table: nothing that a token waits for. Helpers that it calls have to be inlined
/// (base/inline.h).
/// Sanitizers run before the choice is made, so they see the baseline alone.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define KVCAST_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KVCAST_CLONES
#endif
