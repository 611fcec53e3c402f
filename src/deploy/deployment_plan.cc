#include "deploy/deployment_plan.h"

#include <algorithm>

#include "checkpoint/source.h"
#include "sys/cpu.h"

namespace cadre::deploy {
namespace {

bool Said(const config::PlanOptions& options, const char* flag) {
  return std::ranges::find(options.given, flag) != options.given.end();
}

LayoutWishes WishesOf(const config::PlanOptions& options, int num_hosts) {
  const config::ParallelOptions& p = options.engine.parallel;
  LayoutWishes wishes;
  if (Said(options, "tensor-parallel-size")) wishes.tp = p.tensor_parallel_size;
  // A remedy asks for other numbers of hosts than the wish was made for; ranks a host then stay.
  if (Said(options, "data-parallel-size") && num_hosts == options.hosts) wishes.dp = p.data_parallel_size;
  wishes.ranks_per_host = options.ranks_per_host;
  if (Said(options, "enable-expert-parallel") || p.enable_expert_parallel)
    wishes.ep = p.enable_expert_parallel;
  if (Said(options, "enable-eplb")) wishes.eplb = p.enable_eplb;
  if (options.eplb_config.Find("num_redundant_experts") != nullptr)
    wishes.redundant = p.eplb.num_redundant_experts;
  if (Said(options, "all2all-backend")) wishes.prefill_backend = wishes.decode_backend = p.all2all_backend;
  if (p.prefill_all2all_backend) wishes.prefill_backend = p.prefill_all2all_backend;
  if (p.decode_all2all_backend) wishes.decode_backend = p.decode_all2all_backend;
  return wishes;
}

Result<model::WeightPlan> WholeWeights(const ModelSetup& base) {
  return model::PlanWeights(base.spec, {.type = base.type, .fp8 = base.fp8, .enable_ep = true});
}

Result<ModelTraits> TraitsOf(const ModelSetup& base) {
  CADRE_ASSIGN(const model::WeightPlan whole, WholeWeights(base));
  const nn::AttentionSpec& attention = base.spec.attention;
  return ModelTraits{.dense_bytes = whole.dense_bytes,
                     .expert_bytes = whole.expert_bytes,
                     .num_experts = base.spec.moe.num_experts,
                     .num_heads = attention.num_heads,
                     .num_kv_heads = attention.num_kv_heads,
                     .latent = attention.kind == nn::AttentionKind::kMla};
}

Layout WithoutCopies(Layout layout) {
  if (layout.redundant > 0) {
    std::erase_if(layout.reasons, [](const std::string& r) { return r.find("copies") != r.npos; });
    layout.reasons.push_back("no copies of experts: there is no memory to spare for them");
  }
  layout.eplb = false;
  layout.redundant = 0;
  return layout;
}

// Copies that nobody asked for are left out where memory lacks.
bool MayDropCopies(const LayoutWishes& wishes, const Layout& layout) {
  return layout.eplb && !wishes.eplb.value_or(false) && !wishes.redundant;
}

// What else is tried where the proposal does not fit, in this order.
std::vector<Layout> Variants(const ModelTraits& model, const LayoutWishes& wishes, const Layout& proposed) {
  std::vector<Layout> variants;
  const bool may_drop = MayDropCopies(wishes, proposed);
  const Layout plain = may_drop ? WithoutCopies(proposed) : proposed;
  if (may_drop) variants.push_back(plain);
  const int ranks = plain.ranks_per_host;
  if (!wishes.tp && !model.latent) {
    for (int tp = plain.tp * 2; tp <= ranks; tp *= 2) {
      if (ranks % tp != 0 || !HeadsDivide(model, tp)) continue;
      Layout split = plain;
      split.dp = plain.num_ranks() / tp;
      split.tp = tp;
      split.reasons.push_back(
          Format("TP {} (EP + TP): one sequence's cache is more than one rank's share, so "
                 "its heads are split over {} ranks",
                 tp, tp));
      variants.push_back(std::move(split));
    }
  }
  if (wishes.ranks_per_host || wishes.dp) return variants;
  const int num_hosts = plain.num_ranks() / ranks;
  for (int fewer = ranks / 2; fewer >= plain.tp; fewer /= 2) {
    if (fewer % plain.tp != 0) continue;
    Layout small = plain;
    small.ranks_per_host = fewer;
    small.dp = fewer * num_hosts / plain.tp;
    small.ep = plain.ep && small.num_ranks() > 1;
    small.reasons.push_back(Format("{} rank(s) a host: fewer buffers, and more cache for each", fewer));
    variants.push_back(std::move(small));
  }
  return variants;
}

void SetParallel(const config::PlanOptions& given, const Layout& layout, int num_hosts,
                 config::ParallelOptions& parallel) {
  parallel.tensor_parallel_size = layout.tp;
  parallel.data_parallel_size = layout.dp;
  parallel.enable_expert_parallel = layout.ep;
  parallel.enable_eplb = layout.eplb;
  parallel.eplb.num_redundant_experts = layout.redundant;
  if (!layout.prefill_backend.empty()) {
    parallel.all2all_backend = layout.decode_backend;
    parallel.prefill_all2all_backend = layout.prefill_backend;
    parallel.decode_all2all_backend = layout.decode_backend;
  }
  if (num_hosts > 1) {
    parallel.data_parallel_size_local = layout.ranks_per_host / layout.tp;
    parallel.data_parallel_address = given.engine.parallel.data_parallel_address.value_or("FIRST_HOST");
  }
}

bool IsEnough(const LayoutPlan& plan, const config::PlanOptions& options) {
  return plan.fits && plan.Concurrency() >= static_cast<double>(options.concurrency.value_or(0));
}

}  // namespace

double LayoutPlan::Concurrency() const {
  if (!fits) return 0;
  return layout.dp * setup.memory.Concurrency(setup.memory_input);
}

int64_t LayoutPlan::NeededHostBytes(std::optional<int64_t> concurrency) const {
  const engine::MemoryPlanInput& in = setup.memory_input;
  const int64_t of_replica = concurrency ? (*concurrency + layout.dp - 1) / layout.dp : 1;
  const int64_t sequence = in.SequenceBytes() + Times(in.kv.note_bytes, in.max_model_len + in.kv.block_size);
  return in.BytesWithoutKv() + Times(sequence, Times(std::max<int64_t>(of_replica, 1), in.num_local_ranks));
}

Result<LayoutPlan> TryLayout(const config::PlanOptions& options, const ModelSetup& base,
                             const sys::MemoryInfo& host, int num_hosts, const Layout& layout) {
  LayoutPlan plan{
      .layout = layout, .options = options.engine, .setup = base, .fits = {}, .num_hosts = num_hosts};
  SetParallel(options, layout, num_hosts, plan.options.parallel);
  CADRE_TRY(LayOut(plan.options, plan.setup));
  plan.fits = PlanMemory(plan.options, host, plan.setup);
  if (!plan.fits && plan.fits.error().code != Code::kResourceExhausted)
    return std::unexpected(plan.fits.error());
  if (plan.fits && !IsEnough(plan, options)) {
    plan.fits =
        Fail(Code::kResourceExhausted,
             "there is room for {:.1f} sequences of {} tokens over all hosts, and --concurrency asks for {}",
             plan.Concurrency(), plan.setup.max_model_len, options.concurrency.value_or(0));
  }
  return plan;
}

Result<LayoutPlan> FindLayout(const config::PlanOptions& options, const ModelSetup& base,
                              const sys::MemoryInfo& host, int num_hosts) {
  CADRE_ASSIGN(const ModelTraits model, TraitsOf(base));
  const LayoutWishes wishes = WishesOf(options, num_hosts);
  CADRE_ASSIGN(const PlanTarget target, ParsePlanTarget(options.target));
  CADRE_ASSIGN(
      const Layout proposed,
      ChooseLayout(model, {.num_hosts = num_hosts, .cores = options.cores_per_host}, target, wishes));
  CADRE_ASSIGN(LayoutPlan first, TryLayout(options, base, host, num_hosts, proposed));
  const std::vector<Layout> variants = Variants(model, wishes, proposed);
  if (first.fits) {
    // Copies are dear where they take half of the cache.
    if (!MayDropCopies(wishes, proposed)) return first;
    auto plain = TryLayout(options, base, host, num_hosts, variants.front());
    if (plain && plain->fits && plain->Concurrency() > 2 * first.Concurrency()) return plain;
    return first;
  }
  std::optional<LayoutPlan> plain;
  for (const Layout& variant : variants) {
    auto tried = TryLayout(options, base, host, num_hosts, variant);
    if (!tried) continue;
    if (tried->fits) return tried;
    if (!plain && variant.tp == proposed.tp && variant.dp == proposed.dp) plain = std::move(*tried);
  }
  if (plain) return *std::move(plain);
  return first;
}

int64_t Times(int64_t a, int64_t b) {
  constexpr int64_t kMost = int64_t{1} << 60;
  int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? kMost : std::min(product, kMost);
}

std::string DecimalBytes(int64_t bytes) {
  const auto b = static_cast<double>(bytes);
  if (b >= 1e12) return Format("{:.2f} TB", b / 1e12);
  if (b >= 100e9) return Format("{:.0f} GB", b / 1e9);
  if (b >= 10e9) return Format("{:.1f} GB", b / 1e9);
  if (b >= 100e6) return Format("{:.2f} GB", b / 1e9);
  if (b >= 1e6) return Format("{:.1f} MB", b / 1e6);
  return Format("{:.1f} kB", b / 1e3);
}

Result<DeploymentPlan> PlanDeployment(const config::PlanOptions& asked) {
  config::PlanOptions options = asked;
  DeploymentPlan plan{.chosen = {}, .whole = {}, .host = {}, .cores = {}, .remedies = {}, .lines = {}};
  if (options.memory_per_host) {
    plan.host = {.host_total = *options.memory_per_host, .limited_by = "--memory-per-host"};
  } else {
    CADRE_ASSIGN(plan.host, sys::ReadMemoryInfo());
    if (!options.cores_per_host) {
      const auto cores = static_cast<int>(sys::OneCpuPerCore(sys::AllowedCpus()).size());
      options.cores_per_host = std::min(cores, sys::UsableCpus());
    }
  }
  plan.cores = options.cores_per_host;
  CADRE_ASSIGN(const ModelSetup base, ReadModel(options.engine));
  const auto files = checkpoint::OpenCheckpoint(base.location.folder);
  plan.has_weights = files.has_value();
  CADRE_ASSIGN(plan.whole, WholeWeights(base));
  CADRE_ASSIGN(plan.chosen, FindLayout(options, base, plan.host, static_cast<int>(options.hosts)));
  if (!plan.chosen.fits) {
    CADRE_ASSIGN(plan.remedies, RemediesFor(options, base, plan.host, plan.chosen));
  } else {
    plan.lines = LaunchLinesOf(options, plan.chosen);
  }
  return plan;
}

}  // namespace cadre::deploy
