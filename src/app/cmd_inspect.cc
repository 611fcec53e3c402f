// cadre inspect: what a model is and what it would take, from its headers alone.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "app/load_picture.h"
#include "app/load_text.h"
#include "app/load_view.h"
#include "app/run.h"
#include "app/terminal.h"
#include "base/json.h"
#include "checkpoint/source.h"
#include "deploy/model_setup.h"
#include "kernels/isa.h"
#include "sys/cpu.h"
#include "sys/files.h"
#include "sys/memory.h"

namespace cadre::app {
namespace {

using sys::FormatBytes;

struct TensorGroup {
  const char* name;
  int64_t count = 0, parameters = 0, bytes = 0;
};

enum GroupIndex : size_t {
  kEmbedding,
  kHead,
  kAttention,
  kExperts,
  kShared,
  kRouter,
  kFeedForward,
  kNorm,
  kOther
};

std::vector<TensorGroup> EmptyGroups() {
  return {{"embedding"},          {"lm_head"}, {"attention"}, {"experts"}, {"shared experts"}, {"router"},
          {"dense feed-forward"}, {"norms"},   {"other"}};
}

// By name alone, whatever the family calls its blocks.
GroupIndex GroupOf(const std::string& name, const model::TensorNames& names) {
  const auto has = [&](std::string_view part) { return name.find(part) != std::string::npos; };
  if (name == names.embedding) return kEmbedding;
  if (name == names.lm_head) return kHead;
  if (has("shared_expert")) return kShared;
  if (has(".experts.")) return kExperts;
  if (has("." + names.attention)) return kAttention;
  if (has("norm")) return kNorm;
  for (const std::string& moe : names.moe) {
    for (const std::string* router : {&names.router, &names.router_bias, &names.selection_bias}) {
      if (name.ends_with("." + moe + *router)) return kRouter;
    }
  }
  if (has("." + names.dense)) return kFeedForward;
  return kOther;
}

int64_t NumElements(const checkpoint::TensorInfo& tensor) {
  return tensor.num_bytes / DTypeBytes(tensor.dtype);
}

struct RankShare {
  deploy::RankPlace place;
  model::WeightPlan plan;
};

Result<std::vector<RankShare>> SharesOf(const config::EngineOptions& options,
                                        const deploy::ModelSetup& setup) {
  std::vector<RankShare> shares;
  for (int rank = 0; rank < options.parallel.expert_parallel_size(); ++rank) {
    RankShare share{.place = deploy::PlaceOf(options.parallel, rank), .plan = {}};
    CADRE_ASSIGN(share.plan,
                 model::PlanWeights(setup.spec, deploy::WeightLayoutOf(setup, options.parallel, share.place,
                                                                       setup.expert_maps)));
    shares.push_back(std::move(share));
  }
  return shares;
}

/// All that is shown, before it is shown as text or JSON.
struct Inspection {
  deploy::ModelSetup setup;
  std::unique_ptr<checkpoint::TensorSource> source;
  std::vector<TensorGroup> groups;
  std::vector<RankShare> shares;
  Status memory;  ///< of the memory plan
};

Result<Inspection> Look(const config::EngineOptions& options) {
  Inspection seen{.setup = {}, .source = {}, .groups = EmptyGroups(), .shares = {}, .memory = {}};
  CADRE_ASSIGN(seen.setup, deploy::DescribeModel(options));
  CADRE_ASSIGN(seen.source, checkpoint::OpenCheckpoint(seen.setup.location.folder));
  for (const checkpoint::TensorInfo& tensor : seen.source->tensors()) {
    TensorGroup& group = seen.groups[GroupOf(tensor.name, seen.setup.spec.names)];
    ++group.count;
    group.parameters += NumElements(tensor);
    group.bytes += tensor.num_bytes;
  }
  std::erase_if(seen.groups, [](const TensorGroup& group) { return group.count == 0; });
  CADRE_ASSIGN(seen.shares, SharesOf(options, seen.setup));
  seen.memory = deploy::PlanMemory(options, seen.setup);
  return seen;
}

// ---- JSON

Json ModelJson(const deploy::ModelSetup& setup) {
  const model::ModelSpec& spec = setup.spec;
  const nn::AttentionSpec& a = spec.attention;
  const bool mla = a.kind == nn::AttentionKind::kMla;
  Json attention = Json::Object{{"kind", mla ? "mla" : "gqa"},
                                {"num_heads", a.num_heads},
                                {"num_kv_heads", a.num_kv_heads},
                                {"head_dim", a.head_dim},
                                {"v_head_dim", a.v_head_dim}};
  if (mla) {
    attention.Set("kv_lora_rank", a.kv_lora_rank);
    attention.Set("q_lora_rank", a.q_lora_rank);
    attention.Set("qk_rope_dim", a.qk_rope_dim);
  }
  Json windows = Json::Array();
  for (const model::LayerSpec& layer : spec.layers) windows.Push(layer.window);
  attention.Set("window_of_layer", std::move(windows));
  return Json::Object{{"architecture", spec.architecture},
                      {"family", spec.family},
                      {"folder", setup.location.folder},
                      {"checkpoint_dtype", DTypeName(spec.checkpoint_type)},
                      {"checkpoint_quantization", spec.quant.fp8() ? Json(spec.quant.method) : Json()},
                      {"weights", deploy::WeightsText(setup)},
                      {"num_layers", spec.num_layers()},
                      {"num_moe_layers", spec.num_moe_layers()},
                      {"hidden_size", spec.hidden},
                      {"vocab_size", spec.vocab_size},
                      {"attention", std::move(attention)},
                      {"num_experts", spec.moe.num_experts},
                      {"num_experts_per_tok", spec.moe.top_k},
                      {"moe_intermediate_size", spec.moe.inter},
                      {"shared_intermediate_size", spec.moe.shared_inter},
                      {"dense_intermediate_size", spec.dense_inter},
                      {"tie_word_embeddings", spec.tie_embeddings},
                      {"max_position_embeddings", spec.max_position},
                      {"num_parameters", spec.num_parameters()},
                      {"num_active_parameters", spec.num_active_parameters()}};
}

Json ShareJson(const RankShare& share, const deploy::ModelSetup& setup) {
  const model::ShardShape& shard = share.plan.shard;
  Json experts = Json::Array();
  if (!shard.slots.empty()) {
    for (const int32_t expert : shard.slots.front()) experts.Push(expert);
  }
  Json out = Json::Object{{"rank", share.place.rank()},
                          {"tp_rank", share.place.tp_rank},
                          {"dp_rank", share.place.dp_rank},
                          {"heads", Json::Array{shard.heads.begin, shard.heads.end}},
                          {"kv_heads", Json::Array{shard.kv_heads.begin, shard.kv_heads.end}},
                          {"dense_bytes", share.plan.dense_bytes},
                          {"expert_bytes", share.plan.expert_bytes}};
  if (setup.is_moe()) {
    out.Set("experts_of_first_layer", std::move(experts));
    out.Set("expert_columns", Json::Array{shard.expert_inter.begin, shard.expert_inter.end});
  }
  return out;
}

Json MemoryJson(const Inspection& seen) {
  const engine::MemoryPlanInput& in = seen.setup.memory_input;
  const engine::MemoryPlan& plan = seen.setup.memory;
  Json out = Json::Object{{"fits", seen.memory.has_value()},
                          {"host_bytes_available", in.total_bytes},
                          {"limited_by", in.total_source},
                          {"utilization", in.utilization},
                          {"num_local_ranks", in.num_local_ranks},
                          {"dense_bytes", in.dense_bytes},
                          {"dense_copies", in.num_local_replicas},
                          {"expert_bytes", in.expert_bytes},
                          {"buffer_bytes", in.buffer_bytes},
                          {"exchange_bytes", in.exchange_bytes},
                          {"kv_bytes_per_token", in.kv.BytesPerToken()},
                          {"max_model_len", seen.setup.max_model_len}};
  if (!seen.memory) {
    out.Set("error", seen.memory.error().message);
    return out;
  }
  out.Set("kv_bytes", plan.kv_bytes);
  out.Set("num_kv_blocks", plan.num_kv_blocks);
  out.Set("block_size", in.kv.block_size);
  out.Set("max_concurrency", plan.Concurrency(in));
  out.Set("host_bytes", plan.host_bytes);
  return out;
}

Json TensorJson(const checkpoint::TensorInfo& tensor, const checkpoint::TensorSource& source) {
  Json shape = Json::Array();
  for (const int64_t size : tensor.shape) shape.Push(size);
  return Json::Object{{"name", tensor.name},
                      {"dtype", DTypeName(tensor.dtype)},
                      {"shape", std::move(shape)},
                      {"bytes", tensor.num_bytes},
                      {"file", source.FileOf(tensor)}};
}

Json ToJson(const Inspection& seen, const config::InspectOptions& options) {
  const config::ParallelOptions& parallel = options.engine.parallel;
  Json out = ModelJson(seen.setup);
  Json groups = Json::Object();
  for (const TensorGroup& group : seen.groups) {
    groups.Set(
        group.name,
        Json::Object{{"tensors", group.count}, {"parameters", group.parameters}, {"bytes", group.bytes}});
  }
  out.Set("tensor_groups", std::move(groups));
  out.Set("deployment", Json::Object{{"dtype", DTypeName(seen.setup.type)},
                                     {"instruction_set", kernels::IsaName(seen.setup.isa)},
                                     {"threads_per_rank", seen.setup.threads_per_rank},
                                     {"tensor_parallel_size", parallel.tensor_parallel_size},
                                     {"data_parallel_size", parallel.data_parallel_size},
                                     {"enable_expert_parallel", parallel.enable_expert_parallel}});
  Json ranks = Json::Array();
  for (const RankShare& share : seen.shares) ranks.Push(ShareJson(share, seen.setup));
  out.Set("ranks", std::move(ranks));
  out.Set("memory", MemoryJson(seen));
  if (!options.tensors) return out;
  Json tensors = Json::Array();
  for (const checkpoint::TensorInfo& tensor : seen.source->tensors())
    tensors.Push(TensorJson(tensor, *seen.source));
  out.Set("tensors", std::move(tensors));
  return out;
}

// ---- text

std::string Count(int64_t n) {
  const auto value = static_cast<double>(n);
  if (n >= 1'000'000'000) return Format("{:.2f} G", value / 1e9);
  if (n >= 1'000'000) return Format("{:.2f} M", value / 1e6);
  return Format("{}", n);
}

std::string Line(const char* what, const std::string& value) {
  return Format("{:<14}{}\n", what, value);
}

std::string AttentionText(const model::ModelSpec& spec) {
  const nn::AttentionSpec& a = spec.attention;
  std::string text =
      a.kind == nn::AttentionKind::kMla
          ? Format("MLA, {} heads, latent {} + {} rotary", a.num_heads, a.kv_lora_rank, a.qk_rope_dim)
          : Format("{} heads, {} KV heads of {}", a.num_heads, a.num_kv_heads, a.head_dim);
  int64_t num_windowed = 0, window = 0;
  for (const model::LayerSpec& layer : spec.layers) {
    num_windowed += layer.window > 0;
    window = std::max<int64_t>(window, layer.window);
  }
  if (num_windowed > 0) text += Format(", window of {} in {} layers", window, num_windowed);
  return text;
}

std::string ModelText(const deploy::ModelSetup& setup) {
  const model::ModelSpec& spec = setup.spec;
  const nn::MoeSpec& moe = spec.moe;
  std::string text = Line("architecture", Format("{} ({})", spec.architecture, spec.family));
  text += Line("folder", setup.location.folder);
  text += Line("arithmetic",
               Format("checkpoint {}, computed in {} with {} kernels on {}", DTypeName(spec.checkpoint_type),
                      DTypeName(setup.type), kernels::IsaName(setup.isa), sys::CpuModelName()));
  text += Line("weights", deploy::WeightsText(setup));
  text += Line("layers", Format("{}, {} of them MoE", spec.num_layers(), spec.num_moe_layers()));
  text += Line("hidden", Format("{}", spec.hidden));
  text += Line("attention", AttentionText(spec));
  if (moe.num_experts > 0) {
    text += Line("experts",
                 Format("{} a layer, {} a token, intermediate {}{}", moe.num_experts, moe.top_k, moe.inter,
                        moe.shared_inter > 0 ? Format(", shared {}", moe.shared_inter) : ""));
  }
  if (spec.dense_inter > 0) text += Line("feed-forward", Format("intermediate {}", spec.dense_inter));
  text += Line("vocabulary", Format("{}{}", spec.vocab_size, spec.tie_embeddings ? ", embeddings tied" : ""));
  text += Line("context", Format("{} tokens", spec.max_position));
  return text + Line("parameters", Format("{} ({} active a token)", Count(spec.num_parameters()),
                                          Count(spec.num_active_parameters())));
}

std::string GroupText(const std::vector<TensorGroup>& groups) {
  std::string text = Format("\n{:<20}{:>9}{:>14}{:>12}\n", "tensors", "count", "parameters", "size");
  TensorGroup all{"in all"};
  const auto row = [](const TensorGroup& g) {
    return Format("  {:<18}{:>9}{:>14}{:>12}\n", g.name, g.count, Count(g.parameters), FormatBytes(g.bytes));
  };
  for (const TensorGroup& group : groups) {
    text += row(group);
    all.count += group.count;
    all.parameters += group.parameters;
    all.bytes += group.bytes;
  }
  return text + row(all);
}

std::string RangeText(const model::Range& range) {
  return Format("{}-{}", range.begin, range.end - 1);
}

std::string ShareText(const std::vector<RankShare>& shares) {
  std::string text = Format("\n{:<6}{:>4}{:>4}{:>10}{:>10}{:>9}{:>9}{:>12}{:>12}\n", "rank", "tp", "dp",
                            "heads", "KV heads", "experts", "columns", "dense", "experts");
  for (const RankShare& share : shares) {
    const model::ShardShape& shard = share.plan.shard;
    text +=
        Format("  {:<4}{:>4}{:>4}{:>10}{:>10}{:>9}{:>9}{:>12}{:>12}\n", share.place.rank(),
               share.place.tp_rank, share.place.dp_rank, RangeText(shard.heads), RangeText(shard.kv_heads),
               shard.slots.empty() ? 0 : shard.slots.front().size(), shard.expert_inter.size(),
               FormatBytes(share.plan.dense_bytes), FormatBytes(share.plan.expert_bytes));
  }
  return text;
}

std::string TensorText(const checkpoint::TensorSource& source) {
  std::string text = "\n";
  for (const checkpoint::TensorInfo& tensor : source.tensors()) {
    text += Format("{:<60} {:<9} {:<18} {:>10}  {}\n", tensor.name, DTypeName(tensor.dtype),
                   tensor.ShapeText(), FormatBytes(tensor.num_bytes), source.FileOf(tensor));
  }
  return text;
}

// A terminal's own width is not asked for: 80 columns suit a log and a mail as well.
Status RunLoad(const config::InspectOptions& options) {
  CADRE_ASSIGN(const LoadView view, LookAtLoad(options));
  const bool terminal = isatty(STDOUT_FILENO) == 1;
  const std::string text = options.json ? LoadJson(view).Dump() + "\n"
                                        : LoadText(view, {.color = terminal && options.engine.log_color});
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (options.svg) CADRE_TRY(sys::ReplaceFile(*options.svg, LoadSvg(view)));
  if (options.html) CADRE_TRY(sys::ReplaceFile(*options.html, LoadHtml(view)));
  return {};
}

Status Run(const config::InspectOptions& options) {
  if (options.load) return RunLoad(options);
  CADRE_ASSIGN(const Inspection seen, Look(options.engine));
  std::string text;
  if (options.json) {
    text = ToJson(seen, options).DumpPretty() + "\n";
  } else {
    text = ModelText(seen.setup) + GroupText(seen.groups) + ShareText(seen.shares) + "\n";
    if (seen.memory) text += seen.setup.memory.table + "\n";
    if (options.tensors) text += TensorText(*seen.source);
  }
  WriteModelText(text);  // names in the files are a stranger's words
  return seen.memory;    // shown, and still an error
}

}  // namespace

int Inspect(Args args, const config::Environment& env) {
  return RunParsed(config::ParseInspect, args, env, Run);
}

}  // namespace cadre::app
