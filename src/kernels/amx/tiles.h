#pragma once
// The tile instructions, one function each.
//
// In assembler, because g++ 12's intrinsics make text of a tile's number, which therefore cannot come from a
// template, and because they do not say what memory they read: it then leaves out the stores in front of
// them. No compiler allocates tiles, so nothing else changes them.
#include <cstdint>

#include "kernels/amx_templates.h"

namespace cadre::kernels::amx {
namespace {

struct Tiles {
  static void Configure(const TileConfig& config) { asm volatile("ldtilecfg %0" ::"m"(config)); }
  // The state is as small as before again: context switches need not save it.
  static void Release() { asm volatile("tilerelease"); }

  template <int kTile>
  [[gnu::always_inline]] static void Zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  template <int kTile>
  [[gnu::always_inline]] static void Load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  [[gnu::always_inline]] static void Store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kSum, int kRows, int kPanel>
  [[gnu::always_inline]] static void Dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kRows), "i"(kPanel));
  }
};

}  // namespace
}  // namespace cadre::kernels::amx
