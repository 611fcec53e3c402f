// What helps where a plan does not fit: the guides' list ("use fp8, increase the EP degree, reduce
// max_model_len, more decode replicas"), each tried with the same code and told with its number.
#include <algorithm>

#include "deploy/deployment_plan.h"

namespace cadre::deploy {
namespace {

constexpr int kMostHosts = 1024;

struct Question {
  const config::PlanOptions& options;
  const ModelSetup& base;
  const sys::MemoryInfo& host;
  const LayoutPlan& plan;
};

std::string Short(const LayoutPlan& plan, const config::PlanOptions& options) {
  return Format("a host needs {}, and {} are allowed",
                DecimalBytes(plan.NeededHostBytes(options.concurrency)),
                DecimalBytes(plan.setup.memory_input.Budget()));
}

// Where another layout is needed for it, that is said too.
std::string OtherLayout(const Question& q, const LayoutPlan& plan) {
  const Layout &now = q.plan.layout, &then = plan.layout;
  if (now.ranks_per_host == then.ranks_per_host && now.tp == then.tp) return "";
  return Format(", with {} rank(s) a host{}", then.ranks_per_host,
                then.tp > 1 ? Format(" and TP {}", then.tp) : "");
}

std::string Room(const Question& q, const LayoutPlan& plan) {
  return Format("room for {:.1f} sequences of {} tokens{}", plan.Concurrency(), plan.setup.max_model_len,
                OtherLayout(q, plan));
}

// The fewest hosts, more than now, on which the model fits; nothing up to 1,024.
std::optional<LayoutPlan> FewestHosts(const Question& q, const ModelSetup& base) {
  const auto try_hosts = [&](int hosts) -> std::optional<LayoutPlan> {
    auto plan = FindLayout(q.options, base, q.host, hosts);
    if (!plan || !plan->fits) return std::nullopt;
    return *std::move(plan);
  };
  int low = q.plan.num_hosts;
  std::optional<LayoutPlan> best;
  for (int high = low; !best && high < kMostHosts;) {
    low = high;
    high = std::min(high * 2, kMostHosts);
    best = try_hosts(high);
  }
  while (best && best->num_hosts - low > 1) {
    const int middle = low + (best->num_hosts - low) / 2;
    if (auto plan = try_hosts(middle)) {
      best = std::move(plan);
    } else {
      low = middle;
    }
  }
  return best;
}

// Of a host, copies left out.
int64_t OfExperts(const engine::MemoryPlanInput& in) {
  return (in.expert_bytes - in.redundant_bytes) * in.num_local_ranks;
}

void AddFp8(const Question& q, std::vector<Remedy>& remedies) {
  if (q.base.fp8) return;
  ModelSetup fp8 = q.base;
  fp8.fp8 = true;
  auto plan = FindLayout(q.options, fp8, q.host, q.plan.num_hosts);
  if (!plan) return;
  const engine::MemoryPlanInput &before = q.plan.setup.memory_input, &after = plan->setup.memory_input;
  Remedy remedy{.name = "fp8", .flags = "--quantization fp8", .text = {}, .fits = plan->fits.has_value()};
  remedy.number = plan->NeededHostBytes(q.options.concurrency);
  remedy.text = Format("experts of a host shrink from {} to {}: ", DecimalBytes(OfExperts(before)),
                       DecimalBytes(OfExperts(after)));
  remedy.text +=
      plan->fits ? Format("fits, {}", Room(q, *plan)) : Format("still too much, {}", Short(*plan, q.options));
  remedies.push_back(remedy);
  if (plan->fits) return;
  if (const auto more = FewestHosts(q, fp8)) {
    remedies.push_back({.name = "fp8_hosts",
                        .flags = Format("--quantization fp8 --hosts {}", more->num_hosts),
                        .text = Format("fits in fp8 on {} hosts, {}", more->num_hosts, Room(q, *more)),
                        .fits = true,
                        .number = more->num_hosts});
  }
}

void AddHosts(const Question& q, std::vector<Remedy>& remedies) {
  const auto more = FewestHosts(q, q.base);
  if (!more) {
    remedies.push_back(
        {.name = "hosts",
         .flags = "--hosts",
         .text = Format("no number of hosts up to {} is enough: what each of them holds by itself "
                        "(dense layers, buffers, one sequence) is too much",
                        kMostHosts)});
    return;
  }
  const Layout& layout = more->layout;
  remedies.push_back({.name = "hosts",
                      .flags = Format("--hosts {}", more->num_hosts),
                      .text = Format("{} hosts instead of {}{}: fits, {}", more->num_hosts, q.plan.num_hosts,
                                     layout.ep ? Format(" (EP {})", layout.num_ranks()) : "", Room(q, *more)),
                      .fits = true,
                      .number = more->num_hosts});
  auto next = more->num_hosts < kMostHosts ? FindLayout(q.options, q.base, q.host, more->num_hosts + 1)
                                           : Result<LayoutPlan>(*more);
  if (!next || !next->fits || next->Concurrency() <= more->Concurrency()) return;
  const double gain = next->Concurrency() - more->Concurrency();
  remedies.push_back(
      {.name = "replicas",
       .flags = Format("--hosts {}", more->num_hosts + 1),
       .text = Format("more decode replicas: beyond {} hosts each further one brings {:.1f} sequences "
                      "of {} tokens",
                      more->num_hosts, gain, q.plan.setup.max_model_len),
       .fits = true,
       .number = more->num_hosts + 1});
}

// The longest context that fits, tried with the very plan of a start.
void AddContext(const Question& q, std::vector<Remedy>& remedies) {
  engine::MemoryPlanInput in = q.plan.setup.memory_input;
  const int64_t block = in.kv.block_size;
  const int64_t of_replica =
      std::max<int64_t>((q.options.concurrency.value_or(1) + q.plan.layout.dp - 1) / q.plan.layout.dp, 1);
  in.max_model_len = block * of_replica;
  in.max_num_seqs = (q.plan.setup.spec.max_position + block - 1) / block;
  const auto most = engine::MakeMemoryPlan(in);
  Remedy remedy{.name = "context", .flags = "--max-model-len", .text = {}};
  const int64_t tokens = most ? most->num_kv_blocks / of_replica * block : 0;
  if (tokens >= q.plan.setup.max_model_len) return;  // the cache is not what lacks
  if (tokens > 0) {
    config::PlanOptions options = q.options;
    ModelSetup shorter = q.base;
    shorter.max_model_len = tokens;
    options.engine.model.max_model_len = tokens;
    const auto plan = TryLayout(options, shorter, q.host, q.plan.num_hosts, q.plan.layout);
    remedy.fits = plan && plan->fits;
  }
  if (remedy.fits) {
    remedy.number = tokens;
    remedy.flags = Format("--max-model-len {}", tokens);
    remedy.text = Format("a context of {} tokens instead of {} fits as the hosts are", tokens,
                         q.plan.setup.max_model_len);
  } else {
    remedy.text = Format("no context is short enough: without any cache {} are needed, and {} are allowed",
                         DecimalBytes(in.BytesWithoutKv()), DecimalBytes(in.Budget()));
  }
  remedies.push_back(remedy);
}

void AddUtilization(const Question& q, std::vector<Remedy>& remedies) {
  constexpr double kHigh = 0.95;  // the guides' example
  if (q.options.engine.cache.gpu_memory_utilization >= kHigh) return;
  config::PlanOptions options = q.options;
  options.engine.cache.gpu_memory_utilization = kHigh;
  const auto plan = FindLayout(options, q.base, q.host, q.plan.num_hosts);
  if (!plan || !plan->fits) return;
  remedies.push_back({.name = "utilization",
                      .flags = "--gpu-memory-utilization 0.95",
                      .text = Format("0.95 of each host's memory instead of {}: fits, {}",
                                     q.options.engine.cache.gpu_memory_utilization, Room(q, *plan)),
                      .fits = true});
}

// Steps of fewer tokens take smaller buffers; only told where that is enough.
void AddSmallerSteps(const Question& q, std::vector<Remedy>& remedies) {
  config::PlanOptions options = q.options;
  config::SchedulerOptions& scheduler = options.engine.scheduler;
  const int64_t tokens = std::max<int64_t>(512, scheduler.max_num_seqs);
  if (scheduler.max_num_batched_tokens <= tokens || !scheduler.enable_chunked_prefill) return;
  scheduler.max_num_batched_tokens = tokens;
  const auto plan = FindLayout(options, q.base, q.host, q.plan.num_hosts);
  if (!plan || !plan->fits) return;
  remedies.push_back({.name = "steps",
                      .flags = Format("--max-num-batched-tokens {}", tokens),
                      .text = Format("smaller steps, smaller buffers: fits, {}", Room(q, *plan)),
                      .fits = true,
                      .number = tokens});
}

// The least memory, in whole GiB, with which such hosts would do.
void AddMemory(const Question& q, std::vector<Remedy>& remedies) {
  constexpr int64_t kGiB = 1 << 30;
  const double needed = static_cast<double>(q.plan.NeededHostBytes(q.options.concurrency)) /
                        q.options.engine.cache.gpu_memory_utilization;
  std::optional<LayoutPlan> best;
  const auto fits = [&](int64_t gib) {
    const sys::MemoryInfo host = {.host_total = gib * kGiB, .limited_by = "--memory-per-host"};
    auto plan = FindLayout(q.options, q.base, host, q.plan.num_hosts);
    if (!plan || !plan->fits) return false;
    best = *std::move(plan);
    return true;
  };
  int64_t low = q.host.total() / kGiB, high = static_cast<int64_t>(needed / kGiB) + 2;
  if (!fits(high)) return;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (fits(middle) ? high : low) = middle;
  }
  remedies.push_back(
      {.name = "memory",
       .flags = Format("--memory-per-host {}G", high),
       .text = Format("hosts with {} GiB ({}) each: {}", high, DecimalBytes(high * kGiB), Room(q, *best)),
       .fits = true,
       .number = high * kGiB});
}

}  // namespace

Result<std::vector<Remedy>> RemediesFor(const config::PlanOptions& options, const ModelSetup& base,
                                        const sys::MemoryInfo& host, const LayoutPlan& plan) {
  const Question question{.options = options, .base = base, .host = host, .plan = plan};
  std::vector<Remedy> remedies;
  AddFp8(question, remedies);
  AddHosts(question, remedies);
  AddContext(question, remedies);
  AddUtilization(question, remedies);
  AddSmallerSteps(question, remedies);
  AddMemory(question, remedies);
  return remedies;
}

}  // namespace cadre::deploy
