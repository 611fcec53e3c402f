// cadre demo: one layer with expert parallelism, drawn on the terminal.
#include <cstdio>

#include "app/bench_report.h"
#include "app/demo/drawing.h"
#include "app/demo/python.h"
#include "app/demo/ranks.h"
#include "app/run.h"
#include "sys/cpu.h"
#include "sys/gpus.h"

namespace cadre::app {
namespace {

using config::DemoOptions;

Result<kernels::Isa> ChooseIsa(const DemoOptions& options) {
  if (options.cpu.isa == "auto") return kernels::BestIsa();
  CADRE_ASSIGN(const kernels::Isa isa, kernels::ParseIsa(options.cpu.isa));
  if (kernels::IsaSupported(isa)) return isa;
  return FailParam(Code::kInvalidArgument, "CADRE_ISA",
                   "CADRE_ISA={} asks for instructions that this CPU ({}) lacks; the fastest it has is {}",
                   options.cpu.isa, sys::CpuModelName(), kernels::IsaName(kernels::BestIsa()));
}

std::string WhyCpu(bool forced) {
  if (forced) return "because --force-cpu says so";
  const sys::GpuFinding gpus = sys::FindGpus();
  if (gpus.count == 0) return Format("because this machine shows no GPU ({})", gpus.where);
  return Format("although this machine has {} GPU{} ({}): Cadre has no GPU kernels yet", gpus.count,
                gpus.count == 1 ? "" : "s", gpus.where);
}

constexpr const char* kPrompt =
    "A router sends every token to the few experts that suit it; the others rest, wherever they are.";

// The layer's sizes: the model's, or those of the flags.
Result<demo::Shape> ShapeOf(const DemoOptions& options) {
  demo::Shape shape = {.num_experts = static_cast<int32_t>(options.num_experts),
                       .top_k = static_cast<int32_t>(options.top_k),
                       .hidden = options.hidden_size,
                       .inter = options.intermediate_size,
                       .num_tokens = options.num_tokens,
                       .seed = static_cast<uint64_t>(options.seed)};
  if (!options.model) {
    if (options.prompt)
      return FailParam(Code::kInvalidArgument, "--prompt", "--prompt has a meaning with --model only");
    return shape;
  }
  const DemoOptions plain;
  for (const auto& [flag, differs] :
       {std::pair{"--num-experts", options.num_experts != plain.num_experts},
        {"--top-k", options.top_k != plain.top_k},
        {"--hidden-size", options.hidden_size != plain.hidden_size},
        {"--intermediate-size", options.intermediate_size != plain.intermediate_size},
        {"--seed", options.seed != plain.seed}}) {
    if (differs)
      return FailParam(Code::kInvalidArgument, flag, "{} is for a layer without --model; a model has its own",
                       flag);
  }
  CADRE_ASSIGN(shape.model,
               demo::FindModelPart(*options.model, options.hub_cache, options.prompt.value_or(kPrompt),
                                   options.num_tokens * options.nproc_per_node));
  const model::ModelSpec& spec = shape.model->spec;
  shape.num_experts = spec.moe.num_experts;
  shape.top_k = spec.moe.top_k;
  shape.hidden = spec.hidden;
  shape.inter = spec.moe.inter;
  return shape;
}

Status RunNative(const DemoOptions& options) {
  CADRE_TRY(CheckWritable(options.json, "--json"));
  demo::Plan plan;
  CADRE_ASSIGN(plan.shape, ShapeOf(options));
  plan.num_ranks = static_cast<int>(options.nproc_per_node);
  plan.backend = options.all2all_backend;
  plan.timeout = std::chrono::round<Duration>(std::chrono::duration<double>(options.timeout_s));
  CADRE_ASSIGN(plan.placement, eplb::ParsePlacement(options.placement));
  CADRE_ASSIGN(plan.isa, ChooseIsa(options));
  CADRE_ASSIGN(const demo::Outcome outcome, demo::RunDemo(plan));
  std::printf("Expert parallelism: %d experts on %d rank%s, %lld tokens on each, top %d, hidden size %lld\n",
              plan.shape.num_experts, plan.num_ranks, plan.num_ranks == 1 ? "" : "s",
              static_cast<long long>(plan.shape.num_tokens), plan.shape.top_k,
              static_cast<long long>(plan.shape.hidden));
  if (plan.shape.model != nullptr) {
    std::printf("Layer: number %d of %s (%s), on the embeddings of the prompt's tokens\n",
                plan.shape.model->layer(), plan.shape.model->name.c_str(),
                plan.shape.model->spec.architecture.c_str());
  }
  std::printf("Device: CPU (%s, %s kernels), %s\n", sys::CpuModelName().c_str(), kernels::IsaName(plan.isa),
              WhyCpu(options.force_cpu).c_str());
  std::printf("Exchange: %s\n\n%s", outcome.ranks.front().exchange.c_str(),
              demo::Draw(plan, outcome).c_str());
  if (!options.json) return {};
  return WriteJsonFile(*options.json, demo::ToJson(plan, outcome));
}

}  // namespace

int Demo(Args args, const config::Environment& env) {
  return RunParsed(config::ParseDemo, args, env, [&](const DemoOptions& options) -> Status {
    if (!options.python) return RunNative(options);
    if (options.model) {
      return FailParam(Code::kUnsupported, "--model",
                       "--python draws its layer from the seed; leave out --model");
    }
    if (options.json) {
      return FailParam(Code::kInvalidArgument, "--json",
                       "--json is not written with --python; leave one out");
    }
    return demo::RunPython(options, env);
  });
}

}  // namespace cadre::app
