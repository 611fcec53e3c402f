#include "kernels/isa.h"

#include <array>

#include "base/log.h"
#include "kernels/amx_check.h"
#include "sys/cpu.h"

namespace cadre::kernels {
namespace {

constexpr std::array<Isa, 5> kAll = {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx};

// Tiles are 8 KiB more of state a thread, which Linux saves for processes that asked for it.
bool MayUseTiles() {
  static const bool granted = [] {
    const Status status = sys::RequestTileState();
    if (!status) {
      LogWarning("this CPU has AMX, which will not be used: {}", status.error().message);
      return false;
    }
    if (TilesMultiplyRight(amx::kBf16Kernels)) return true;
    LogError("this CPU has AMX, which will not be used: its products are wrong here; please report it");
    return false;
  }();
  return granted;
}

}  // namespace

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
    case Isa::kAmx:
      return "amx";
    case Isa::kAmxEmulated:
      return "amx_emulated";
  }
  return "?";
}

Result<Isa> ParseIsa(std::string_view name) {
  for (const Isa isa : kAll) {
    if (name == IsaName(isa)) return isa;
  }
  return Fail(Code::kInvalidArgument,
              "instruction set '{}' is unknown; use portable, avx2, avx512, avx512_bf16 or amx", name);
}

bool IsaSupported(Isa isa) {
  // __builtin_cpu_supports also asks whether the operating system saves the wide registers.
  switch (isa) {
    case Isa::kPortable:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAmx:
      return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
             IsaSupported(Isa::kAmxEmulated) && MayUseTiles();
    case Isa::kAmxEmulated:
      return __builtin_cpu_supports("avx512vbmi") && IsaSupported(Isa::kAvx512);
    case Isa::kAvx512Bf16:
      if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vbmi")) return false;
      [[fallthrough]];
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  return false;
}

std::vector<Isa> SupportedIsas() {
  std::vector<Isa> isas;
  for (const Isa isa : kAll) {
    if (IsaSupported(isa)) isas.push_back(isa);
  }
  return isas;
}

Isa BestIsa() {
  if (IsaSupported(Isa::kAmx)) return Isa::kAmx;
  // vdpbf16ps runs at twice the f32 rate on Zen 4 but at half of it on Intel's cores, measured from
  // registers.
  if (IsaSupported(Isa::kAvx512Bf16) && __builtin_cpu_is("amd")) return Isa::kAvx512Bf16;
  if (IsaSupported(Isa::kAvx512)) return Isa::kAvx512;
  if (IsaSupported(Isa::kAvx2)) return Isa::kAvx2;
  return Isa::kPortable;
}

}  // namespace cadre::kernels
