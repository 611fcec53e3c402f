#pragma once
// The expert layer that `cadre demo` shows: out of a model (model_part.h), or weights and tokens drawn from a
// seed, so that every rank, and one process alone, makes the same ones.
//
// A number is 2 u - 1 times a scale, u = the upper 24 bits of a Philox word / 2^24: stream `t + 8 e` holds
// tensor t of expert e, or of rank e for the tokens; word i % 4 of counter i / 4 is element i. Tensors: 0
// router [experts, hidden], 1 gate and 2 up [inter, hidden], 3 down [hidden, inter], 4 tokens [tokens,
// hidden]. Weights have the scale sqrt(3 / columns), so that rows keep their size through every matrix;
// tokens have sqrt(3).
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "app/demo/model_part.h"
#include "base/error.h"
#include "kernels/pack.h"
#include "kernels/topk.h"
#include "nn/expert_bank.h"
#include "nn/spec.h"
#include "nn/weights.h"

namespace cadre::app::demo {

struct Shape {
  int32_t num_experts = 8, top_k = 2;
  int64_t hidden = 128, inter = 256, num_tokens = 6;  ///< num_tokens of each rank
  uint64_t seed = 0;
  std::shared_ptr<const ModelPart> model = nullptr;  ///< null: drawn from the seed

  int64_t ExpertBytes() const { return 3 * hidden * inter * 4; }  ///< of one expert
};

/// One part of a tensor stream as described above: elements [begin, begin + out.size()).
void Draw(uint64_t seed, int tensor, int64_t index, int64_t begin, double scale, std::span<float> out);

/// The tokens of `rank`, [num_tokens, hidden], drawn.
void DrawTokens(const Shape& shape, int rank, float* rows);

/// A layer with some of the experts.
class Layer {
 public:
  /// `experts` [local slots] logical. Errors: kResourceExhausted; those of the model's files.
  static Result<Layer> Create(const Shape& shape, std::span<const int32_t> experts);

  /// The tokens of `rank`, [num_tokens, hidden].
  void Tokens(const kernels::Device& device, int rank, float* rows) const;
  /// experts and weights [num_rows, top_k], best first, as the model's router does it. Drawn: the top_k
  /// logits, softmax over those.
  void Route(const kernels::Device& device, const float* rows, int64_t num_rows, int32_t* experts,
             float* weights) const;
  /// out [table.num_rows, hidden]: every row through the expert of its slot, times its weight.
  void Run(const kernels::Device& device, const a2a::RowTable& table, float* out) const;

  int32_t num_experts() const { return static_cast<int32_t>(weights_.experts.size()); }  ///< held here
  int64_t expert_bytes() const { return expert_bytes_; }

 private:
  Layer() = default;
  Status DrawWeights(std::span<const int32_t> experts);
  Status LoadWeights(std::span<const int32_t> experts);

  Shape shape_;
  nn::MoeSpec spec_;
  nn::MoeWeights weights_;
  int64_t expert_bytes_ = 0;
  // Who owns what weights_ points to.
  sys::Region router_bytes_;
  std::optional<nn::ExpertBank> bank_;
  std::optional<LoadedPart> loaded_;
};

}  // namespace cadre::app::demo
