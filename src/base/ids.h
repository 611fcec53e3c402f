#pragma once
// Strong integer ids: a Slot cannot be passed where a LogicalExpert is wanted.
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace cadre {

template <typename Tag, typename Int = int32_t>
struct Id {
  Int value = -1;

  constexpr Id() = default;
  constexpr explicit Id(Int v) : value(v) {}
  constexpr bool valid() const { return value >= 0; }
  friend constexpr auto operator<=>(Id, Id) = default;
};

using Rank = Id<struct RankTag>;                    ///< position in the EP group: dp * tp_size + tp
using LogicalExpert = Id<struct LogicalExpertTag>;  ///< an expert of the model, within a layer
using Slot = Id<struct SlotTag>;                    ///< a physical expert's place, numbered over all ranks
using Layer = Id<struct LayerTag>;
using BlockId = Id<struct BlockTag>;                ///< a block of the KV pool
using SeqId = Id<struct SeqTag, int64_t>;           ///< one sequence in the engine; never used again
using Epoch = Id<struct EpochTag, int64_t>;

}  // namespace cadre

template <typename Tag, typename Int>
struct std::hash<cadre::Id<Tag, Int>> {
  size_t operator()(cadre::Id<Tag, Int> id) const noexcept { return std::hash<Int>()(id.value); }
};
