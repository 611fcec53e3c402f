#pragma once
// What the local ranks of a deployment will take of the host's memory, worked out before a byte of weight is
// read.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "kv/layout.h"

namespace cadre::engine {

struct MemoryPlanInput {
  // What the machine has and what we may take of it.
  int64_t total_bytes = 0;    ///< of the host or the control group
  std::string total_source;   ///< "the host" or the file that holds the limit
  double utilization = 0.92;  ///< --gpu-memory-utilization: all local ranks together
  int num_local_ranks = 1;
  int num_local_replicas = 1;  ///< copies of the dense weights on this host

  // Of one rank, the largest of the local ones.
  int64_t dense_bytes = 0;  ///< of one copy of the dense weights
  int64_t expert_bytes = 0;
  int64_t redundant_bytes = 0;  ///< the part of expert_bytes that further copies of experts take
  int64_t spare_bytes = 0;      ///< places that experts are copied into before they are used
  bool weight_copy = false;     ///< all weights a second time (--weight-update-copy)
  int64_t adapter_bytes = 0;    ///< as many LoRA adapters as may be loaded, of the largest rank
  int64_t buffer_bytes = 0;     ///< activations, logits, sampling
  int64_t exchange_bytes = 0;   ///< segments that ranks exchange rows through

  // The KV cache.
  kv::Layout kv;
  int64_t max_model_len = 0;
  int64_t max_num_seqs = 0;
  std::optional<int64_t> kv_cache_bytes;  ///< --kv-cache-memory-bytes or VLLM_CPU_KVCACHE_SPACE, a rank
  std::optional<int64_t> num_kv_blocks;   ///< --num-gpu-blocks-override

  /// What the share allows, all local ranks together.
  int64_t Budget() const;
  /// The second copy of --weight-update-copy, all local ranks together.
  int64_t WeightCopyBytes() const;
  /// All local ranks together, the cache left out.
  int64_t BytesWithoutKv() const;
  /// Cache of one sequence of max_model_len, a rank; at most 2^53.
  int64_t SequenceBytes() const;
};

struct MemoryPlan {
  int64_t num_kv_blocks = 0;  ///< a rank
  int64_t kv_bytes = 0;       ///< a rank
  int64_t host_bytes = 0;     ///< all local ranks together
  std::string table;          ///< a person's view, several lines

  double Concurrency(const MemoryPlanInput& input) const;  ///< sequences of max_model_len that fit
};

/// Gives the KV cache what is left, but no more than max_num_seqs sequences of max_model_len can fill.
/// Errors: kResourceExhausted when weights and buffers do not fit, or fewer blocks remain than one sequence
/// of max_model_len needs; the message has the numbers and the flags that would help.
Result<MemoryPlan> MakeMemoryPlan(const MemoryPlanInput& input);

}  // namespace cadre::engine
