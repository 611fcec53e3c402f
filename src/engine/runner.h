#pragma once
// One step: the plan becomes rows, the rows go through the model, the wanted logits become tokens.
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/batch.h"
#include "engine/control.h"
#include "engine/scheduler.h"
#include "handoff/agent.h"
#include "model/decoder.h"
#include "nn/adapter.h"
#include "rebalance/rebalancer.h"

namespace cadre::engine {

/// What a step brought one sequence.
struct StepOutput {
  Sequence* sequence = nullptr;
  std::optional<GeneratedToken> token;  ///< empty while the prompt is computed in chunks
};

struct RunnerOptions {
  kernels::Device device;
  nn::KvPoolView kv;
  a2a::AllToAll* exchange = nullptr;                ///< null for a model without experts
  a2a::Collective* tensor_parallel = nullptr;       ///< null where tp = 1
  std::vector<const eplb::ExpertMap*> expert_maps;  ///< [MoE layers]
  const nn::SimulatedRouting* simulated_routing = nullptr;
  handoff::Agent* agent = nullptr;  ///< of this rank; null: no sequence is held for others
  /// By slot; as long as slots in use go. Null: sequences have none.
  const std::vector<const nn::Adapter*>* adapters = nullptr;
  int64_t vocab_size = 0;
  Duration step_timeout = std::chrono::seconds(60);  ///< longest wait for another rank within a step
};

/// Owned by the engine thread.
class Runner {
 public:
  Runner(model::Decoder& decoder, RunnerOptions options);

  /// From the next step on, its maps are used and it counts what the router chooses. All ranks call it
  /// between the same two steps; it must outlive the runner.
  void Attach(rebalance::Rebalancer& rebalancer) { rebalancer_ = &rebalancer; }

  /// Runs the plan (empty: this rank only serves the others' rows) and samples, in the plan's order. `phase`
  /// is the same on all ranks. Prompt
  /// log probabilities go straight into their sequences. Errors: only from the exchange between ranks.
  Result<std::vector<StepOutput>> Run(std::span<const ScheduledSequence> plan, a2a::Phase phase);

  /// What is due between two steps: a piece of a rebalance. Call once after each Run, when its tokens are on
  /// their way. Errors: only from the exchange between ranks.
  Status EndStep();
  /// Whether steps are wanted though nobody has work. The same on all ranks.
  bool wants_step() const { return rebalancer_ != nullptr && rebalancer_->moving(); }
  /// Gives the other ranks of the replica an order about weights, between two steps; they carry it out in
  /// Follow, this one by itself.
  Status SendOrder(const WeightOrder& order);
  /// Carries out such orders on a rank that follows; outlives the runner.
  void SetWeightKeeper(WeightKeeper* keeper) { keeper_ = keeper; }
  /// The experts of a sequence's computed tokens from `start` on; empty where they are not kept.
  RoutedExperts RoutedOf(const Sequence& sequence, int64_t start) const;
  /// What this rank drew from others for its experts since the start.
  a2a::ByteCounts exchange_bytes() const {
    return options_.exchange == nullptr ? a2a::ByteCounts() : options_.exchange->bytes();
  }
  /// Null where experts do not move.
  const rebalance::Rebalancer* rebalancer() const { return rebalancer_; }

  /// The part of a tensor-parallel rank that has no scheduler: waits for the rows of one step, as long as it
  /// takes, and computes them. False when the rank with the scheduler has ended.
  Result<bool> Follow();
  /// Ends Follow on the other ranks of the replica. Call once, after the last step.
  Status ReleaseFollowers();

 private:
  // A row of logits and what it is for.
  struct LogitUse {
    const ScheduledSequence* scheduled = nullptr;
    StepOutput* output = nullptr;  // set: sample the next token
    int64_t prompt_position = -1;  // set: score the prompt token at this position
  };

  int64_t NoteWidth() const { return options_.kv.layout.note_bytes / static_cast<int64_t>(sizeof(uint16_t)); }
  Status ShareRoutedExperts(const Batch& batch);
  Status EndForward(const Batch& batch);
  void BeginStep(Duration timeout);
  nn::StepContext ContextFor(const Batch& batch);
  void TellBlocks(const Batch& batch) const;
  std::vector<LogitUse> UsesOf(std::span<const ScheduledSequence> plan,
                               std::vector<StepOutput>& outputs) const;
  void Use(const LogitUse& use, std::span<const float> logits, nn::SamplerScratch& scratch) const;
  Status ForEachLogitChunk(const Batch& batch, const nn::StepContext& context,
                           const std::function<void(size_t first, size_t count)>& use);

  model::Decoder& decoder_;
  RunnerOptions options_;
  int64_t rows_per_chunk_;
  rebalance::Rebalancer* rebalancer_ = nullptr;
  WeightKeeper* keeper_ = nullptr;
  int64_t step_ = 0;
  TimePoint step_start_, step_end_;
  bool had_rows_ = false;
  std::vector<nn::AdapterRows> step_adapters_;  // of the step under way
  std::vector<float> logits_;                   // [rows_per_chunk, vocab]
  std::vector<nn::SamplerScratch> scratch_;     // one a worker
};

}  // namespace cadre::engine
