#include "app/demo/model_part.h"

#include "app/terminal.h"
#include "checkpoint/hf_config.h"
#include "checkpoint/hub_cache.h"
#include "kernels/elementwise.h"
#include "model/registry.h"
#include "text/tokenizer.h"

namespace cadre::app::demo {
namespace {

// The one layer with experts that is left has these, whole.
Result<model::WeightPlan> PlanOf(const ModelPart& part, const std::vector<int32_t>& experts) {
  model::WeightLayout layout;
  layout.type = DType::kF32;
  layout.enable_ep = true;
  layout.slots = {experts};
  return model::PlanWeights(part.spec, layout);
}

}  // namespace

Result<std::shared_ptr<const ModelPart>> FindModelPart(const std::string& model, const std::string& hub_cache,
                                                       const std::string& prompt, int64_t num_tokens) {
  auto part = std::make_shared<ModelPart>();
  CADRE_ASSIGN(const auto location, checkpoint::LocateModel(model, "", {.hf_hub_cache = hub_cache}));
  part->name = location.name;
  part->folder = location.folder;
  CADRE_ASSIGN(const auto files, checkpoint::ReadModelFiles(part->folder));
  CADRE_ASSIGN(part->spec, model::ReadModelSpec(files.config, files.generation_config));
  auto& layers = part->spec.layers;
  size_t first = 0;
  while (first < layers.size() && !layers[first].moe) ++first;
  if (first == layers.size()) {
    return FailParam(Code::kInvalidArgument, "--model", "{} ({}) has no layer with experts", model,
                     part->spec.architecture);
  }
  layers.resize(first + 1);
  CADRE_ASSIGN(const auto tokenizer, text::Tokenizer::Load(part->folder));
  const std::vector<int32_t> ids = tokenizer->Encode(prompt, false);
  if (ids.empty()) return FailParam(Code::kInvalidArgument, "--prompt", "--prompt has no tokens");
  for (int64_t t = 0; t < num_tokens; ++t) {
    const int32_t id = ids[static_cast<size_t>(t) % ids.size()];
    if (id >= part->spec.vocab_size) {
      return Fail(Code::kInvalidArgument, "token {} of {} is past the model's vocabulary of {}", id,
                  part->folder, part->spec.vocab_size);
    }
    part->token_ids.push_back(id);
    part->texts.push_back(WithoutControls(tokenizer->Decode({&id, 1}, false)));
  }
  return part;
}

Result<int64_t> ModelPartBytes(const ModelPart& part, const std::vector<int32_t>& experts) {
  CADRE_ASSIGN(const auto plan, PlanOf(part, experts));
  return plan.total_bytes();
}

Result<LoadedPart> LoadModelPart(const ModelPart& part, const std::vector<int32_t>& experts) {
  LoadedPart loaded;
  CADRE_ASSIGN(const auto plan, PlanOf(part, experts));
  CADRE_ASSIGN(const auto source, checkpoint::OpenCheckpoint(part.folder));
  CADRE_ASSIGN(loaded.dense, sys::AllocateRegion(static_cast<size_t>(plan.dense_bytes)));
  CADRE_ASSIGN(loaded.experts, sys::AllocateRegion(static_cast<size_t>(plan.expert_bytes)));
  loaded.weights = model::PlaceWeights(part.spec, plan, loaded.dense.data(), loaded.experts.data());
  loaded.expert_bytes = plan.expert_bytes;
  sys::ThreadPool pool({.num_threads = 1, .cpus = {}, .spin = false});
  CADRE_ASSIGN([[maybe_unused]] const auto report,
               model::LoadWeights(part.spec, plan, *source, pool, {}, loaded.weights));
  return loaded;
}

void ModelRows(const ModelPart& part, const LoadedPart& loaded, const kernels::Device& device, int64_t begin,
               int64_t count, float* rows) {
  const int32_t* ids = part.token_ids.data() + begin;
  const model::ModelWeights& w = loaded.weights;
  if (w.embedding_is_head) {
    kernels::GatherPackedRows(device, count, ids, w.lm_head, part.spec.embedding_multiplier, rows);
  } else {
    kernels::GatherRows(device, count, ids, w.embedding, w.type, part.spec.hidden,
                        part.spec.embedding_multiplier, rows);
  }
  kernels::RmsNorm(device, {.num_rows = count,
                            .width = part.spec.hidden,
                            .x = rows,
                            .x_stride = part.spec.hidden,
                            .weight = w.layers[static_cast<size_t>(part.layer())].ffn_norm,
                            .eps = part.spec.rms_eps,
                            .out = rows,
                            .out_type = DType::kF32,
                            .out_stride = part.spec.hidden});
}

}  // namespace cadre::app::demo
