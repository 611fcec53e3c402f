#include "engine/memory_plan.h"

#include <algorithm>

#include "sys/memory.h"

namespace cadre::engine {
namespace {

using sys::FormatBytes;

int64_t BlocksOfOneSequence(const MemoryPlanInput& in) {
  return kv::BlocksFor(in.max_model_len, in.kv.block_size);
}

// Blocks a rank may have, before asking whether they are enough.
Result<int64_t> AffordableBlocks(const MemoryPlanInput& in, int64_t budget) {
  const int64_t block_bytes = in.kv.AllBytes(1);
  if (in.num_kv_blocks) return *in.num_kv_blocks;
  if (in.kv_cache_bytes) return *in.kv_cache_bytes / block_bytes;
  const int64_t left = budget - in.BytesWithoutKv();
  if (left < 0) {
    return Fail(Code::kResourceExhausted,
                "the weights and buffers of {} local rank(s) take {} and --gpu-memory-utilization {} of {} "
                "({}) allows "
                "{}; raise --gpu-memory-utilization, spread the experts over more hosts with "
                "--enable-expert-parallel, or lower --max-num-batched-tokens",
                in.num_local_ranks, FormatBytes(in.BytesWithoutKv()), in.utilization,
                FormatBytes(in.total_bytes), in.total_source, FormatBytes(budget));
  }
  const int64_t useful = BlocksOfOneSequence(in) * std::max<int64_t>(in.max_num_seqs, 1);
  return std::min(left / in.num_local_ranks / block_bytes, useful);
}

// Names what sizes the cache now, and the flags that would help.
std::unexpected<Error> TooFewBlocks(const MemoryPlanInput& in, const MemoryPlan& plan) {
  const int64_t wanted = BlocksOfOneSequence(in);
  const int64_t room = plan.num_kv_blocks * in.kv.block_size;
  const int64_t wanted_bytes = in.SequenceBytes();
  std::string help;
  if (room > 0) help = Format("lower --max-model-len to at most {}, ", room);
  if (in.num_kv_blocks) {
    help +=
        Format("raise --num-gpu-blocks-override (now {}) to {} or leave it out", *in.num_kv_blocks, wanted);
  } else if (in.kv_cache_bytes) {
    help += Format(
        "raise --kv-cache-memory-bytes (or VLLM_CPU_KVCACHE_SPACE, now {}) to {}, or leave it out so "
        "that --gpu-memory-utilization decides",
        FormatBytes(*in.kv_cache_bytes), wanted_bytes);
  } else {
    help += Format("raise --gpu-memory-utilization (now {}), or set --kv-cache-memory-bytes to at least {}",
                   in.utilization, wanted_bytes);
  }
  return Fail(
      Code::kResourceExhausted,
      "one sequence of {} tokens needs {} of KV cache a rank and there is room for {} ({} tokens); {}",
      in.max_model_len, FormatBytes(wanted_bytes), FormatBytes(plan.kv_bytes), room, help);
}

void AddLine(std::string& table, const char* what, int64_t bytes, int64_t copies, const std::string& note) {
  if (bytes == 0) return;
  table += Format("  {:<22} {:>10}  x {:<3} {:>10}  {}\n", what, FormatBytes(bytes), copies,
                  FormatBytes(bytes * copies), note);
}

std::string Table(const MemoryPlanInput& in, const MemoryPlan& plan, int64_t budget) {
  std::string table = "memory plan\n";
  AddLine(table, "dense weights", in.dense_bytes, in.num_local_replicas, "");
  AddLine(table, "expert weights", in.expert_bytes, in.num_local_ranks,
          in.redundant_bytes == 0
              ? ""
              : Format("of which {} a rank are further copies", FormatBytes(in.redundant_bytes)));
  AddLine(table, "spare expert places", in.spare_bytes, in.num_local_ranks, "free for experts that move");
  AddLine(table, "copy of the weights", in.WeightCopyBytes(), 1, "for --weight-update-copy");
  AddLine(table, "LoRA adapters", in.adapter_bytes, in.num_local_ranks,
          "--max-loras of --max-lora-rank, taken as they are loaded");
  AddLine(table, "buffers", in.buffer_bytes, in.num_local_ranks, "at most, taken as steps need them");
  AddLine(table, "exchange", in.exchange_bytes, in.num_local_ranks, "");
  AddLine(table, "experts of tokens", in.kv.NotesBytes(plan.num_kv_blocks), in.num_local_ranks,
          "for --enable-return-routed-experts");
  AddLine(table, "KV cache", plan.kv_bytes, in.num_local_ranks,
          Format("{} blocks of {} tokens: {:.1f} sequences of {} tokens a rank", plan.num_kv_blocks,
                 in.kv.block_size, plan.Concurrency(in), in.max_model_len));
  table += Format("  {:<22} {:>10}    {:<3} {:>10}  of {} ({:.2f} of {}, {})", "in all", "", "",
                  FormatBytes(plan.host_bytes), FormatBytes(budget), in.utilization,
                  FormatBytes(in.total_bytes), in.total_source);
  return table;
}

}  // namespace

int64_t MemoryPlanInput::Budget() const {
  return static_cast<int64_t>(static_cast<double>(total_bytes) * utilization);
}

int64_t MemoryPlanInput::WeightCopyBytes() const {
  if (!weight_copy) return 0;
  return dense_bytes * num_local_replicas + (expert_bytes + spare_bytes) * num_local_ranks;
}

int64_t MemoryPlanInput::BytesWithoutKv() const {
  return dense_bytes * num_local_replicas + WeightCopyBytes() +
         (expert_bytes + spare_bytes + adapter_bytes + buffer_bytes + exchange_bytes) * num_local_ranks;
}

int64_t MemoryPlanInput::SequenceBytes() const {
  constexpr int64_t kMost = int64_t{1} << 53;  // past any host; a config may ask for more than 63 bits
  const int64_t blocks = BlocksOfOneSequence(*this), block = std::max<int64_t>(kv.BytesPerBlock(), 1);
  return blocks > kMost / block ? kMost : blocks * block;
}

double MemoryPlan::Concurrency(const MemoryPlanInput& input) const {
  return static_cast<double>(num_kv_blocks) /
         static_cast<double>(std::max<int64_t>(BlocksOfOneSequence(input), 1));
}

Result<MemoryPlan> MakeMemoryPlan(const MemoryPlanInput& in) {
  const int64_t budget = in.Budget();
  MemoryPlan plan;
  CADRE_ASSIGN(plan.num_kv_blocks, AffordableBlocks(in, budget));
  plan.kv_bytes = in.kv.PoolBytes(plan.num_kv_blocks);
  plan.host_bytes = in.BytesWithoutKv() + in.kv.AllBytes(plan.num_kv_blocks) * in.num_local_ranks;
  if (plan.num_kv_blocks < BlocksOfOneSequence(in)) return TooFewBlocks(in, plan);
  if (plan.host_bytes > in.total_bytes) {
    return Fail(Code::kResourceExhausted,
                "the plan takes {} and {} has {}; lower --kv-cache-memory-bytes (now {} a rank) or "
                "--num-gpu-blocks-override",
                FormatBytes(plan.host_bytes), in.total_source, FormatBytes(in.total_bytes),
                FormatBytes(plan.kv_bytes));
  }
  plan.table = Table(in, plan, budget);
  return plan;
}

}  // namespace cadre::engine
