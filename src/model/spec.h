#pragma once
// What the decoder needs to know about an architecture, and nothing about where its weights come from.
//
// A family (src/model/families/*.cc) reads config.json and fills a ModelSpec; from there on nobody asks which
// family it is. Whatever a family cannot express here it must refuse by name: a setting that changes the
// answer is never ignored.
#include <cstdint>
#include <string>
#include <vector>

#include "model/quantization.h"
#include "model/tensor_names.h"
#include "nn/spec.h"
#include "tensor/dtype.h"

namespace cadre::model {

using nn::AttentionKind;
using nn::AttentionSpec;
using nn::MoeSpec;
using nn::QkNorm;
using nn::RopeScaling;
using nn::RopeSpec;

/// The linear layers of a decoder layer, as they lie in memory.
enum class LinearKind : uint8_t {
  kQkv,
  kOut,
  kQueryA,
  kQueryB,
  kKvA,
  kGateUp,
  kDown,
  kSharedGateUp,
  kSharedDown
};

struct LayerSpec {
  bool moe = false;    ///< experts, else one dense feed-forward of ModelSpec::dense_inter
  int32_t window = 0;  ///< sliding window in tokens, the row itself included; 0: none
  /// Bits by LinearKind: what an fp8 checkpoint left unquantised, wholly or in part.
  uint16_t plain_linears = 0;
};

struct ModelSpec {
  std::string architecture;              ///< as config.json names it: "Qwen3MoeForCausalLM"
  std::string family;                    ///< model_type: "qwen3_moe"
  DType checkpoint_type = DType::kBf16;  ///< what config.json says; the tensors themselves may differ

  int64_t vocab_size = 0;
  int32_t hidden = 0;
  int64_t max_position = 0;  ///< max_position_embeddings: the default of --max-model-len
  float rms_eps = 1e-6f;
  bool tie_embeddings = false;
  float embedding_multiplier = 1.0f;  ///< on the embedding rows
  float residual_multiplier = 1.0f;   ///< on what attention and feed-forward add to the residual stream
  float logit_multiplier = 1.0f;      ///< on the logits

  AttentionSpec attention;
  int32_t dense_inter = 0;  ///< intermediate size of the dense layers; 0 where no layer is dense
  MoeSpec moe;
  std::vector<LayerSpec> layers;

  int32_t bos_token_id = -1;           ///< -1: none
  std::vector<int32_t> eos_token_ids;  ///< generation_config.json's, else config.json's

  TensorNames names;
  QuantSpec quant;             ///< as published; no method: not quantised
  bool plain_experts = false;  ///< an fp8 checkpoint left the experts of some layer unquantised

  int32_t num_layers() const { return static_cast<int32_t>(layers.size()); }
  int32_t num_moe_layers() const;
  /// Parameters in all, and those that one token uses (top_k experts and the shared ones; the embedding table
  /// is not counted, the head is).
  int64_t num_parameters() const;
  int64_t num_active_parameters() const;
};

}  // namespace cadre::model
