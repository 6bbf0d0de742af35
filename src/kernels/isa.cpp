#include "kernels/isa.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstdlib>
#include <string>

#include "kernels/kernel_table.h"

// KVCAST_PORTABLE_KERNELS: the portable ones alone are compiled.
#if defined(__x86_64__) && !defined(KVCAST_PORTABLE_KERNELS)
#define KVCAST_X86
#elif defined(__aarch64__) && !defined(KVCAST_PORTABLE_KERNELS)
#define KVCAST_AARCH64
#endif

#if defined(KVCAST_X86)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(KVCAST_AARCH64) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace kvcast {
namespace {

#if defined(KVCAST_X86)
struct Cpuid {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};
Cpuid cpuid(unsigned leaf, unsigned subleaf) {
  Cpuid r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}
bool bit(unsigned word, unsigned index) { return ((word >> index) & 1U) != 0; }

/// Register state that the operating system saves (XCR0).
unsigned saved_state() {
  unsigned low = 0;
  unsigned high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

/// Linux gives a process the 8 KiB of tile registers only when it asks.
bool request_amx_permission() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

void detect_x86(std::vector<Isa>& found) {
  const Cpuid basic = cpuid(1, 0);
  const Cpuid extended = cpuid(7, 0);
  const Cpuid extended1 = cpuid(7, 1);
  if (!bit(basic.ecx, 27)) return;  // OSXSAVE
  const unsigned state = saved_state();
  constexpr unsigned kAvxState = 0x6;
  constexpr unsigned kAvx512State = 0xe6;
  constexpr unsigned kTileState = 0x60000;
  const bool fma_f16c = bit(basic.ecx, 12) && bit(basic.ecx, 29);
  if ((state & kAvxState) != kAvxState || !bit(extended.ebx, 5) || !fma_f16c) return;
  found.push_back(Isa::kAvx2);
  if (bit(extended1.eax, 4)) found.push_back(Isa::kAvxVnni);
  const bool avx512 = bit(extended.ebx, 16) && bit(extended.ebx, 17) && bit(extended.ebx, 30) &&
                      bit(extended.ebx, 31);  // F, DQ, BW, VL
  if ((state & kAvx512State) != kAvx512State || !avx512) return;
  found.push_back(Isa::kAvx512);
  if (!bit(extended1.eax, 5) || !bit(extended.ecx, 11)) return;  // BF16, VNNI
  found.push_back(Isa::kAvx512Bf16);
  const bool amx = bit(extended.edx, 22) && bit(extended.edx, 24) && bit(extended.edx, 25);
  if ((state & kTileState) != kTileState || !amx || !request_amx_permission()) return;
  found.push_back(Isa::kAmx);
}
#elif defined(KVCAST_AARCH64)
void detect_aarch64(std::vector<Isa>& found) {
  found.push_back(Isa::kNeon);
#if defined(__linux__)
  if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) == 0) return;
  found.push_back(Isa::kNeonDot);
  constexpr unsigned long kMatrix = HWCAP2_BF16 | HWCAP2_I8MM;
  if ((getauxval(AT_HWCAP2) & kMatrix) == kMatrix) found.push_back(Isa::kNeonMmla);
#endif
}
#endif

std::vector<Isa> detect() {
  std::vector<Isa> found{Isa::kPortable};
#if defined(KVCAST_X86)
  detect_x86(found);
#elif defined(KVCAST_AARCH64)
  detect_aarch64(found);
#endif
  return found;
}

const KernelTable* table_of(Isa isa) {
  switch (isa) {
#if defined(KVCAST_X86)
    case Isa::kAvx2:
      return &avx2_kernels();
    case Isa::kAvxVnni:
      return &avxvnni_kernels();
    case Isa::kAvx512:
      return &avx512_kernels();
    case Isa::kAvx512Bf16:
      return &avx512bf16_kernels();
    case Isa::kAmx:
      return &amx_kernels();
#elif defined(KVCAST_AARCH64)
    case Isa::kNeon:
      return &neon_kernels();
    case Isa::kNeonDot:
      return &neondot_kernels();
    case Isa::kNeonMmla:
      return &neonmmla_kernels();
#endif
    default:
      return &portable_kernels();
  }
}

std::atomic<const KernelTable*>& active_table() {
  static std::atomic<const KernelTable*> table =
      table_of(isa_from_environment().value_or(supported_isas().back()));
  return table;
}

}  // namespace

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512bf16";
    case Isa::kAmx:
      return "amx";
    case Isa::kNeon:
      return "neon";
    case Isa::kNeonDot:
      return "neondot";
    case Isa::kNeonMmla:
      return "neonmmla";
  }
  return "unknown";
}

const std::vector<Isa>& supported_isas() {
  static const std::vector<Isa> isas = detect();
  return isas;
}

Result<Isa> find_isa(std::string_view name) {
  std::string known;
  for (const Isa isa : supported_isas()) {
    if (isa_name(isa) == name) return isa;
    known += (known.empty() ? "" : ", ") + std::string(isa_name(isa));
  }
  return fail("instruction set '" + std::string(name) +
              "' is not available here; expected one of: " + known);
}

Result<Isa> isa_from_environment() {
  const char* const name = std::getenv("KVCAST_ISA");
  if (name == nullptr || *name == '\0') return supported_isas().back();
  auto isa = find_isa(name);
  if (!isa) return fail("KVCAST_ISA: " + isa.error().message);
  return isa;
}

Isa active_isa() { return kernels().isa; }

void set_isa(Isa isa) {
  assert(std::ranges::find(supported_isas(), isa) != supported_isas().end());
  active_table().store(table_of(isa), std::memory_order_release);
}

const KernelTable& kernels() { return *active_table().load(std::memory_order_acquire); }

}  // namespace kvcast
