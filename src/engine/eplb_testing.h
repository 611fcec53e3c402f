#pragma once
// For tests: a state of balancing as an engine would tell it.
#include <numeric>

#include "engine/engine.h"

namespace cadre::engine {

/// 2 layers of 3 experts on 2 ranks with 2 slots each; layer 1 has moved.
inline EplbState SampleEplbState() {
  EplbState state{.stats = {.epoch = 2,
                            .num_rebalances = 3,
                            .num_moved = 4,
                            .moved_bytes = 4096,
                            .num_failed_waves = 1,
                            .moving_seconds = 0.5,
                            .balancedness = 0.75,
                            .layer_balancedness = {0.5, 1},
                            .rank_tokens = {30, 10},
                            .expert_tokens = {20, 5, 5, 5, 2, 3},
                            .version = 7},
                  .model = "M (config.json 1)",
                  .policy = "default",
                  .replica_routing = "hash",
                  .window_size = 100,
                  .window_steps = 40,
                  .step_interval = 300,
                  .steps_until_next = 260,
                  .num_unchanged = 1,
                  .top_k = 2,
                  .num_layers = 2,
                  .num_experts = 3,
                  .num_slots = 4,
                  .num_ranks = 2,
                  .num_spares = 2,
                  .layer_epochs = {1, 2},
                  .slots = {0, 1, 2, 0, 1, 0, 2, 0},
                  .start_slots = {0, 1, 2, 0, 0, 1, 2, 0},
                  .load = {20, 5, 5, 5, 2, 3}};
  return state;
}

/// A larger one, whose vectors are no longer told with every step.
inline EplbState LargeEplbState(int32_t layers, int32_t experts) {
  EplbState state = SampleEplbState();
  state.num_layers = layers, state.num_experts = state.num_slots = experts;
  const auto cells = static_cast<size_t>(layers) * static_cast<size_t>(experts);
  state.layer_epochs.assign(static_cast<size_t>(layers), 1);
  state.slots.resize(cells);
  for (size_t i = 0; i < cells; ++i) state.slots[i] = static_cast<int32_t>(i % static_cast<size_t>(experts));
  state.start_slots = state.slots;
  state.load.assign(cells, 0);
  std::iota(state.load.begin(), state.load.end(), 0);
  return state;
}

}  // namespace cadre::engine
