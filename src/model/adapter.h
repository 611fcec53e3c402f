#pragma once
// A LoRA adapter from a folder as PEFT writes it (adapter_config.json and adapter_model.safetensors) into the
// places that the layers read (nn/adapter.h): this rank's share of each pair, packed, the scale in B.
//
// What is supported is a list, made from the model: the attention's projections and those of dense
// feed-forwards and shared experts. A tensor or a setting that asks for anything else is refused by its name:
// an adapter is used as a whole or not at all.
#include <cstdint>
#include <memory>
#include <string>

#include "base/error.h"
#include "model/spec.h"
#include "model/weight_plan.h"
#include "nn/adapter.h"
#include "sys/memory.h"

namespace cadre::model {

/// Owns the bytes that `weights` points into.
struct LoadedAdapter {
  nn::Adapter weights;
  sys::Region memory;
  int64_t max_rank = 0;      ///< of its pairs
  uint64_t digest = 0;       ///< of all pairs and their scales, also what other ranks hold of them
  int64_t source_bytes = 0;  ///< of this rank's share
};

/// Reads one rank's share of an adapter. Everything is checked before the memory is taken. Errors: kNotFound
/// (folder or file), kUnsupported (experts, embeddings, DoRA, ...: named), kInvalidArgument (a rank above
/// `max_rank`, layers or shapes of another model: named), kDataLoss (a damaged file).
Result<std::unique_ptr<LoadedAdapter>> LoadAdapter(const ModelSpec& spec, const WeightPlan& plan,
                                                   const std::string& folder, int64_t max_rank);

/// Memory that an adapter takes on a rank if every supported projection has a pair of `rank`.
int64_t AdapterBytes(const ModelSpec& spec, const WeightPlan& plan, int64_t rank);

}  // namespace cadre::model
