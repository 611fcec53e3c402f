#include "app/plan_text.h"

#include <algorithm>

#include "sys/memory.h"

namespace cadre::app {
namespace {

using deploy::DecimalBytes;
using deploy::DeploymentPlan;
using deploy::Layout;
using deploy::Times;

constexpr int64_t kGuideContext = 8192;  // of the guides' table

int64_t SequenceBytes(const engine::MemoryPlanInput& in, int64_t tokens) {
  return deploy::Times(in.kv.BytesPerBlock(), kv::BlocksFor(tokens, in.kv.block_size));
}

// A replica's ranks hold parts of a sequence, or with MLA the whole of it each.
int64_t ReplicaSequenceBytes(const DeploymentPlan& plan, int64_t tokens) {
  return Times(SequenceBytes(plan.chosen.setup.memory_input, tokens), plan.chosen.layout.tp);
}

std::string Cell(int64_t bytes) {
  return bytes < 0 ? "" : DecimalBytes(bytes);
}

// A negative number: an empty cell.
std::string Row(const std::string& name, int64_t all, int64_t host, int64_t rank,
                const std::string& note = "") {
  std::string row = Format("  {:<34}{:>10}{:>10}{:>10}", name, Cell(all), Cell(host), Cell(rank));
  if (!note.empty()) row += "  " + note;
  row.resize(row.find_last_not_of(' ') + 1);
  return row + "\n";
}

std::string Count(int64_t n) {
  return n >= 1'000'000'000 ? Format("{:.1f} G", static_cast<double>(n) / 1e9)
                            : Format("{:.1f} M", static_cast<double>(n) / 1e6);
}

std::string ModelText(const DeploymentPlan& plan) {
  const deploy::ModelSetup& setup = plan.chosen.setup;
  const model::ModelSpec& spec = setup.spec;
  std::string text =
      Format("model    {}, {} parameters ({} active a token), {} layers", spec.architecture,
             Count(spec.num_parameters()), Count(spec.num_active_parameters()), spec.num_layers());
  if (setup.is_moe()) {
    text += Format(", {} of them with {} experts, {} a token", spec.num_moe_layers(), spec.moe.num_experts,
                   spec.moe.top_k);
  }
  text += Format("\nweights  {}\n", deploy::WeightsText(setup));
  return text + Format("hosts    {} of {} ({}){}\n", plan.chosen.num_hosts,
                       sys::FormatBytes(plan.host.total()), DecimalBytes(plan.host.total()),
                       plan.cores ? Format(", {} cores", *plan.cores) : "");
}

std::string DenseParts(const model::WeightPlan& whole) {
  const auto& parts = whole.parts;
  std::string text;
  for (const auto& [name, bytes] : {std::pair("attention", parts.attention),
                                    {"embedding and head", parts.embedding + parts.lm_head},
                                    {"shared experts", parts.shared_experts},
                                    {"feed-forward", parts.feed_forward},
                                    {"routers", parts.routers}}) {
    if (bytes > 0) text += Format("{}{} {}", text.empty() ? "" : ", ", name, DecimalBytes(bytes));
  }
  return text;
}

std::string MemoryText(const DeploymentPlan& plan) {
  const deploy::LayoutPlan& chosen = plan.chosen;
  const engine::MemoryPlanInput& in = chosen.setup.memory_input;
  const int64_t ranks = in.num_local_ranks, hosts = chosen.num_hosts;
  std::string text =
      Format("\n{:<36}{:>10}{:>10}{:>10}\n", "memory (the fullest host)", "in all", "a host", "a rank");
  text += Row("dense weights", plan.whole.dense_bytes, in.dense_bytes * in.num_local_replicas, -1,
              "one copy a host: " + DenseParts(plan.whole));
  if (chosen.setup.is_moe()) {
    text += Row("experts", plan.whole.expert_bytes, (in.expert_bytes - in.redundant_bytes) * ranks,
                in.expert_bytes - in.redundant_bytes);
    if (in.redundant_bytes > 0)
      text += Row("copies of experts", Times(in.redundant_bytes * ranks, hosts), in.redundant_bytes * ranks,
                  in.redundant_bytes, Format("{} over all ranks", chosen.layout.redundant));
    if (in.spare_bytes > 0)
      text += Row("spare places for moves", Times(in.spare_bytes * ranks, hosts), in.spare_bytes * ranks,
                  in.spare_bytes);
  }
  if (in.exchange_bytes > 0)
    text += Row("all2all buffers", Times(in.exchange_bytes * ranks, hosts), in.exchange_bytes * ranks,
                in.exchange_bytes);
  text += Row("step buffers", Times(in.buffer_bytes * ranks, hosts), in.buffer_bytes * ranks, in.buffer_bytes,
              Format("steps of {} tokens a replica", chosen.options.scheduler.max_num_batched_tokens));
  if (in.WeightCopyBytes() > 0)
    text += Row("copy for weight updates", Times(in.WeightCopyBytes(), hosts), in.WeightCopyBytes(), -1);
  text += Row(Format("KV of one request, {} tokens", in.max_model_len),
              ReplicaSequenceBytes(plan, in.max_model_len), -1, in.SequenceBytes());
  if (in.max_model_len > kGuideContext)
    text += Row(Format("KV of one request, {} tokens", kGuideContext),
                ReplicaSequenceBytes(plan, kGuideContext), -1, SequenceBytes(in, kGuideContext));
  if (chosen.fits) {
    const engine::MemoryPlan& memory = chosen.setup.memory;
    text += Row("KV cache", Times(memory.kv_bytes * ranks, hosts), memory.kv_bytes * ranks, memory.kv_bytes,
                Format("{:.1f} requests of {} tokens at once", chosen.Concurrency(), in.max_model_len));
    text += Row("in use", Times(memory.host_bytes, hosts), memory.host_bytes, -1);
  } else {
    text += Row("without KV cache", Times(in.BytesWithoutKv(), hosts), in.BytesWithoutKv(), -1);
  }
  return text + Row(Format("allowed ({:.2f} of a host)", in.utilization), Times(in.Budget(), hosts),
                    in.Budget(), -1);
}

std::string LayoutText(const Layout& layout, int hosts) {
  std::string text = Format("\nlayout   TP {} x DP {} = {} ranks, {} on each of {} host(s)", layout.tp,
                            layout.dp, layout.num_ranks(), layout.ranks_per_host, hosts);
  if (layout.ep) text += Format("; EP {}", layout.num_ranks());
  if (layout.redundant > 0) text += Format("; {} redundant experts", layout.redundant);
  text += "\n";
  for (const std::string& reason : layout.reasons) text += Format("  - {}\n", reason);
  return text;
}

std::string BudgetText(const DeploymentPlan& plan) {
  const deploy::LayoutPlan& chosen = plan.chosen;
  const engine::MemoryPlanInput& in = chosen.setup.memory_input;
  std::string text =
      Format("\nbudgets  {} tokens a step and {} requests at once on each of {} replica(s)",
             chosen.options.scheduler.max_num_batched_tokens, in.max_num_seqs, chosen.layout.dp);
  if (chosen.fits) {
    text +=
        Format("; {} KV blocks of {} tokens on each rank: requests of {} tokens on average fill all places",
               chosen.setup.memory.num_kv_blocks, in.kv.block_size,
               chosen.setup.memory.num_kv_blocks * in.kv.block_size / std::max<int64_t>(in.max_num_seqs, 1));
  }
  if (chosen.setup.expert_places.num_spares > 0)
    text += Format("; {} spare places for experts on each rank", chosen.setup.expert_places.num_spares);
  return text + "\n";
}

std::string LinesText(const DeploymentPlan& plan) {
  constexpr size_t kMostLines = 16;
  std::string text = plan.chosen.num_hosts > 1 ? "\nlaunch   one line a host" : "\nlaunch";
  const config::ParallelOptions& parallel = plan.chosen.options.parallel;
  if (parallel.data_parallel_address == "FIRST_HOST")
    text += "; put host 0's address for FIRST_HOST (or say --data-parallel-address here)";
  if (!plan.has_weights) text += "; put the checkpoint's folder or hub name for the model";
  text += "\n";
  for (size_t i = 0; i < plan.lines.size() && i < kMostLines; ++i) {
    if (plan.lines.size() > 1) text += Format("# host {}\n", plan.lines[i].host);
    text += deploy::ShellText(plan.lines[i].words) + "\n";
  }
  if (plan.lines.size() > kMostLines) {
    text += Format(
        "# host N up to {}: the same with --data-parallel-start-rank {} times N; --json has all lines\n",
        plan.lines.size() - 1, plan.chosen.layout.ranks_per_host / plan.chosen.layout.tp);
  }
  return text;
}

std::string RemedyText(const DeploymentPlan& plan) {
  std::string text = Format("\nit does not fit: {}\n\nwhat helps\n", plan.chosen.fits.error().message);
  for (const deploy::Remedy& remedy : plan.remedies)
    text += Format("  {:<38} {}\n", remedy.flags, remedy.text);
  return text;
}

Json MemoryJson(const DeploymentPlan& plan) {
  const engine::MemoryPlanInput& in = plan.chosen.setup.memory_input;
  const engine::MemoryPlan& memory = plan.chosen.setup.memory;
  Json out = Json::Object{{"host_bytes_available", in.total_bytes},
                          {"host_bytes_allowed", in.Budget()},
                          {"utilization", in.utilization},
                          {"ranks_per_host", in.num_local_ranks},
                          {"dense_bytes", in.dense_bytes},
                          {"dense_copies", in.num_local_replicas},
                          {"expert_bytes", in.expert_bytes},
                          {"redundant_bytes", in.redundant_bytes},
                          {"spare_bytes", in.spare_bytes},
                          {"buffer_bytes", in.buffer_bytes},
                          {"exchange_bytes", in.exchange_bytes},
                          {"host_bytes_without_kv", in.BytesWithoutKv()},
                          {"max_model_len", in.max_model_len},
                          {"max_num_seqs", in.max_num_seqs},
                          {"max_num_batched_tokens", plan.chosen.options.scheduler.max_num_batched_tokens},
                          {"num_spare_places", plan.chosen.setup.expert_places.num_spares},
                          {"kv_bytes_per_token", in.kv.BytesPerToken()},
                          {"kv_bytes_per_sequence", in.SequenceBytes()},
                          {"kv_bytes_per_8192_tokens", SequenceBytes(in, kGuideContext)},
                          {"fits", plan.chosen.fits.has_value()}};
  if (!plan.chosen.fits) {
    out.Set("error", plan.chosen.fits.error().message);
    return out;
  }
  out.Set("kv_bytes", memory.kv_bytes);
  out.Set("num_kv_blocks", memory.num_kv_blocks);
  out.Set("host_bytes", memory.host_bytes);
  out.Set("concurrency", plan.chosen.Concurrency());
  return out;
}

Json LayoutJson(const Layout& layout) {
  Json reasons = Json::Array();
  for (const std::string& reason : layout.reasons) reasons.Push(reason);
  return Json::Object{{"tensor_parallel_size", layout.tp},
                      {"data_parallel_size", layout.dp},
                      {"ranks_per_host", layout.ranks_per_host},
                      {"enable_expert_parallel", layout.ep},
                      {"expert_parallel_size", layout.ep ? layout.num_ranks() : 1},
                      {"prefill_all2all_backend", layout.prefill_backend},
                      {"decode_all2all_backend", layout.decode_backend},
                      {"enable_eplb", layout.eplb},
                      {"num_redundant_experts", layout.redundant},
                      {"reasons", std::move(reasons)}};
}

}  // namespace

std::string PlanText(const DeploymentPlan& plan) {
  std::string text = ModelText(plan) + MemoryText(plan) +
                     LayoutText(plan.chosen.layout, plan.chosen.num_hosts) + BudgetText(plan);
  if (!plan.chosen.fits) return text + RemedyText(plan);
  text += LinesText(plan);
  return text + Format("\nhost 0 will print (GiB, MiB)\n{}\n", plan.chosen.setup.memory.table);
}

Json PlanJson(const DeploymentPlan& plan) {
  const model::ModelSpec& spec = plan.chosen.setup.spec;
  Json lines = Json::Array(), remedies = Json::Array();
  for (const deploy::LaunchLine& line : plan.lines) {
    Json words = Json::Array();
    for (const std::string& word : line.words) words.Push(word);
    lines.Push(Json::Object{
        {"host", line.host}, {"command", deploy::ShellText(line.words)}, {"words", std::move(words)}});
  }
  for (const deploy::Remedy& remedy : plan.remedies) {
    remedies.Push(Json::Object{{"name", remedy.name},
                               {"flags", remedy.flags},
                               {"text", remedy.text},
                               {"fits", remedy.fits},
                               {"number", remedy.number}});
  }
  return Json::Object{{"architecture", spec.architecture},
                      {"num_parameters", spec.num_parameters()},
                      {"num_active_parameters", spec.num_active_parameters()},
                      {"weights", deploy::WeightsText(plan.chosen.setup)},
                      {"hosts", plan.chosen.num_hosts},
                      {"dense_bytes_in_all", plan.whole.dense_bytes},
                      {"expert_bytes_in_all", plan.whole.expert_bytes},
                      {"layout", LayoutJson(plan.chosen.layout)},
                      {"memory", MemoryJson(plan)},
                      {"remedies", std::move(remedies)},
                      {"launch", std::move(lines)}};
}

}  // namespace cadre::app
