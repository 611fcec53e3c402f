#pragma once
// What an instruction set brings to the probe. Plain declarations only: files compiled for wide instruction
// sets see this header.
#include <cstddef>
#include <cstdint>

namespace cadre::kernels {

struct ProbeKernels {
  /// Reads bytes [0, num_bytes), a multiple of 512, and fetches `ahead` bytes in advance (0: leaves that to
  /// the hardware). Returns something that depends on all of them.
  uint64_t (*read)(const std::byte* data, int64_t num_bytes, int64_t ahead);
  /// Runs the product instruction of that weight type in independent chains; returns the operations done, a
  /// multiplication and an addition being two.
  int64_t (*bf16_products)(int64_t rounds);
  int64_t (*f32_products)(int64_t rounds);
};

enum class Isa : uint8_t;
const ProbeKernels& ProbeKernelsOf(Isa isa);

namespace portable {
extern const ProbeKernels kProbeKernels;
}
namespace avx2 {
extern const ProbeKernels kProbeKernels;
}
namespace avx512 {
extern const ProbeKernels kProbeKernels;
}
namespace avx512_bf16 {
extern const ProbeKernels kProbeKernels;
}
namespace amx {
int64_t Bf16Products(int64_t rounds);  ///< all else is avx512's
}

}  // namespace cadre::kernels
