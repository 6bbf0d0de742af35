// Which instruction set the kernels use. Detected once (x86: cpuid and what the operating system
// saves; AArch64: what the system reports); KVCAST_ISA=name forces one.
#pragma once

#include <string_view>
#include <vector>

#include "kvcast/result.h"

namespace kvcast {

/// Ordered: of its architecture, a later one is preferred.
enum class Isa {
  kPortable,    ///< plain C++
  kAvx2,        ///< AVX2, FMA, F16C
  kAvxVnni,     ///< and AVX-VNNI
  kAvx512,      ///< AVX2 and AVX-512 F, BW, DQ, VL
  kAvx512Bf16,  ///< and BF16, VNNI
  kAmx,         ///< and AMX-TILE, AMX-BF16, AMX-INT8, permitted by the kernel
  kNeon,        ///< AArch64 Advanced SIMD
  kNeonDot,     ///< and the dot product (sdot)
  kNeonMmla,    ///< and BF16, I8MM (bfmmla, smmla)
};

/// "portable", "avx2", "avxvnni", "avx512", "avx512bf16", "amx", "neon", "neondot", "neonmmla".
std::string_view isa_name(Isa isa);
/// What this build holds and this machine runs, slowest first; kPortable always.
const std::vector<Isa>& supported_isas();
/// The isa of that name if it is supported here; otherwise an error that lists those that are.
Result<Isa> find_isa(std::string_view name);

/// What KVCAST_ISA asks for, or the best one if it is unset or empty. An unknown or unsupported
/// name is an error: a program should report it before it computes anything.
Result<Isa> isa_from_environment();

/// What the kernels use now. Before the first set_isa: isa_from_environment(), or the best one if
/// that is an error.
Isa active_isa();
/// Switches every kernel of the process; not while kernels run. `isa` must be supported.
void set_isa(Isa isa);

/// Switches for a scope: tests and benchmarks.
class ScopedIsa {
 public:
  explicit ScopedIsa(Isa isa) : before_(active_isa()) { set_isa(isa); }
  ~ScopedIsa() { set_isa(before_); }
  ScopedIsa(const ScopedIsa&) = delete;
  ScopedIsa& operator=(const ScopedIsa&) = delete;

 private:
  Isa before_;
};

}  // namespace kvcast
