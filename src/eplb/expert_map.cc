#include "eplb/expert_map.h"

#include <utility>

#include "base/check.h"

namespace cadre::eplb {

Result<ExpertMap> ExpertMap::Create(int32_t num_experts, SlotLayout layout,
                                    std::vector<int32_t> slot_to_expert, Epoch epoch) {
  if (num_experts < 1 || layout.num_ranks < 1) {
    return Fail(Code::kInvalidArgument, "an expert map needs experts and ranks; got {} experts on {} ranks",
                num_experts, layout.num_ranks);
  }
  if (slot_to_expert.size() != static_cast<size_t>(layout.num_slots)) {
    return Fail(Code::kInvalidArgument, "an expert map of {} slots was given {} entries", layout.num_slots,
                slot_to_expert.size());
  }
  ExpertMap map;
  map.first_.assign(static_cast<size_t>(num_experts) + 1, 0);
  for (const int32_t expert : slot_to_expert) {
    if (expert < 0 || expert >= num_experts) {
      return Fail(Code::kInvalidArgument, "an expert map names expert {}; the model has experts 0 to {}",
                  expert, num_experts - 1);
    }
    ++map.first_[static_cast<size_t>(expert) + 1];
  }
  for (size_t e = 0; e < static_cast<size_t>(num_experts); ++e) {
    if (map.first_[e + 1] == 0)
      return Fail(Code::kInvalidArgument, "an expert map has no slot for expert {}", e);
    map.first_[e + 1] += map.first_[e];
  }
  map.slots_.resize(slot_to_expert.size());
  std::vector<int32_t> next(map.first_.begin(), map.first_.end() - 1);
  for (size_t slot = 0; slot < slot_to_expert.size(); ++slot) {
    int32_t& place = next[static_cast<size_t>(slot_to_expert[slot])];
    map.slots_[static_cast<size_t>(place++)] = static_cast<int32_t>(slot);
  }
  map.layout_ = layout;
  map.epoch_ = epoch;
  map.slot_to_expert_ = std::move(slot_to_expert);
  return map;
}

LogicalExpert ExpertMap::ExpertOf(Slot slot) const {
  CADRE_CHECK(slot.valid() && slot.value < layout_.num_slots);
  return LogicalExpert(slot_to_expert_[static_cast<size_t>(slot.value)]);
}

std::span<const int32_t> ExpertMap::SlotsOf(LogicalExpert expert) const {
  CADRE_CHECK(expert.valid() && expert.value < num_experts());
  const auto e = static_cast<size_t>(expert.value);
  return std::span(slots_).subspan(static_cast<size_t>(first_[e]),
                                   static_cast<size_t>(first_[e + 1] - first_[e]));
}

std::span<const int32_t> ExpertMap::ExpertsOn(int32_t rank) const {
  CADRE_CHECK(rank >= 0 && rank < layout_.num_ranks);
  return std::span(slot_to_expert_)
      .subspan(static_cast<size_t>(layout_.Begin(rank)), static_cast<size_t>(layout_.Count(rank)));
}

void ExpertMap::MapChoices(int64_t num_rows, int32_t top_k, const int32_t* experts, const uint32_t* row_hash,
                           int32_t* slots) const {
  const std::vector<int32_t>& firsts = choices_.empty() ? first_ : choice_first_;
  const std::vector<int32_t>& choices = choices_.empty() ? slots_ : choices_;
  for (int64_t t = 0; t < num_rows; ++t) {
    const uint32_t hash = row_hash == nullptr ? 0 : row_hash[t];
    for (int64_t i = t * top_k; i < (t + 1) * top_k; ++i) {
      const int32_t expert = experts[i];
      if (expert < 0) {
        slots[i] = -1;
        continue;
      }
      CADRE_CHECK(expert < num_experts());
      const int32_t first = firsts[static_cast<size_t>(expert)];
      const auto copies = static_cast<uint32_t>(firsts[static_cast<size_t>(expert) + 1] - first);
      slots[i] = choices[static_cast<size_t>(first) + (copies == 1 ? 0 : hash % copies)];
    }
  }
}

ExpertMap ExpertMap::Preferring(int32_t begin, int32_t end) const {
  CADRE_CHECK(begin >= 0 && begin <= end && end <= layout_.num_ranks);
  ExpertMap map = *this;
  map.choice_first_ = {0};
  map.choices_.clear();
  const int32_t first_slot = layout_.Begin(begin), end_slot = layout_.Begin(end);
  for (int32_t e = 0; e < num_experts(); ++e) {
    const auto all = SlotsOf(LogicalExpert(e));
    const size_t before = map.choices_.size();
    for (const int32_t slot : all) {
      if (slot >= first_slot && slot < end_slot) map.choices_.push_back(slot);
    }
    if (map.choices_.size() == before) map.choices_.insert(map.choices_.end(), all.begin(), all.end());
    map.choice_first_.push_back(static_cast<int32_t>(map.choices_.size()));
  }
  return map;
}

std::vector<int32_t> ExpertMap::LocalIndex(int32_t rank) const {
  std::vector<int32_t> index(static_cast<size_t>(num_experts()), -1);
  const auto experts = ExpertsOn(rank);
  for (size_t i = experts.size(); i-- > 0;) index[static_cast<size_t>(experts[i])] = static_cast<int32_t>(i);
  return index;
}

}  // namespace cadre::eplb
