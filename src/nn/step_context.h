#pragma once
// Everything one forward step needs and nothing that outlives it. Travels by argument; there is no hidden
// step state.
#include <cstdint>
#include <functional>
#include <span>

#include "a2a/a2a.h"
#include "a2a/collective.h"
#include "eplb/expert_map.h"
#include "kernels/attention.h"
#include "kernels/device.h"
#include "kv/layout.h"
#include "nn/simulated_routing.h"

namespace cadre::nn {

/// The rows of a step, in the order of its sequences. The same on all tensor-parallel ranks of a replica.
struct StepBatch {
  std::span<const int32_t> token_ids;                     ///< [T]
  std::span<const int32_t> positions;                     ///< [T]
  std::span<const int64_t> kv_slots;                      ///< [T] block * block_size + offset
  std::span<const kernels::AttentionSequence> sequences;  ///< rows in order, none missing
  int64_t num_tokens() const { return static_cast<int64_t>(token_ids.size()); }
};

/// This rank's KV pool, and what is kept of each token behind it.
struct KvPoolView {
  kv::Layout layout;
  int64_t num_blocks = 0;
  std::byte* base = nullptr;

  kernels::KvLayerView Layer(int32_t layer) const {
    return {.base = base + layout.LayerOffset(layer, num_blocks),
            .block_stride = layout.BlockBytes(),
            .block_size = layout.block_size,
            .num_kv_heads = layout.num_kv_heads,
            .k_dim = layout.k_dim,
            .v_dim = layout.v_dim,
            .latent = layout.latent,
            .type = layout.type};
  }
  /// [KV slots, MoE layers, top_k] the experts that each token had; null where nobody asks.
  uint16_t* notes() const {
    if (layout.note_bytes == 0) return nullptr;
    return reinterpret_cast<uint16_t*>(base + layout.PoolBytes(num_blocks));
  }
};

struct Adapter;

/// The rows of a step that want an adapter (adapter.h).
struct AdapterRows {
  const Adapter* adapter = nullptr;
  std::span<const int32_t> rows;  ///< ascending
};

struct StepContext {
  kernels::Device device;
  StepBatch batch;
  KvPoolView kv;
  std::span<const AdapterRows> adapters;  ///< one entry an adapter; rows of none are in no entry
  a2a::AllToAll* exchange = nullptr;      ///< of the EP group; null for a model without experts
  std::span<const eplb::ExpertMap* const>
      expert_maps;  ///< [MoE layers] where each layer's experts lie in this step
  /// [MoE layers, slots]: the router adds the choices of this rank's own rows; null: nobody counts.
  uint32_t* slot_counts = nullptr;
  /// Chooses the experts instead of the router; null: the router does.
  const SimulatedRouting* simulated_routing = nullptr;
  int64_t step = 0;                            ///< counts up; for the simulation alone
  a2a::Collective* tensor_parallel = nullptr;  ///< null where tp = 1
  /// Called after a layer's keys and values of this step are in the pool (prefill hand-off); may be empty.
  std::function<void(int32_t layer)> on_layer_written;

  /// A MoE layer's part of slot_counts, or null.
  uint32_t* SlotCounts(size_t moe_layer) const {
    const auto slots = static_cast<size_t>(expert_maps[moe_layer]->layout().num_slots);
    return slot_counts == nullptr ? nullptr : slot_counts + moe_layer * slots;
  }
};

}  // namespace cadre::nn
