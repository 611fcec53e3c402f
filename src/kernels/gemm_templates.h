#pragma once
// The micro kernels as templates over a vector type V and the kind of weight; each instruction set's file
// fills them in. All is either a template over V, which lies in that set's namespace, or local to the file:
// the linker must never merge code of two instruction sets. For the same reason nothing from the standard
// library is called here.
//
// V: F (vector of floats), I (the raw register), U (vector of uint32_t), Half (of uint16_t), kLanes, Zero,
// Load, Store, Broadcast, Fma(a, b, c) = a * b + c, LoadRaw, Low / High (the bf16 in the lower / upper half
// of each lane as float); BroadcastRaw and Dot where there is a bf16 dot product.
#include "kernels/gemm_kernels.h"

namespace cadre::kernels {
namespace {

// Lines of a panel to fetch ahead of their use: DRAM latency at one core's bandwidth is about 45 lines,
// shared by the panels of a tile; the hardware's own prefetcher stops at each 4 KiB page.
[[maybe_unused]] constexpr int64_t kPrefetchLines = 24;

template <class V>
struct F32Weight {
  static constexpr int kAUnits = 1;  // 32-bit units of packed A for one row and step
  static constexpr int kKPerStep = 1;
  static constexpr int kHalves = 1;
  static typename V::F LoadB(const std::byte* b, int) { return V::Load(reinterpret_cast<const float*>(b)); }
  static typename V::F LoadA(const uint32_t* a) { return V::Broadcast(reinterpret_cast<const float*>(a)); }
  static typename V::F Multiply(typename V::F a, typename V::F b, typename V::F c) { return V::Fma(a, b, c); }
};

// bf16 made f32: each line holds two k for 16 outputs, taken one after the other.
template <class V>
struct WidenedWeight {
  static constexpr int kAUnits = 2;
  static constexpr int kKPerStep = 2;
  static constexpr int kHalves = 2;
  static typename V::F LoadB(const std::byte* b, int half) {
    return half == 0 ? V::Low(V::LoadRaw(b)) : V::High(V::LoadRaw(b));
  }
  static typename V::F LoadA(const uint32_t* a) { return V::Broadcast(reinterpret_cast<const float*>(a)); }
  static typename V::F Multiply(typename V::F a, typename V::F b, typename V::F c) { return V::Fma(a, b, c); }
};

template <class V>
struct DotWeight {
  static constexpr int kAUnits = 1;
  static constexpr int kKPerStep = 2;
  static constexpr int kHalves = 1;
  static typename V::I LoadB(const std::byte* b, int) { return V::LoadRaw(b); }
  static typename V::I LoadA(const uint32_t* a) { return V::BroadcastRaw(a); }
  static typename V::F Multiply(typename V::I a, typename V::I b, typename V::F c) { return V::Dot(a, b, c); }
};

// One step of a micro kernel. Whichever side is smaller is held in registers, the other passes through one.
template <class V, class Weight, int kRows, int kCols>
[[gnu::always_inline]] inline void Step(typename V::F (&acc)[kRows][kCols], const uint32_t* a, const std::byte* b,
                                        int64_t panel_bytes) {
  constexpr int kVecs = 16 / V::kLanes;
#pragma GCC unroll 2
  for (int half = 0; half < Weight::kHalves; ++half) {
    if constexpr (kRows < kCols) {
      decltype(Weight::LoadA(a)) row[kRows];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) row[r] = Weight::LoadA(a + half * kRows + r);
#pragma GCC unroll 16
      for (int c = 0; c < kCols; ++c) {
        const auto column = Weight::LoadB(b + c / kVecs * panel_bytes + c % kVecs * V::kLanes * 4, half);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) acc[r][c] = Weight::Multiply(row[r], column, acc[r][c]);
      }
    } else {
      decltype(Weight::LoadB(b, 0)) column[kCols];
#pragma GCC unroll 16
      for (int c = 0; c < kCols; ++c) {
        column[c] = Weight::LoadB(b + c / kVecs * panel_bytes + c % kVecs * V::kLanes * 4, half);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const auto row = Weight::LoadA(a + half * kRows + r);
#pragma GCC unroll 16
        for (int c = 0; c < kCols; ++c) acc[r][c] = Weight::Multiply(row, column[c], acc[r][c]);
      }
    }
  }
}

