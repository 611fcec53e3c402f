// Products alone; memory is read, and f32 multiplied, as in avx512/.
#include "kernels/amx/tiles.h"
#include "kernels/probe_kernels.h"

namespace cadre::kernels::amx {

int64_t Bf16Products(int64_t rounds) {
  constexpr int kChains = 4;
  ConfigureTiles<Tiles>(kMaxAmxRows);
  ZeroSums<Tiles, 2, 2>();
  Tiles::Zero<4>();
  Tiles::Zero<5>();
  Tiles::Zero<6>();
  Tiles::Zero<7>();
  for (int64_t round = 0; round < rounds; ++round) {
    Tiles::Dot<0, 4, 6>();
    Tiles::Dot<1, 4, 7>();
    Tiles::Dot<2, 5, 6>();
    Tiles::Dot<3, 5, 7>();
  }
  Tiles::Release();
  return rounds * kChains * 16 * 16 * 32 * 2;
}

}  // namespace cadre::kernels::amx
