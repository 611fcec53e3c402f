#include "deploy/model_setup.h"

#include <algorithm>

#include "a2a/a2a.h"
#include "base/check.h"
#include "deploy/expert_moves.h"
#include "deploy/expert_start.h"
#include "eplb/footprint.h"
#include "model/adapter.h"
#include "model/registry.h"
#include "sys/cpu.h"
#include "sys/memory.h"

namespace cadre::deploy {
namespace {

void Overlay(Json& base, const Json& over) {
  if (!over.is_object()) return;
  if (base.is_null()) base = Json(Json::Object());
  for (const auto& [key, value] : over.AsObject()) {
    Json* found = base.Find(key);
    if (found != nullptr && found->is_object() && value.is_object()) {
      Overlay(*found, value);
    } else {
      base.Set(key, value);
    }
  }
}

// A config.json stands for its folder.
std::string FolderOf(const std::string& model) {
  constexpr std::string_view kConfig = "config.json";
  if (model == kConfig) return ".";
  const bool file = model.ends_with(Format("/{}", kConfig));
  return file ? model.substr(0, std::max<size_t>(model.size() - kConfig.size() - 1, 1)) : model;
}

Status ReadFiles(const config::ModelOptions& options, ModelSetup& setup) {
  CADRE_ASSIGN(setup.location, checkpoint::LocateModel(FolderOf(options.model), options.revision.value_or(""),
                                                       {.hf_hub_cache = options.hub_cache}));
  CADRE_ASSIGN(setup.files, checkpoint::ReadModelFiles(setup.location.folder));
  Overlay(setup.files.config, options.hf_overrides);
  if (options.generation_config == "vllm") {
    setup.files.generation_config = Json();
  } else if (options.generation_config != "auto") {
    CADRE_ASSIGN(auto other, checkpoint::ReadModelFiles(options.generation_config));
    setup.files.generation_config = std::move(other.generation_config);
  }
  Overlay(setup.files.generation_config, options.override_generation_config);
  CADRE_ASSIGN(setup.spec, model::ReadModelSpec(setup.files.config, setup.files.generation_config));
  return {};
}

// What the flag says and what the checkpoint says must agree.
Status ChooseQuantization(const std::string& flag, ModelSetup& setup) {
  const model::QuantSpec& quant = setup.spec.quant;
  setup.fp8 = quant.fp8() || flag == "fp8";
  if (flag.empty() || flag == quant.method || (flag == "fp8" && !quant.fp8())) return {};
  if (!quant.fp8()) {
    return FailParam(
        Code::kInvalidArgument, "--quantization",
        "--quantization {} wants a checkpoint of that kind; {} has no quantization_config in its "
        "config.json. --quantization fp8 makes fp8 of its {} weights while loading",
        flag, setup.location.name, DTypeName(setup.spec.checkpoint_type));
  }
  return FailParam(
      Code::kInvalidArgument, "--quantization",
      "--quantization {} does not match the checkpoint: quantization_config in its config.json says {}. "
      "Leave the flag out",
      flag, quant.method);
}

Status ChooseArithmetic(const config::EngineOptions& options, ModelSetup& setup) {
  setup.type = options.model.dtype == "float32" ? DType::kF32 : DType::kBf16;
  CADRE_TRY(ChooseQuantization(options.model.quantization, setup));
  if (options.cache.kv_cache_dtype == "bfloat16" && setup.type == DType::kF32) {
    return FailParam(Code::kUnsupported, "--kv-cache-dtype",
                     "--kv-cache-dtype bfloat16 with --dtype float32 is not built; leave it auto");
  }
  if (options.cpu.isa == "auto") {
    setup.isa = kernels::BestIsa();
    return {};
  }
  CADRE_ASSIGN(setup.isa, kernels::ParseIsa(options.cpu.isa));
  if (!kernels::IsaSupported(setup.isa)) {
    return FailParam(Code::kInvalidArgument, "CADRE_ISA",
                     "CADRE_ISA={} asks for instructions that this CPU ({}) lacks; "
                     "the fastest it has is {}",
                     options.cpu.isa, sys::CpuModelName(), kernels::IsaName(kernels::BestIsa()));
  }
  return {};
}

// Threads and their CPUs for each local rank. More threads than CPUs: one thread a rank, unpinned, no
// spinning.
Status ChooseThreads(const config::EngineOptions& options, int num_ranks, ModelSetup& setup) {
  using Bind = config::CpuOptions::Bind;
  const config::CpuOptions& cpu = options.cpu;
  if (num_ranks == 0) return {};
  if (cpu.bind == Bind::kList) {
    if (static_cast<int>(cpu.cpus_of_rank.size()) != num_ranks) {
      return FailParam(
          Code::kInvalidArgument, "VLLM_CPU_OMP_THREADS_BIND",
          "VLLM_CPU_OMP_THREADS_BIND lists CPUs for {} rank(s) and there are {}; separate ranks by '|'",
          cpu.cpus_of_rank.size(), num_ranks);
    }
    setup.cpus_of_rank = cpu.cpus_of_rank;
    size_t fewest = cpu.cpus_of_rank.front().size();
    for (const auto& cpus : cpu.cpus_of_rank) fewest = std::min(fewest, cpus.size());
    setup.threads_per_rank = cpu.threads.value_or(static_cast<int>(fewest));
    setup.spin = setup.threads_per_rank <= static_cast<int>(fewest);
    return {};
  }
  std::vector<int> cores = sys::OneCpuPerCore(sys::AllowedCpus());
  const int usable =
      std::max(1, std::min<int>(static_cast<int>(cores.size()), sys::UsableCpus()) - cpu.num_reserved_cpus);
  cores.resize(std::min(cores.size(), static_cast<size_t>(usable)));
  setup.threads_per_rank = cpu.threads.value_or(std::max(1, usable / num_ranks));
  const bool fits = setup.threads_per_rank * num_ranks <= usable;
  setup.spin = fits;
  // With a CPU quota below the number of cores, pinning would only get in the scheduler's way.
  const bool pin = fits && cpu.bind == Bind::kAuto && usable == static_cast<int>(cores.size()) &&
                   cores.size() == sys::OneCpuPerCore(sys::AllowedCpus()).size() -
                                       static_cast<size_t>(cpu.num_reserved_cpus);
  for (int rank = 0; pin && rank < num_ranks; ++rank) {
    const auto first = cores.begin() + rank * setup.threads_per_rank;
    setup.cpus_of_rank.emplace_back(first, first + setup.threads_per_rank);
  }
  return {};
}

Status ChooseModelLen(const config::EngineOptions& options, ModelSetup& setup) {
  const int64_t own = setup.spec.max_position;
  const int64_t asked = options.model.max_model_len.value_or(own);
  setup.max_model_len = asked == config::kAutoModelLen ? own : asked;
  if (setup.max_model_len > own && !options.model.allow_long_max_model_len) {
    return FailParam(
        Code::kInvalidArgument, "--max-model-len",
        "--max-model-len {} is more than the model's own {} (max_position_embeddings in config.json); "
        "answers past it are unreliable. VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 permits it",
        setup.max_model_len, own);
  }
  return {};
}

// Chooses the longest context whose KV cache fits, for --max-model-len auto.
Result<engine::MemoryPlan> PlanForAutoLen(ModelSetup& setup) {
  auto plan = engine::MakeMemoryPlan(setup.memory_input);
  while (!plan && plan.error().code == Code::kResourceExhausted && setup.max_model_len > 64) {
    setup.max_model_len /= 2;
    setup.memory_input.max_model_len = setup.max_model_len;
    plan = engine::MakeMemoryPlan(setup.memory_input);
  }
  return plan;
}

int64_t MaxStepTokens(const ModelSetup& setup, const config::EngineOptions& options) {
  return std::min<int64_t>(options.scheduler.max_num_batched_tokens,
                           options.scheduler.max_num_seqs * setup.max_model_len);
}

// The other nodes are not known yet: for the plan they are taken to be as large as this one.
std::vector<int> RanksPerHost(const config::Launch& launch) {
  std::vector<int> hosts;
  if (launch.num_local_ranks == launch.num_ranks) return hosts;
  for (int left = launch.num_ranks; left > 0; left -= launch.num_local_ranks)
    hosts.push_back(std::min(left, launch.num_local_ranks));
  return hosts;
}

}  // namespace

std::string WeightsText(const ModelSetup& setup) {
  const model::QuantSpec& quant = setup.spec.quant;
  if (!setup.fp8) return DTypeName(setup.type);
  if (!quant.fp8()) return "fp8 (e4m3), a scale a row";
  const std::string scales = quant.block_rows > 0
                                 ? Format("a scale for each {} x {}", quant.block_rows, quant.block_cols)
                                 : "a scale for each tensor or row";
  return Format("fp8 (e4m3), {}, as published ({})", scales, quant.method);
}

namespace {

// Of one token: an expert's number for each choice in each layer.
int64_t RoutingBytesOf(const ModelSetup& setup, const config::EngineOptions& options) {
  if (!options.model.return_routed_experts) return 0;
  return static_cast<int64_t>(sizeof(uint16_t)) * std::ssize(setup.expert_maps) * setup.spec.moe.top_k;
}

}  // namespace

// The largest sizes over all ranks: ranks with more experts, or one more head row, decide.
Status PlanMemory(const config::EngineOptions& options, const sys::MemoryInfo& host, ModelSetup& setup) {
  const config::ParallelOptions& parallel = options.parallel;
  const config::Launch& launch = setup.launch;
  const auto& maps = setup.expert_maps;
  engine::MemoryPlanInput& in = setup.memory_input;
  in = {};
  setup.memory = {};
  in.kv = KvLayoutOf(setup.spec, parallel.tensor_parallel_size, options.cache.block_size, setup.type);
  in.kv.note_bytes = RoutingBytesOf(setup, options);
  CADRE_ASSIGN(const model::DecoderOptions decoder, DecoderOptionsOf(setup, options));
  for (int rank = launch.first_rank; rank < launch.first_rank + launch.num_local_ranks; ++rank) {
    const RankPlace place = PlaceOf(parallel, rank);
    const auto layout = WeightLayoutOf(setup, parallel, place, maps);
    CADRE_ASSIGN(const model::WeightPlan plan, model::PlanWeights(setup.spec, layout));
    in.dense_bytes = std::max(in.dense_bytes, plan.dense_bytes);
    in.expert_bytes = std::max(in.expert_bytes, plan.expert_bytes);
    const model::ModelWeights shapes = model::PlaceWeights(setup.spec, plan, nullptr, nullptr);
    const int64_t scratch = model::Decoder::ScratchBytes(setup.spec, shapes, decoder);
    in.buffer_bytes = std::max(in.buffer_bytes, scratch);
    if (options.lora.enabled) {
      const int64_t adapter = model::AdapterBytes(setup.spec, plan, options.lora.max_rank);
      in.adapter_bytes = std::max(in.adapter_bytes, adapter * options.lora.num_planned());
    }
  }
  CADRE_ASSIGN(setup.expert_places, PlacesOf(parallel, setup));
  if (setup.expert_places.place_bytes > 0) {
    // The first rank here has as many slots as any here.
    const eplb::ExpertMap& map = maps.front();
    const eplb::Footprint footprint =
        eplb::FootprintOf(launch.first_rank, launch.num_ranks, static_cast<int32_t>(maps.size()),
                          map.num_experts(), map.layout().num_slots - map.num_experts(),
                          setup.expert_places.place_bytes, setup.expert_places.num_spares);
    CADRE_CHECK(footprint.slot_bytes == in.expert_bytes);
    in.redundant_bytes = footprint.redundant_bytes;
    in.spare_bytes = footprint.spare_bytes;
  }
  if (setup.is_moe() && launch.num_ranks > 1) {
    CADRE_ASSIGN(in.exchange_bytes,
                 a2a::PhasedBufferBytes(ExchangeOptionsOf(setup, options, maps.front().layout()),
                                        parallel.prefill_backend(), parallel.decode_backend()));
  }
  in.total_bytes = host.total();
  in.total_source = host.limited_by;
  in.weight_copy = options.model.weight_update_copy;
  in.utilization = options.cache.gpu_memory_utilization;
  in.num_local_ranks = launch.num_local_ranks;
  // Data-parallel ranks share one copy of each shard.
  in.num_local_replicas = std::min(parallel.tensor_parallel_size, launch.num_local_ranks);
  in.max_model_len = setup.max_model_len;
  in.max_num_seqs = options.scheduler.max_num_seqs;
  in.kv_cache_bytes = options.cache.kv_cache_memory_bytes;
  in.num_kv_blocks = options.cache.num_gpu_blocks_override;
  const bool choose_len = options.model.max_model_len == config::kAutoModelLen;
  CADRE_ASSIGN(setup.memory, choose_len ? PlanForAutoLen(setup) : engine::MakeMemoryPlan(in));
  return {};
}

Status PlanMemory(const config::EngineOptions& options, ModelSetup& setup) {
  CADRE_ASSIGN(const sys::MemoryInfo memory, sys::ReadMemoryInfo());
  return PlanMemory(options, memory, setup);
}

RankPlace PlaceOf(const config::ParallelOptions& parallel, int rank) {
  return {.tp_rank = rank % parallel.tensor_parallel_size,
          .tp_size = parallel.tensor_parallel_size,
          .dp_rank = rank / parallel.tensor_parallel_size,
          .dp_size = parallel.data_parallel_size};
}

model::WeightLayout WeightLayoutOf(const ModelSetup& setup, const config::ParallelOptions& parallel,
                                   RankPlace place, const std::vector<eplb::ExpertMap>& maps) {
  model::WeightLayout layout{.type = setup.type,
                             .fp8 = setup.fp8,
                             .tp_rank = place.tp_rank,
                             .tp_size = place.tp_size,
                             .ep_rank = place.rank(),
                             .ep_size = place.num_ranks(),
                             .enable_ep = parallel.enable_expert_parallel || place.num_ranks() == 1};
  if (!layout.enable_ep) return layout;
  for (const eplb::ExpertMap& map : maps) {
    const auto experts = map.ExpertsOn(place.rank());
    layout.slots.emplace_back(experts.begin(), experts.end());
  }
  return layout;
}

Result<model::DecoderOptions> DecoderOptionsOf(const ModelSetup& setup,
                                               const config::EngineOptions& options) {
  model::DecoderOptions decoder{.max_num_tokens = MaxStepTokens(setup, options)};
  if (options.lora.enabled) decoder.max_adapter_rank = options.lora.max_rank;
  if (!setup.is_moe()) return decoder;
  a2a::Options exchange = ExchangeOptionsOf(setup, options, setup.expert_maps.front().layout());
  for (const std::string& backend : {options.parallel.prefill_backend(), options.parallel.decode_backend()}) {
    exchange.backend = backend;
    CADRE_ASSIGN(const int64_t rows, a2a::MaxTableRows(exchange));
    decoder.max_expert_rows = std::max(decoder.max_expert_rows, rows);
  }
  return decoder;
}

a2a::Options ExchangeOptionsOf(const ModelSetup& setup, const config::EngineOptions& options,
                               const eplb::SlotLayout& layout) {
  // The ranks of a replica share its rows out.
  const int64_t tp_size = options.parallel.tensor_parallel_size;
  return {.hidden = setup.spec.hidden,
          .act_type = setup.type,
          .top_k = setup.spec.moe.top_k,
          .max_rows = (MaxStepTokens(setup, options) + tp_size - 1) / tp_size,
          .layout = layout,
          .ranks_per_host = RanksPerHost(setup.launch),
          .fp8_dispatch = options.parallel.all2all_fp8_dispatch && layout.num_ranks > 1};
}

kv::Layout KvLayoutOf(const model::ModelSpec& spec, int tp_size, int block_size, DType type) {
  const nn::AttentionSpec& attention = spec.attention;
  const bool latent = attention.kind == nn::AttentionKind::kMla;
  return {.num_layers = spec.num_layers(),
          .num_kv_heads = latent ? 1 : std::max(attention.num_kv_heads / tp_size, 1),
          .k_dim = attention.cache_k_dim(),
          .v_dim = attention.cache_v_dim(),
          .latent = latent,
          .block_size = block_size,
          .type = type};
}

Result<ModelSetup> ReadModel(const config::EngineOptions& options) {
  ModelSetup setup;
  CADRE_TRY(ReadFiles(options.model, setup));
  CADRE_TRY(ChooseArithmetic(options, setup));
  CADRE_TRY(ChooseModelLen(options, setup));
  if (options.cache.block_size % 16 != 0) {
    return FailParam(Code::kInvalidArgument, "--block-size", "--block-size {} is not a multiple of 16",
                     options.cache.block_size);
  }
  return setup;
}

Status LayOut(const config::EngineOptions& options, ModelSetup& setup) {
  CADRE_ASSIGN(setup.launch, config::ResolveLaunch(options.parallel));
  CADRE_ASSIGN(setup.expert_maps, StartMaps(options.parallel, setup));
  setup.cpus_of_rank.clear();
  return ChooseThreads(options, setup.launch.num_local_ranks, setup);
}

Result<ModelSetup> DescribeModel(const config::EngineOptions& options) {
  CADRE_ASSIGN(ModelSetup setup, ReadModel(options));
  CADRE_TRY(LayOut(options, setup));
  return setup;
}

Result<ModelSetup> PrepareModel(const config::EngineOptions& options) {
  CADRE_ASSIGN(ModelSetup setup, DescribeModel(options));
  if (setup.launch.num_local_ranks > 0) {
    CADRE_TRY(PlanMemory(options, setup));
  }
  return setup;
}

}  // namespace cadre::deploy
