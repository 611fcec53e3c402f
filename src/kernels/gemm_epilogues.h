#pragma once
// From tiles to memory. Plain loops over 16 columns that the compiler makes vectors of, the same arithmetic
// in every instruction set (no contraction), so a column in the last, partial vector gets the same bits as
// any other. Local to the file that includes it, as gemm_templates.h explains.
#include "kernels/gemm_kernels.h"

namespace cadre::kernels {
namespace {

struct EpilogueLines {
  float v[16];
};

[[maybe_unused]] inline uint16_t RoundToBf16(float f) {
  uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  const uint32_t rounded = (u + 0x7FFF + (u >> 16 & 1)) >> 16;
  const uint32_t nan = u >> 16 | 0x40;
  return static_cast<uint16_t>((u & 0x7FFFFFFF) > 0x7F800000 ? nan : rounded);
}

// e^x to 2 ulp for |x| <= 87, held there beyond. x = n ln 2 + r with ln 2 in two parts, then Taylor up to
// r^7, |r| < 0.35.
inline float Exp(float x) {
  constexpr float kRound =
      12582912.0f;  // 1.5 * 2^23: adding it leaves round(x) in the low bits of the mantissa
  x = x > 87.0f ? 87.0f : x;
  x = x < -87.0f ? -87.0f : x;
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  float p = 1.98412698e-4f;
  p = p * r + 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  uint32_t bits;
  __builtin_memcpy(&bits, &shifted, 4);
  bits = (bits << 23) + 0x3F800000u;
  float scale;
  __builtin_memcpy(&scale, &bits, 4);
  return p * scale;
}

inline void WriteLine(const EpilogueLines& line, int64_t cols, bool bf16, void* out) {
  if (bf16) {
    uint16_t* to = static_cast<uint16_t*>(out);
    if (cols >= 16) {
      for (int c = 0; c < 16; ++c) to[c] = RoundToBf16(line.v[c]);
    } else {
      for (int c = 0; c < cols; ++c) to[c] = RoundToBf16(line.v[c]);
    }
  } else {
    float* to = static_cast<float*>(out);
    if (cols >= 16) {
      for (int c = 0; c < 16; ++c) to[c] = line.v[c];
    } else {
      for (int c = 0; c < cols; ++c) to[c] = line.v[c];
    }
  }
}

void Store(const StoreArgs& args) {
  for (int r = 0; r < args.rows; ++r) {
    const float* tile = args.tile + r * kTileStride;
    char* row = static_cast<char*>(args.c) + r * args.c_stride * (args.bf16 ? 2 : 4);
    for (int64_t begin = 0; begin < args.cols; begin += 16) {
      const int64_t cols = args.cols - begin < 16 ? args.cols - begin : 16;
      EpilogueLines line;
      for (int c = 0; c < 16; ++c) line.v[c] = tile[begin + c];
      if (args.bias != nullptr) {
        if (cols == 16) {
          for (int c = 0; c < 16; ++c) line.v[c] += args.bias[begin + c];
        } else {
          for (int c = 0; c < cols; ++c) line.v[c] += args.bias[begin + c];
        }
      }
      if (args.row_weights != nullptr) {
        const float weight = args.row_weights[r];
        for (int c = 0; c < 16; ++c) line.v[c] *= weight;
      }
      if (args.accumulate) {
        const float* old = reinterpret_cast<const float*>(row) + begin;
        if (cols == 16) {
          for (int c = 0; c < 16; ++c) line.v[c] = old[c] + line.v[c];
        } else {
          for (int c = 0; c < cols; ++c) line.v[c] = old[c] + line.v[c];
        }
      }
      WriteLine(line, cols, args.bf16, row + begin * (args.bf16 ? 2 : 4));
    }
  }
}

void Activate(const ActivateArgs& args) {
  for (int r = 0; r < args.rows; ++r) {
    char* row = static_cast<char*>(args.out) + r * args.out_stride * (args.bf16 ? 2 : 4);
    for (int64_t begin = 0; begin < args.cols; begin += 16) {
      const float* tile = args.tile + r * kTileStride + begin * 2;
      EpilogueLines gate, up;
      for (int c = 0; c < 16; ++c) gate.v[c] = tile[c];
      for (int c = 0; c < 16; ++c) up.v[c] = tile[16 + c];
      if (args.bias != nullptr) {
        for (int c = 0; c < 16; ++c) gate.v[c] += args.bias[begin * 2 + c];
        for (int c = 0; c < 16; ++c) up.v[c] += args.bias[begin * 2 + 16 + c];
      }
      if (args.clamped_swiglu) {
        const float limit = args.limit, alpha = args.alpha;
        for (int c = 0; c < 16; ++c) {
          const float g = gate.v[c] > limit ? limit : gate.v[c];
          float u = up.v[c] > limit ? limit : up.v[c];
          u = u < -limit ? -limit : u;
          gate.v[c] = g / (1.0f + Exp(-(g * alpha))) * (u + 1.0f);
        }
      } else {
        for (int c = 0; c < 16; ++c) gate.v[c] = gate.v[c] / (1.0f + Exp(-gate.v[c])) * up.v[c];
      }
      const int64_t cols = args.cols - begin < 16 ? args.cols - begin : 16;
      WriteLine(gate, cols, args.bf16, row + begin * (args.bf16 ? 2 : 4));
    }
  }
}

}  // namespace
}  // namespace cadre::kernels