template <class V, template <class> class W, int kRows, int kPanels>
void Tile(const TileArgs& args) {
  using Weight = W<V>;
  constexpr int kVecs = 16 / V::kLanes, kCols = kPanels * kVecs;
  typename V::F acc[kRows][kCols];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int c = 0; c < kCols; ++c) acc[r][c] = V::Zero();
  }
  const uint32_t* a = static_cast<const uint32_t*>(args.a);
  const std::byte* b = args.b;
  const int64_t panel_bytes = args.panel_bytes;
  int64_t step = 0, end = args.steps - args.tail_steps, ahead = args.ahead;
  for (int part = 0; part < 2; ++part) {
    for (; step < end; ++step) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        __builtin_prefetch(b + p * panel_bytes + ahead, 0, 2);
      }
      Step<V, Weight, kRows, kCols>(acc, a, b, panel_bytes);
      a += kRows * Weight::kAUnits;
      b += 64;
    }
    end = args.steps;
    ahead = args.tail_ahead;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int c = 0; c < kCols; ++c) V::Store(args.out + r * kTileStride + c * V::kLanes, acc[r][c]);
  }
}

enum class Units { kF32, kPairs, kWidened };

template <Units kUnits>
void WriteUnit(uint32_t* out, int64_t step, int64_t rows, int64_t r, uint32_t unit) {
  if constexpr (kUnits == Units::kWidened) {
    out[step * 2 * rows + r] = unit << 16;
    out[step * 2 * rows + rows + r] = unit & 0xFFFF0000u;
  } else {
    out[step * rows + r] = unit;
  }
}

template <Units kUnits>
void PackBlock(const PackBlockArgs& args) {
  // Line by line of each row, so that rows 4 KiB apart do not fight for one set of the cache.
  constexpr int64_t kStretch = 16;
  const int64_t rows = args.num_rows, whole = kUnits == Units::kF32 ? args.k : args.k / 2;
  uint32_t* out = static_cast<uint32_t*>(args.out);
  for (int64_t begin = 0; begin < whole; begin += kStretch) {
    const int64_t end = begin + kStretch < whole ? begin + kStretch : whole;
    for (int64_t r = 0; r < rows; ++r) {
      const char* row = static_cast<const char*>(args.rows[r]);
      for (int64_t step = begin; step < end; ++step) {
        uint32_t unit;
        __builtin_memcpy(&unit, row + step * 4, 4);
        WriteUnit<kUnits>(out, step, rows, r, unit);
      }
    }
  }
  if (kUnits == Units::kF32 || args.k % 2 == 0) return;
  for (int64_t r = 0; r < rows; ++r) {
    uint16_t last;  // what follows it in memory is not ours
    __builtin_memcpy(&last, static_cast<const char*>(args.rows[r]) + (args.k - 1) * 2, 2);
    WriteUnit<kUnits>(out, whole, rows, r, last);
  }
}

// The tables of micro kernels: every block up to kMax[0] rows with one panel, up to kMax[1] with two, kMax[2]
// with four.
template <class V, template <class> class W, int kRows, int kMax1, int kMax2, int kMax4>
constexpr void FillTiles(WeightKernels& kernels) {
  if constexpr (kRows <= kMax1) kernels.tile[kRows - 1][0] = &Tile<V, W, kRows, 1>;
  if constexpr (kRows <= kMax2) kernels.tile[kRows - 1][1] = &Tile<V, W, kRows, 2>;
  if constexpr (kRows <= kMax4) kernels.tile[kRows - 1][2] = &Tile<V, W, kRows, 4>;
  if constexpr (kRows > 1) FillTiles<V, W, kRows - 1, kMax1, kMax2, kMax4>(kernels);
}

template <class V, template <class> class W, Units kUnits, int kMax1, int kMax2, int kMax4>
constexpr WeightKernels MakeWeightKernels(float line_ns) {
  WeightKernels kernels;
  FillTiles<V, W, kMax1, kMax1, kMax2, kMax4>(kernels);
  kernels.max_rows = kMax1;
  kernels.k_per_step = W<V>::kKPerStep;
  kernels.a_step_bytes = W<V>::kAUnits * 4;
  kernels.line_ns = line_ns;
  kernels.pack_block = &PackBlock<kUnits>;
  return kernels;
}

}  // namespace
}  // namespace cadre::kernels
