#pragma once
// Instruction sets that kernels are written for. Which one runs follows from a table of CPU kinds; config may
// force one (CADRE_ISA), and what the CPU lacks is refused.
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cadre::kernels {

enum class Isa : uint8_t {
  kPortable,     ///< plain C++
  kAvx2,         ///< AVX2 + FMA + F16C
  kAvx512,       ///< AVX-512 F/BW/DQ/VL: bf16 weights are widened and multiplied as f32
  kAvx512Bf16,   ///< as kAvx512, bf16 products with vdpbf16ps (fast on Zen 4 and later, slow on Intel), and
                 ///< VBMI
  kAmx,          ///< AMX tiles for weights of bf16 and fp8 with rows of bf16, kAvx512 for all else; VBMI
  kAmxEmulated,  ///< for tests: kAmx with tiles in plain C++, for CPUs with kAvx512 and VBMI. No setting
                 ///< names it, and SupportedIsas and BestIsa leave it out
};

const char* IsaName(Isa isa);
/// "portable", "avx2", "avx512", "avx512_bf16", "amx"; errors name the known ones.
Result<Isa> ParseIsa(std::string_view name);
/// Whether this CPU and operating system can run it. Asked of kAmx for the first time, it asks Linux for the
/// right to use tiles, for the whole process, and tries them; a refusal or a wrong product is logged.
bool IsaSupported(Isa isa);
/// All supported ones, slowest first: what tests walk.
std::vector<Isa> SupportedIsas();
/// The fastest for this CPU's kind.
Isa BestIsa();

}  // namespace cadre::kernels
