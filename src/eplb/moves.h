#pragma once
// Plan -> moves -> waves: how ranks get from the present maps to a plan while they serve.
//
// A *slot* is what the router sends rows to. A *place* is where one expert's weights lie in a rank's memory.
// Rank r has places 0 .. layers x slots(r) + spares(r) - 1, all of the same size, for all layers together.
// The place table says which place each (layer, slot) uses; the places that no slot uses are spare. A move
// fills a spare place; at the flip the slot points to it and the place that it left is spare from then on.
// Nothing is ever written to a place that a map in use points to, so a step never sees half an expert, and a
// move that fails has changed nothing but a spare place.
//
//     layer 3, rank 0:   slot 0 -> place 12 (expert 5)        slot 0 -> place 12 (expert 5)
//                        slot 1 -> place 13 (expert 9)  flip  slot 1 -> place 40 (expert 2)
//                        spare: 40 (expert 2 copied in) ---->  spare: 13
//
// A wave is one round: all its writes, then one flip of all its layers. With fewer spare places than a layer
// has moves, the layer goes through several waves, each of which leaves a legal map: every expert has a slot.
// This needs one spare place a rank and costs no byte more than moving all at once. Why: draw an arrow from
// the rank that loses an expert to a rank that gains it, for each expert that has no slot which stays; one
// from a node outside to each further gain and one to it from each further loss. A rank gains as many as it
// loses, so the arrows fall apart into circles that visit each rank once; a circle takes one spare place on
// each of its ranks, and an expert whose last copy goes has its new copy in the same circle. A wave holds
// whole circles.
//
// What a mover must know:
//  * a rank carries out its own writes in the order of the list. A write reads a place in use under the maps
//    before the wave, or, on the same rank, a place that an earlier write of this wave has filled;
//  * no place is read after a flip that came before its write's wave: finish all reads, then flip;
//  * all flips of a wave become visible at one step border on all ranks, or none does. Then every rank calls
//    PlaceTable::Apply(wave); if the wave is dropped nobody does, and the next try makes a new schedule.
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "eplb/expert_map.h"
#include "eplb/policy.h"
#include "eplb/slot_layout.h"

namespace cadre::eplb {

struct Wave;

/// One slot's change within a layer, whatever the number of spare places.
struct Move {
  int32_t slot = 0;         ///< the slot that changes
  int32_t expert = 0;       ///< what it holds afterwards
  int32_t source_rank = 0;  ///< who holds it before
  int32_t source_slot = 0;  ///< a slot of that rank; where source_rank is the slot's own rank, possibly one
                            ///< that an earlier move of the list fills
  friend bool operator==(const Move&, const Move&) = default;
};

/// One layer's moves from `present` to `target` [slots], rising by slot; a rank that gains an expert more
/// than once receives it once and copies it. Slots whose expert stays on the rank do not move, whatever their
/// order in `target` (KeepSlots is applied unless SlotsAreKept). Sources: the own rank; else a holder in the
/// own host; else any holder; among equals the one that sends the least so far (sends [ranks], updated), then
/// the lowest rank and slot. No execution of the target can receive less: each expert that a rank does not
/// hold comes once.
std::vector<Move> LayerMoves(const ExpertMap& present, std::span<const int32_t> target, const Hosts& hosts,
                             std::span<int32_t> sends);

/// Which place each slot uses, on every rank.
class PlaceTable {
 public:
  /// The start: layer l's local slot i of rank r in place l x slots(r) + i, then `num_spares` spare places a
  /// rank. Counts not negative, layout not sharded (checked).
  PlaceTable(int32_t num_layers, SlotLayout layout, int32_t num_spares);

  const SlotLayout& layout() const { return layout_; }
  int32_t num_layers() const { return num_layers_; }
  int32_t NumPlaces(int32_t rank) const { return num_layers_ * layout_.Count(rank) + num_spares_; }
  int32_t num_spares() const { return num_spares_; }

  /// The place of a slot, in the memory of layout().RankOf(slot).
  int32_t PlaceOf(int32_t layer, int32_t slot) const;
  /// [slots] of a layer.
  std::span<const int32_t> Layer(int32_t layer) const;
  /// Places of `rank` that no slot uses, rising; num_spares() of them.
  std::span<const int32_t> SparesOf(int32_t rank) const;

  /// After the flip of `wave`, which MakeSchedule made for this table's state (checked).
  void Apply(const Wave& wave);

  friend bool operator==(const PlaceTable&, const PlaceTable&) = default;

 private:
  int32_t num_layers_;
  SlotLayout layout_;
  int32_t num_spares_;
  std::vector<std::vector<int32_t>> place_of_;  // [layers][slots]
  std::vector<std::vector<int32_t>> spares_;    // [ranks], rising
};

/// Copy one expert's weights into a spare place of `rank`.
struct Write {
  int32_t rank = 0;   ///< who writes
  int32_t place = 0;  ///< into which of its places
  int32_t layer = 0;
  int32_t expert = 0;
  int32_t source_rank = 0;  ///< where the weights lie; may be `rank` itself
  int32_t source_place = 0;
  friend bool operator==(const Write&, const Write&) = default;
};

/// A layer's whole state after a wave.
struct Flip {
  int32_t layer = 0;
  std::vector<int32_t> slot_to_expert;  ///< [slots]; a legal map
  std::vector<int32_t> slot_to_place;   ///< [slots]; place in the memory of the slot's rank
  friend bool operator==(const Flip&, const Flip&) = default;
};

struct Wave {
  std::vector<Write> writes;  ///< at most num_spares a rank, each to another spare place
  std::vector<Flip> flips;    ///< rising by layer, one for each layer that changes
  friend bool operator==(const Wave&, const Wave&) = default;
};

struct Schedule {
  std::vector<Wave> waves;
  int64_t num_received = 0;    ///< experts that cross from one rank to another ...
  int64_t num_from_hosts = 0;  ///< ... of these, from one host to another
  int64_t num_local = 0;       ///< experts copied within a rank
  /// FNV-1a over everything that the waves say and the state they start from. Ranks compare it before wave 0.
  uint64_t hash = 0;
};

/// The target with every rank's staying experts in their slots: itself where SlotsAreKept, else by KeepSlots.
std::vector<int32_t> TargetSlots(const SlotLayout& layout, std::span<const int32_t> present,
                                 std::span<const int32_t> target);

/// The waves from `present` (maps in use, [layers]) and `places` (their places) to `plan`. A layer's moves
/// share a wave where they fit; layers share a wave while places last. After the last one the maps are those
/// of the plan (each layer's TargetSlots, which a plan of MakePlan has already). Empty where the plan changes
/// nothing. Errors: kInvalidArgument where plan, maps, places and hosts do not fit together;
/// kResourceExhausted without a spare place. Cost: proportional to layers x slots x waves of a layer.
Result<Schedule> MakeSchedule(std::span<const ExpertMap> present, const Plan& plan, const PlaceTable& places,
                              const Hosts& hosts);

}  // namespace cadre::eplb
