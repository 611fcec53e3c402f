#pragma once
// The weights of one rank as the decoder uses them.
//
// Nothing here owns bytes. All of it lies in two arenas: `dense` (what every rank with the same tp_rank has
// alike, so that the ranks of a host may share one copy) and `experts` (the routed experts' slots of this
// rank alone). What a checkpoint calls by name comes here by one path: weight_map -> shard -> kernels/pack ->
// the place (weight_sink.h).
//
// "Local" below means: of this rank's shard (ShardShape in shard.h has the numbers).
#include <cstdint>
#include <vector>

#include "nn/weights.h"
#include "tensor/dtype.h"

namespace cadre::model {

using kernels::ExpertWeights;
using kernels::PackedMatrix;
using nn::AttentionWeights;
using nn::FeedForwardWeights;
using nn::MoeWeights;

struct LayerWeights {
  const float* attn_norm = nullptr;  ///< [hidden]
  AttentionWeights attention;
  const float* ffn_norm = nullptr;  ///< [hidden]
  FeedForwardWeights dense;         ///< of a dense layer
  MoeWeights moe;                   ///< of a MoE layer
};

struct ModelWeights {
  DType type = DType::kBf16;        ///< the mode: kBf16 or kF32, of every matrix but router and shared_gate
  const void* embedding = nullptr;  ///< [vocab, hidden] rows of `type`, on every rank
  bool embedding_is_head =
      false;  ///< tied, and the head is whole here: rows come from lm_head, no `embedding`
  std::vector<LayerWeights> layers;
  const float* final_norm = nullptr;  ///< [hidden]
  /// Rows [vocab_begin, vocab_begin + lm_head.n) of the head: the vocabulary is split over tp, contiguous, in
  /// rank order.
  PackedMatrix lm_head;
  int64_t vocab_begin = 0;
  int64_t generation = 0;  ///< of the weights that are in place; 0: none yet
};

}  // namespace cadre::model
