#pragma once
// The part of a model that `cadre demo --model` shows: its first layer with experts, and tokens for it.
//
// The rows are the tokens' embeddings through that layer's norm, as if the layers before had added nothing:
// good enough to see where tokens go, and no attention has to be computed.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/device.h"
#include "model/loader.h"

namespace cadre::app::demo {

struct ModelPart {
  std::string name;  ///< for people
  std::string folder;
  model::ModelSpec spec;           ///< without the layers behind
  std::vector<int32_t> token_ids;  ///< of all ranks, one behind the other
  std::vector<std::string> texts;  ///< the tokens as text

  int32_t layer() const { return spec.num_layers() - 1; }
};

/// `num_tokens` tokens of `prompt`, from its beginning again where it is shorter. Errors: kNotFound for the
/// model or its tokenizer, kInvalidArgument for a model without experts or a prompt without tokens.
Result<std::shared_ptr<const ModelPart>> FindModelPart(const std::string& model, const std::string& hub_cache,
                                                       const std::string& prompt, int64_t num_tokens);

/// Bytes that a rank with so many of the experts will take.
Result<int64_t> ModelPartBytes(const ModelPart& part, const std::vector<int32_t>& experts);

/// What one rank holds of it, in float32.
struct LoadedPart {
  sys::Region dense, experts;
  model::ModelWeights weights;
  int64_t expert_bytes = 0;
};
Result<LoadedPart> LoadModelPart(const ModelPart& part, const std::vector<int32_t>& experts);

/// rows [count, hidden] of the tokens [begin, begin + count).
void ModelRows(const ModelPart& part, const LoadedPart& loaded, const kernels::Device& device, int64_t begin,
               int64_t count, float* rows);

}  // namespace cadre::app::demo
