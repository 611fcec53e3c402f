// Cuts attention into tasks for the threads. Nothing here touches a number of the result: see
// attention_kernels.h for the arithmetic and attention_templates.h for its order.
//
// Work is cut into blocks of rows. A block that alone is much of the work (decoding with a long context) is
// cut further into spans: its partial results go to slots, and are merged in rising order after the join.
// Slots are limited, so that very long contexts go in several rounds.
#include "kernels/attention.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "base/check.h"
#include "kernels/attention_kernels.h"
#include "kernels/kv_layout.h"

namespace cadre::kernels {

namespace {

const AttentionKernels& AttentionKernelsFor(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      break;
    case Isa::kAvx2:
      return avx2::kAttentionKernels;
    case Isa::kAmx:
    case Isa::kAmxEmulated:
    case Isa::kAvx512:
      return avx512::kAttentionKernels;
    case Isa::kAvx512Bf16:
      return avx512_bf16::kAttentionKernels;
  }
  return portable::kAttentionKernels;
}

constexpr int64_t Padded(int64_t n) {
  return (n + 15) / 16 * 16;
}

// Memory that grows and is kept.
class Buffer {
 public:
  std::byte* Get(int64_t bytes) {
    if (bytes > bytes_) {
      const int64_t more = (bytes + 4095) / 4096 * 4096;
      bytes_ = 0;
      memory_.reset(static_cast<std::byte*>(std::aligned_alloc(64, static_cast<size_t>(more))));
      if (memory_ == nullptr) throw std::bad_alloc();
      bytes_ = more;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  int64_t bytes_ = 0;
};

int64_t StateBytes(const KvLayerView& kv) {
  return kAttentionRows * 4 * (2 + Padded(kv.v_dim));
}

AttentionState StateAt(std::byte* p) {
  auto* f = reinterpret_cast<float*>(p);
  return {f, f + kAttentionRows, f + 2 * kAttentionRows};
}

void Clear(const AttentionState& state) {
  std::fill_n(state.m, kAttentionRows, 0.0f);
  std::fill_n(state.l, kAttentionRows, 0.0f);
}

struct ThreadMemory {
  Buffer q, scores, values, state;

  AttentionScratch Scratch(const KvLayerView& kv) {
    return {q.Get(int64_t{kAttentionRows} * kv.k_dim * 4),
            scores.Get(int64_t{kAttentionRows} * kScoreStride * 4),
            values.Get(int64_t{kAttentionSpan} * kv.v_dim * 4)};
  }
};
thread_local ThreadMemory thread_memory;

struct Block {
  AttentionBlock args;
  int64_t span_begin = 0, span_end = 0;  // still to do
  double cost = 0;                       // multiply-adds
  int64_t state = -1;                    // of a block cut into spans
};
struct Task {
  Block* block = nullptr;
  int64_t span_begin = 0, span_end = 0;
  int64_t slot = -1;  // of the first span; -1: the whole block
};

// Kept by the thread that calls, so that a step allocates nothing.
struct PlanMemory {
  std::vector<Block> blocks;
  std::vector<Block*> cut;
  std::vector<Task> tasks;
  Buffer slots, states;
};
thread_local PlanMemory plan_memory;

// Slots may take this much memory: a slot is 33 KiB for v_dim 128, 129 KiB for 512, so a round covers 63,000
// or 16,000 positions, which takes milliseconds, and fits the third-level cache.
constexpr int64_t kSlotsBytes = int64_t{8} << 20;
// Waking the other threads and joining them costs a few microseconds; work below this stays on the caller.
constexpr double kInlineNs = 20'000;
constexpr double kBlockNs = 300;  // of a block beside its products

void AddBlocks(const AttentionArgs& args, const AttentionSequence& sequence, std::vector<Block>& blocks) {
  const KvLayerView& kv = args.kv;
  const KvHeadBytes bytes = HeadBytesOf(kv);
  const int64_t element = kv.type == DType::kF32 ? 4 : 2;
  const int group = args.num_heads / kv.num_kv_heads, first_position = sequence.kv_len - sequence.q_len;
  const int num_rows = sequence.q_len * group;
  AttentionBlock b;
  b.block_stride = kv.block_stride;
  b.v_offset = bytes.k;
  b.block_panels = kv.block_size / 16;
  b.k_dim = kv.k_dim;
  b.v_dim = kv.v_dim;
  b.latent = kv.latent;
  b.block_table = sequence.block_table;
  b.q_stride = args.q_stride;
  b.out_stride = args.out_stride;
  b.group = group;
  b.first_position = first_position;
  b.window = args.window;
  b.scale = args.scale;
  for (int head = 0; head < kv.num_kv_heads; ++head) {
    const int64_t q_at = sequence.q_begin * args.q_stride + int64_t{head} * group * kv.k_dim;
    const int64_t out_at = sequence.q_begin * args.out_stride + int64_t{head} * group * kv.v_dim;
    b.kv = kv.base + head * (bytes.k + bytes.v);
    b.q = static_cast<const std::byte*>(args.q) + q_at * element;
    b.out = static_cast<std::byte*>(args.out) + out_at * element;
    b.sinks = args.sinks == nullptr ? nullptr : args.sinks + int64_t{head} * group;
    for (int row = 0; row < num_rows; row += kAttentionRows) {
      b.row_begin = row;
      b.num_rows = std::min(kAttentionRows, num_rows - row);
      const int64_t first = int64_t{first_position} + row / group;
      const int64_t last = int64_t{first_position} + (row + b.num_rows - 1) / group;
      const int64_t low = args.window > 0 ? std::max<int64_t>(first - args.window + 1, 0) : 0;
      const double cost =
          static_cast<double>(b.num_rows) * static_cast<double>(last + 1 - low) * (kv.k_dim + kv.v_dim);
      blocks.push_back({b, low / kAttentionSpan, last / kAttentionSpan + 1, cost, -1});
    }
  }
}

void CheckArgs(const AttentionArgs& args) {
  const KvLayerView& kv = args.kv;
  CADRE_CHECK(kv.block_size > 0 && kv.block_size % 16 == 0 && kv.k_dim > 0 && kv.k_dim % 2 == 0 &&
              kv.v_dim > 0);
  CADRE_CHECK(kv.num_kv_heads > 0 && args.num_heads % kv.num_kv_heads == 0 && args.num_heads > 0);
  CADRE_CHECK(!kv.latent || kv.v_dim <= kv.k_dim);
  CADRE_CHECK(kv.type == DType::kBf16 || kv.type == DType::kF32);
  CADRE_CHECK(kv.block_stride >= KvBlockBytes(kv));
  for (const AttentionSequence& s : args.sequences) CADRE_CHECK(s.q_len >= 0 && s.kv_len >= s.q_len);
}

class Runner {
 public:
  Runner(const Device& device, const AttentionArgs& args, PlanMemory& memory)
      : pool_(device.pool), args_(args), memory_(memory) {
    const AttentionKernels& kernels = AttentionKernelsFor(device.isa);
    ops_ = args.kv.type == DType::kF32 ? kernels.f32 : kernels.bf16;
    state_bytes_ = StateBytes(args.kv);
  }

  void Run() {
    double total = 0;
    for (const Block& block : memory_.blocks) total += block.cost;
    const int num_threads = pool_ == nullptr ? 1 : pool_->num_threads();
    const double ns =
        total / static_cast<double>(ops_.macs_per_ns) + kBlockNs * static_cast<double>(memory_.blocks.size());
    if (num_threads == 1 || ns < kInlineNs) {
      for (Block& block : memory_.blocks) Whole(block);
      return;
    }
    memory_.cut.clear();
    for (Block& block : memory_.blocks) {
      const bool large = block.cost * num_threads * 2 > total;
      if (!large || block.span_end - block.span_begin < 2) continue;
      block.state = static_cast<int64_t>(memory_.cut.size());
      memory_.cut.push_back(&block);
    }
    states_ = memory_.states.Get(state_bytes_ * static_cast<int64_t>(memory_.cut.size()));
    for (const Block* block : memory_.cut) Clear(StateAt(states_ + block->state * state_bytes_));
    task_cost_ = total / (num_threads * 4);
    for (bool first = true, left = true; left; first = false) {
      left = Plan(first);
      pool_->ForEach(static_cast<int64_t>(memory_.tasks.size()),
                     [&](int64_t task, int) { Do(memory_.tasks[static_cast<size_t>(task)]); });
      pool_->ForEach(static_cast<int64_t>(memory_.cut.size()),
                     [&](int64_t i, int) { MergeSlots(*memory_.cut[static_cast<size_t>(i)]); });
    }
  }

 private:
  // Fills tasks with one round; true if spans are left for another.
  bool Plan(bool first) {
    memory_.tasks.clear();
    int64_t slots_left = std::max<int64_t>(kSlotsBytes / state_bytes_, 1), num_slots = 0;
    bool left = false;
    for (Block* block : memory_.cut) {
      const int64_t spans = block->span_end - block->span_begin;
      if (spans == 0) continue;
      const double span_cost = block->cost / static_cast<double>(spans);
      const int64_t per_task = std::clamp<int64_t>(static_cast<int64_t>(task_cost_ / span_cost), 1, spans);
      const int64_t end = block->span_begin + std::min(spans, slots_left);
      for (int64_t span = block->span_begin; span < end; span += per_task) {
        const int64_t task_end = std::min(span + per_task, end);
        memory_.tasks.push_back({block, span, task_end, num_slots});
        num_slots += task_end - span;
      }
      slots_left -= end - block->span_begin;
      left = left || end < block->span_end;
    }
    slots_ = memory_.slots.Get(num_slots * state_bytes_);
    if (first) {
      // The last rows of a prompt see the most: largest first.
      for (size_t i = memory_.blocks.size(); i-- > 0;) {
        Block& block = memory_.blocks[i];
        if (block.state < 0) memory_.tasks.push_back({&block, block.span_begin, block.span_end, -1});
      }
    }
    return left;
  }

  void Whole(const Block& block) const {
    ThreadMemory& mine = thread_memory;
    const AttentionState state = StateAt(mine.state.Get(state_bytes_));
    Clear(state);
    ops_.fold(block.args, block.span_begin, block.span_end, state, mine.Scratch(args_.kv));
    ops_.finish(block.args, state);
  }

  void Do(const Task& task) const {
    if (task.slot < 0) return Whole(*task.block);
    const AttentionScratch scratch = thread_memory.Scratch(args_.kv);
    for (int64_t span = task.span_begin; span < task.span_end; ++span) {
      const AttentionState slot = StateAt(slots_ + (task.slot + span - task.span_begin) * state_bytes_);
      Clear(slot);
      ops_.fold(task.block->args, span, span + 1, slot, scratch);
    }
  }

  void MergeSlots(Block& block) const {
    const AttentionState state = StateAt(states_ + block.state * state_bytes_);
    const bool had_work = block.span_begin < block.span_end;
    for (const Task& task : memory_.tasks) {  // a block's tasks stand in rising order
      if (task.block != &block) continue;
      for (int64_t span = task.span_begin; span < task.span_end; ++span) {
        ops_.merge(block.args, StateAt(slots_ + (task.slot + span - task.span_begin) * state_bytes_), state);
      }
      block.span_begin = task.span_end;
    }
    if (had_work && block.span_begin == block.span_end) ops_.finish(block.args, state);
  }

  sys::ThreadPool* pool_;
  const AttentionArgs& args_;
  PlanMemory& memory_;
  AttentionOps ops_{};
  int64_t state_bytes_ = 0;
  double task_cost_ = 0;
  std::byte* slots_ = nullptr;
  std::byte* states_ = nullptr;
};

}  // namespace

void Attention(const Device& device, const AttentionArgs& args) {
  CheckArgs(args);
  PlanMemory& memory = plan_memory;
  memory.blocks.clear();
  for (const AttentionSequence& sequence : args.sequences) AddBlocks(args, sequence, memory.blocks);
  Runner(device, args, memory).Run();
}

}  // namespace cadre::kernels
