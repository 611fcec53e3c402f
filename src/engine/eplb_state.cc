#include "engine/eplb_state.h"

#include <algorithm>

namespace cadre::engine {
namespace {

template <typename T>
std::vector<T> Flat(const std::vector<std::vector<T>>& rows) {
  std::vector<T> out;
  for (const std::vector<T>& row : rows) out.insert(out.end(), row.begin(), row.end());
  return out;
}

std::vector<double> ExpertTokens(const eplb::LoadTable& load) {
  if (load.counts.size() <= EplbStats::kMaxExpertTokens) return {load.counts.begin(), load.counts.end()};
  std::vector<double> sums(static_cast<size_t>(load.num_experts));
  for (size_t i = 0; i < load.counts.size(); ++i)
    sums[i % sums.size()] += static_cast<double>(load.counts[i]);
  return sums;
}

bool AllBelow(const std::vector<int32_t>& values, int32_t end) {
  return std::ranges::all_of(values, [&](int32_t value) { return value >= 0 && value < end; });
}

}  // namespace

EplbStats EplbStatsOf(const rebalance::Snapshot& s) {
  EplbStats stats{.epoch = s.epoch,
                  .num_rebalances = s.num_rebalances,
                  .num_moved = s.num_moved,
                  .moved_bytes = s.moved_bytes,
                  .num_failed_waves = s.num_failed_waves,
                  .moving_seconds = s.moving_seconds,
                  .moving = s.moving,
                  .stalled = s.stalled,
                  .waits_for = s.waits_for,
                  .balancedness = s.balance.balancedness()};
  for (const eplb::Balance& layer : s.layer_balance) stats.layer_balancedness.push_back(layer.balancedness());
  stats.rank_tokens.resize(static_cast<size_t>(s.layout.num_ranks));
  for (size_t layer = 0; layer < s.slots.size(); ++layer) {
    const auto loads = eplb::RankLoads(s.layout, s.slots[layer], s.load.Layer(static_cast<int32_t>(layer)));
    for (size_t r = 0; r < loads.size(); ++r) stats.rank_tokens[r] += loads[r];
  }
  stats.expert_tokens = ExpertTokens(s.load);
  stats.one_row_of_experts = s.load.counts.size() > EplbStats::kMaxExpertTokens;
  return stats;
}

EplbState EplbStateOf(const rebalance::Rebalancer& rebalancer) {
  const rebalance::RebalanceOptions& options = rebalancer.options();
  const rebalance::Snapshot s = rebalancer.snapshot();
  return {.stats = EplbStatsOf(s),
          .model = options.load_model,
          .policy = options.policy,
          .replica_routing = rebalancer.prefers_own_host() ? "nearest" : "hash",
          .use_async = options.use_async,
          .window_size = options.window_size,
          .window_steps = s.window_steps,
          .step_interval = options.step_interval,
          .steps_until_next = s.steps_until_next,
          .num_unchanged = s.num_unchanged,
          .top_k = options.top_k,
          .num_layers = s.load.num_layers,
          .num_experts = s.load.num_experts,
          .num_slots = s.layout.num_slots,
          .num_ranks = s.layout.num_ranks,
          .num_spares = options.num_spares,
          .layer_epochs = s.layer_epochs,
          .slots = Flat(s.slots),
          .start_slots = Flat(s.start_slots),
          .load = s.load.counts};
}

bool EplbState::IsWhole() const {
  if (num_layers < 1 || num_experts < 1 || num_ranks < 1 || num_slots < num_experts) return false;
  const auto layers = static_cast<size_t>(num_layers);
  const size_t places = layers * static_cast<size_t>(num_slots);
  return layer_epochs.size() == layers && slots.size() == places && start_slots.size() == places &&
         load.size() == layers * static_cast<size_t>(num_experts) && AllBelow(slots, num_experts) &&
         AllBelow(start_slots, num_experts);
}

Result<EplbState> Engine::Eplb(TimePoint) const {
  return Fail(Code::kNotFound, "experts are not balanced here: start the server with --enable-eplb");
}

}  // namespace cadre::engine
