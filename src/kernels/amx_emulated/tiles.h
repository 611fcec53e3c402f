#pragma once
// The tile instructions in plain C++, for tests on CPUs without them: the same sums in the same order, with
// subnormal numbers as zero. What makes the instruction fault ends the program here. After Intel's Software
// Developer's Manual, volume 2, TDPBF16PS. (A result just below the least normal number that rounds up to it
// is kept here; the instruction may make it zero.)
#include <cstdint>

#include "kernels/amx_templates.h"

namespace cadre::kernels::amx_emulated {
namespace {

struct Tiles {
  struct State {
    TileConfig config{.palette = 0};  // 0: none loaded
    alignas(64) uint8_t tile[8][16][64] = {};
  };
  static State& Now() {
    static thread_local constinit State state;
    return state;
  }

  static void Configure(const TileConfig& config) {
    Require(config.palette == 1 && config.start_row == 0);
    for (int i = 0; i < 16; ++i) {
      Require(i < 8 || (config.rows[i] == 0 && config.row_bytes[i] == 0));
      Require(config.rows[i] <= 16 && config.row_bytes[i] <= 64 &&
              (config.rows[i] == 0) == (config.row_bytes[i] == 0));
    }
    Now() = {.config = config};
  }
  static void Release() { Now() = {}; }

  template <int kTile>
  static void Zero() {
    Rows(kTile);
    __builtin_memset(Now().tile[kTile], 0, 1024);
  }
  template <int kTile>
  static void Load(const void* from, int64_t stride) {
    Zero<kTile>();
    for (int row = 0; row < Rows(kTile); ++row)
      __builtin_memcpy(Now().tile[kTile][row], static_cast<const char*>(from) + row * stride,
                       Now().config.row_bytes[kTile]);
  }
  template <int kTile>
  static void Store(void* to, int64_t stride) {
    for (int row = 0; row < Rows(kTile); ++row)
      __builtin_memcpy(static_cast<char*>(to) + row * stride, Now().tile[kTile][row],
                       Now().config.row_bytes[kTile]);
  }

  template <int kSum, int kRows, int kPanel>
  static void Dot() {
    const uint16_t* row_bytes = Now().config.row_bytes;
    Require(kSum != kRows && kSum != kPanel && kRows != kPanel);
    Require(Rows(kSum) == Rows(kRows) && row_bytes[kSum] == row_bytes[kPanel] &&
            row_bytes[kRows] / 4 == Rows(kPanel));
    for (int row = 0; row < Rows(kSum); ++row)
      DotRow(Now().tile[kRows][row], Now().tile[kPanel], Rows(kPanel), Now().tile[kSum][row]);
  }

 private:
  static void Require(bool holds) {
    if (!holds) __builtin_trap();
  }
  static int Rows(int tile) {
    Require(Now().config.palette == 1 && Now().config.rows[tile] > 0);
    return Now().config.rows[tile];
  }

  static float FromBits(uint32_t bits) {
    float value;
    bits = (bits & 0x7F800000u) == 0 ? bits & 0x80000000u : bits;
    __builtin_memcpy(&value, &bits, 4);
    return value;
  }
  static float Flushed(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    return FromBits(bits);
  }

  // 16 outputs of one row.
  static void DotRow(const uint8_t* row, const uint8_t (*panel)[64], int num_pairs, uint8_t* out) {
    float sums[16], even[16] = {}, odd[16] = {};
    for (int pair = 0; pair < num_pairs; ++pair) {
      uint32_t a, b[16];
      __builtin_memcpy(&a, row + pair * 4, 4);
      __builtin_memcpy(b, panel[pair], 64);
      const float a_even = FromBits(a << 16), a_odd = FromBits(a & 0xFFFF0000u);
      for (int n = 0; n < 16; ++n) {
        even[n] = Flushed(__builtin_fmaf(a_even, FromBits(b[n] << 16), even[n]));
        odd[n] = Flushed(__builtin_fmaf(a_odd, FromBits(b[n] & 0xFFFF0000u), odd[n]));
      }
    }
    __builtin_memcpy(sums, out, 64);
    for (int n = 0; n < 16; ++n) sums[n] = Flushed(Flushed(sums[n]) + Flushed(even[n] + odd[n]));
    __builtin_memcpy(out, sums, 64);
  }
};

}  // namespace
}  // namespace cadre::kernels::amx_emulated
