#include "eplb/moves.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "base/check.h"

namespace cadre::eplb {

std::vector<int32_t> TargetSlots(const SlotLayout& layout, std::span<const int32_t> present,
                                 std::span<const int32_t> target) {
  if (SlotsAreKept(layout, present, target)) return {target.begin(), target.end()};
  return KeepSlots(layout, present, target);
}

std::vector<Move> LayerMoves(const ExpertMap& present, std::span<const int32_t> target, const Hosts& hosts,
                             std::span<int32_t> sends) {
  const SlotLayout& layout = present.layout();
  CADRE_CHECK(sends.size() == static_cast<size_t>(layout.num_ranks));
  const std::vector<int32_t> kept = TargetSlots(layout, present.slot_to_expert(), target);
  std::vector<Move> moves;
  for (int32_t rank = 0; rank < layout.num_ranks; ++rank) {
    const size_t first_of_rank = moves.size();
    for (int32_t slot = layout.Begin(rank); slot < layout.Begin(rank + 1); ++slot) {
      const int32_t expert = kept[static_cast<size_t>(slot)];
      if (expert == present.ExpertOf(Slot(slot)).value) continue;
      const auto again = std::find_if(moves.begin() + static_cast<std::ptrdiff_t>(first_of_rank), moves.end(),
                                      [&](const Move& move) { return move.expert == expert; });
      if (again != moves.end()) {
        moves.push_back({slot, expert, rank, again->slot});
        continue;
      }
      // Distance (own rank, own host, elsewhere), then sends so far, then rank, then slot.
      std::tuple<int, int32_t, int32_t, int32_t> best{3, 0, 0, 0};
      for (const int32_t holder : present.SlotsOf(LogicalExpert(expert))) {
        const int32_t other = layout.RankOf(holder);
        const bool near =
            hosts.of_rank[static_cast<size_t>(other)] == hosts.of_rank[static_cast<size_t>(rank)];
        const int distance = other == rank ? 0 : near ? 1 : 2;
        best = std::min(best, std::tuple{distance, sends[static_cast<size_t>(other)], other, holder});
      }
      const auto [distance, sent, source, source_slot] = best;
      if (distance > 0) ++sends[static_cast<size_t>(source)];
      moves.push_back({slot, expert, source, source_slot});
    }
  }
  return moves;
}

PlaceTable::PlaceTable(int32_t num_layers, SlotLayout layout, int32_t num_spares)
    : num_layers_(num_layers), layout_(layout), num_spares_(num_spares) {
  CADRE_CHECK(num_layers >= 0 && num_spares >= 0 && !layout.sharded);
  for (int32_t layer = 0; layer < num_layers; ++layer) {
    std::vector<int32_t>& places = place_of_.emplace_back();
    for (int32_t rank = 0; rank < layout.num_ranks; ++rank) {
      for (int32_t i = 0; i < layout.Count(rank); ++i) places.push_back(layer * layout.Count(rank) + i);
    }
  }
  for (int32_t rank = 0; rank < layout.num_ranks; ++rank) {
    std::vector<int32_t>& spares = spares_.emplace_back(static_cast<size_t>(num_spares));
    std::iota(spares.begin(), spares.end(), num_layers * layout.Count(rank));
  }
}

int32_t PlaceTable::PlaceOf(int32_t layer, int32_t slot) const {
  return Layer(layer)[static_cast<size_t>(slot)];
}

std::span<const int32_t> PlaceTable::Layer(int32_t layer) const {
  return place_of_.at(static_cast<size_t>(layer));
}

std::span<const int32_t> PlaceTable::SparesOf(int32_t rank) const {
  return spares_.at(static_cast<size_t>(rank));
}

void PlaceTable::Apply(const Wave& wave) {
  for (const Write& write : wave.writes) {
    std::vector<int32_t>& spares = spares_.at(static_cast<size_t>(write.rank));
    const auto taken = std::find(spares.begin(), spares.end(), write.place);
    CADRE_CHECK(taken != spares.end());
    spares.erase(taken);
  }
  for (const Flip& flip : wave.flips) {
    CADRE_CHECK(flip.slot_to_place.size() == static_cast<size_t>(layout_.num_slots));
    std::vector<int32_t>& places = place_of_.at(static_cast<size_t>(flip.layer));
    for (int32_t rank = 0; rank < layout_.num_ranks; ++rank) {
      const auto begin = flip.slot_to_place.begin() + layout_.Begin(rank), end = begin + layout_.Count(rank);
      for (int32_t slot = layout_.Begin(rank); slot < layout_.Begin(rank + 1); ++slot) {
        const int32_t place = places[static_cast<size_t>(slot)];
        if (std::find(begin, end, place) == end) spares_[static_cast<size_t>(rank)].push_back(place);
      }
    }
    places = flip.slot_to_place;
  }
  for (std::vector<int32_t>& spares : spares_) {
    std::sort(spares.begin(), spares.end());
    CADRE_CHECK(spares.size() == static_cast<size_t>(num_spares_));  // each write gave one back
  }
}

}  // namespace cadre::eplb
