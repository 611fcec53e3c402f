#include "eplb/load.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace cadre::eplb {
namespace {

// A packed step: each count as count + 1 in LEB128, seven bits a byte, low bits first; a run of zeros as a
// zero byte and its length. So a count takes one byte up to 126, and never more than five.
constexpr size_t kShortestRun = 3;

void AppendVarint(std::vector<uint8_t>& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<uint8_t>(value | 0x80));
  out.push_back(static_cast<uint8_t>(value));
}

uint64_t TakeVarint(const std::vector<uint8_t>& in, size_t& at) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const uint8_t byte = in[at++];
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}

void Pack(std::span<const uint32_t> counts, std::vector<uint8_t>& out) {
  out.clear();
  for (size_t i = 0; i < counts.size();) {
    size_t end = i;
    while (end < counts.size() && counts[end] == 0) ++end;
    if (end - i >= kShortestRun) {
      out.push_back(0);
      AppendVarint(out, end - i);
      i = end;
    } else {
      AppendVarint(out, uint64_t{counts[i++]} + 1);
    }
  }
}

void Subtract(const std::vector<uint8_t>& packed, std::vector<int64_t>& sum) {
  size_t i = 0;
  for (size_t at = 0; at < packed.size();) {
    const uint64_t value = TakeVarint(packed, at);
    if (value == 0) {
      i += TakeVarint(packed, at);
    } else {
      sum[i++] -= static_cast<int64_t>(value - 1);
    }
  }
  CADRE_CHECK(i == sum.size());
}

}  // namespace

std::span<int64_t> LoadTable::Layer(int32_t layer) {
  CADRE_CHECK(layer >= 0 && layer < num_layers);
  const auto width = static_cast<size_t>(num_experts);
  return std::span(counts).subspan(static_cast<size_t>(layer) * width, width);
}

std::span<const int64_t> LoadTable::Layer(int32_t layer) const {
  CADRE_CHECK(layer >= 0 && layer < num_layers);
  const auto width = static_cast<size_t>(num_experts);
  return std::span(counts).subspan(static_cast<size_t>(layer) * width, width);
}

void FoldSlots(const ExpertMap& map, std::span<const uint32_t> slot_counts,
               std::span<uint32_t> expert_counts) {
  CADRE_CHECK(slot_counts.size() == static_cast<size_t>(map.layout().num_slots));
  CADRE_CHECK(expert_counts.size() == static_cast<size_t>(map.num_experts()));
  for (size_t slot = 0; slot < slot_counts.size(); ++slot) {
    const LogicalExpert expert = map.ExpertOf(Slot(static_cast<int32_t>(slot)));
    expert_counts[static_cast<size_t>(expert.value)] += slot_counts[slot];
  }
}

LoadWindow::LoadWindow(int32_t num_layers, int32_t num_experts, int32_t window_size)
    : sum_(num_layers, num_experts), ring_(static_cast<size_t>(window_size)) {
  CADRE_CHECK(num_layers >= 1 && num_experts >= 1 && window_size >= 1);
}

void LoadWindow::Push(std::span<const uint32_t> counts) {
  CADRE_CHECK(counts.size() == sum_.counts.size());
  std::vector<uint8_t>& oldest = ring_[static_cast<size_t>(next_)];
  if (steps_ == static_cast<int32_t>(ring_.size())) {
    Subtract(oldest, sum_.counts);
  } else {
    ++steps_;
  }
  Pack(counts, packed_);
  oldest.assign(packed_.begin(), packed_.end());
  // A huge step must not leave its capacity behind in the ring for ever.
  if (oldest.capacity() > 2 * oldest.size() + 64) oldest.shrink_to_fit();
  for (size_t i = 0; i < counts.size(); ++i) sum_.counts[i] += counts[i];
  next_ = (next_ + 1) % static_cast<int32_t>(ring_.size());
}

void LoadWindow::Clear() {
  std::fill(sum_.counts.begin(), sum_.counts.end(), 0);
  for (auto& step : ring_) step = {};
  steps_ = next_ = 0;
}

size_t LoadWindow::bytes() const {
  size_t total = ring_.size() * sizeof(ring_[0]);
  for (const auto& step : ring_) total += step.capacity();
  return total;
}

std::vector<double> RankLoads(const SlotLayout& layout, std::span<const int32_t> slot_to_expert,
                              std::span<const int64_t> load) {
  CADRE_CHECK(!layout.sharded && slot_to_expert.size() == static_cast<size_t>(layout.num_slots));
  std::vector<int32_t> copies(load.size());
  for (const int32_t expert : slot_to_expert) ++copies.at(static_cast<size_t>(expert));
  std::vector<double> ranks(static_cast<size_t>(layout.num_ranks));
  for (int32_t rank = 0; rank < layout.num_ranks; ++rank) {
    for (int32_t slot = layout.Begin(rank); slot < layout.Begin(rank + 1); ++slot) {
      const auto expert = static_cast<size_t>(slot_to_expert[static_cast<size_t>(slot)]);
      ranks[static_cast<size_t>(rank)] += static_cast<double>(load[expert]) / copies[expert];
    }
  }
  return ranks;
}

std::vector<double> RankLoads(const ExpertMap& map, std::span<const int64_t> load) {
  CADRE_CHECK(load.size() == static_cast<size_t>(map.num_experts()));
  return RankLoads(map.layout(), map.slot_to_expert(), load);
}

void Balance::Add(std::span<const double> rank_loads) {
  if (rank_loads.empty()) return;
  avg_tokens +=
      std::accumulate(rank_loads.begin(), rank_loads.end(), 0.0) / static_cast<double>(rank_loads.size());
  max_tokens += *std::max_element(rank_loads.begin(), rank_loads.end());
}

Balance BalanceOf(std::span<const ExpertMap> maps, const LoadTable& load) {
  CADRE_CHECK(maps.size() == static_cast<size_t>(load.num_layers));
  Balance balance;
  for (int32_t layer = 0; layer < load.num_layers; ++layer)
    balance.Add(RankLoads(maps[static_cast<size_t>(layer)], load.Layer(layer)));
  return balance;
}

}  // namespace cadre::eplb
