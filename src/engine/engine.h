#pragma once
// The contract of an engine: ours in this process, a rank behind a socket (link), or many of them (cluster).
#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/control.h"
#include "engine/prefix_digest.h"
#include "engine/request.h"

namespace cadre::engine {

/// What the front needs to know of the model that is served.
struct ModelInfo {
  int64_t vocab_size = 0;
  int64_t max_model_len = 0;
  int64_t num_kv_blocks = 0;  ///< per rank
  int block_size = 0;
  KvTransferInfo kv_transfer;
};

/// How many tokens the steps of a rank had: vLLM's buckets of vllm:iteration_tokens_total.
struct StepSizes {
  static constexpr std::array<int64_t, 13> kBounds = {1,   8,    16,   32,   64,   128,  256,
                                                      512, 1024, 2048, 4096, 8192, 16384};
  std::vector<int64_t> counts = std::vector<int64_t>(kBounds.size() + 1);  ///< the last: beyond all bounds
  int64_t sum = 0;

  void Add(int64_t num_tokens);
};

inline void StepSizes::Add(int64_t num_tokens) {
  const auto bucket = std::lower_bound(kBounds.begin(), kBounds.end(), num_tokens) - kBounds.begin();
  ++counts[static_cast<size_t>(bucket)];
  sum += num_tokens;
}

/// The state of expert balancing, as of its last report; the same on all ranks.
struct EplbStats {
  int64_t epoch = 0;  ///< of the maps; 0: experts do not move
  int64_t num_rebalances = 0;
  int64_t num_moved = 0;         ///< experts that went from one rank to another
  int64_t moved_bytes = 0;       ///< theirs
  int64_t num_failed_waves = 0;  ///< tries that left the maps as they were
  double moving_seconds = 0;     ///< of this rank's time, spent on moving
  bool moving = false, stalled = false;
  std::string waits_for;                   ///< where stalled
  double balancedness = 0;                 ///< 0..1, over the window
  std::vector<double> layer_balancedness;  ///< [MoE layers]
  std::vector<double> rank_tokens;         ///< [ranks] of the window, all layers
  /// Of the window: [MoE layers * experts] while that is at most kMaxExpertTokens, else [experts], all
  /// layers.
  std::vector<double> expert_tokens;
  bool one_row_of_experts = false;  ///< the latter
  int64_t version = 0;              ///< equal versions of one rank have equal vectors

  static constexpr size_t kMaxExpertTokens = 4096;
};

/// Everything that a person may want to know of it; too large to be told with every step.
struct EplbState {
  EplbStats stats;
  std::string model;  ///< as records of the load name it
  std::string policy, replica_routing;
  bool use_async = true;
  int64_t window_size = 0, window_steps = 0;  ///< steps: most, and those in it now
  int64_t step_interval = 0, steps_until_next = 0;
  int64_t num_unchanged = 0;  ///< rebalances that found nothing worth moving
  int32_t top_k = 0;
  int32_t num_layers = 0;                                                 ///< MoE layers
  int32_t num_experts = 0, num_slots = 0, num_ranks = 0, num_spares = 0;  ///< spares: places a rank
  std::vector<int64_t> layer_epochs;                                      ///< [layers]
  std::vector<int32_t> slots,
      start_slots;            ///< [layers, slots] the expert in each slot: now, and at the start
  std::vector<int64_t> load;  ///< [layers, experts] rows of the window, all ranks

  /// The sizes agree with each other and experts are in range: true of what an engine says.
  bool IsWhole() const;
};

/// A moment's load of one rank, as /load and the metrics show it. Counters count from the start.
struct RankStats {
  int rank = 0;
  int64_t num_running = 0;
  int64_t num_waiting = 0;
  double kv_cache_usage = 0;  ///< 0..1
  int64_t num_preemptions = 0;
  int64_t prefix_cache_queries = 0;  ///< tokens asked for
  int64_t prefix_cache_hits = 0;     ///< tokens found
  int64_t prompt_tokens = 0;
  int64_t generation_tokens = 0;
  int64_t num_steps = 0;
  double cpu_seconds = 0;         ///< of the process that runs the rank
  bool paused = false;            ///< or about to be
  int64_t weight_generation = 1;  ///< 1 at the start, one more with each update
  AdapterList adapters;
  std::string broken;  ///< why nothing can be served until the next update of weights; else empty
  int64_t dispatch_bytes = 0, combine_bytes = 0;  ///< drawn from other ranks' memory for the experts
  int64_t exchange_wire_bytes = 0;                ///< of the exchange, received from other hosts for this one
  EplbStats eplb;
  KvTransferStats kv_transfer;
  StepSizes step_sizes;  ///< of the steps in which this rank had tokens: prompt rows and new tokens
};

/// A running request; Cancel may be called from any thread, at any time, also after the end.
class RequestHandle {
 public:
  virtual ~RequestHandle() = default;
  virtual void Cancel() = 0;
  /// The engine that serves it, as RankStats::rank names it.
  virtual int rank() const = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;

  virtual const ModelInfo& model_info() const = 0;

  /// Queues a request. Any thread; never blocks. `sink` is kept until its OnFinish has returned.
  /// Errors: kResourceExhausted (queue full: the client may come again), kUnavailable (draining or dead),
  /// kInvalidArgument (can never fit: the message gives the numbers). On error the sink hears nothing.
  virtual Result<std::unique_ptr<RequestHandle>> Submit(Request request, std::shared_ptr<EventSink> sink) = 0;

  /// One entry a rank. Any thread; cheap.
  virtual std::vector<RankStats> Stats() const = 0;

  /// Where other instances reach each rank's KV blocks, in the order of ranks. Any thread; cheap.
  virtual std::vector<KvSource> KvSources() const { return {model_info().kv_transfer.source}; }

  /// What a rank's prefix cache holds that the caller does not know yet. Any thread; never blocks. `done`
  /// hears it once, on any thread, and must not block: kUnsupported where the engine cannot tell,
  /// kInvalidArgument for a rank that is not there, kUnavailable when it has ended.
  virtual void Prefixes(PrefixQuery query, PrefixDone done);

  /// OK while requests can be served; else who is missing or what died.
  virtual Status Health() const = 0;

  /// How experts are balanced, as of the last report. Any thread; waits for a rank of another process, at
  /// most until `deadline`. Errors: kNotFound where they are not balanced, kUnavailable when no rank answers.
  virtual Result<EplbState> Eplb(TimePoint deadline) const;

  /// Forgets every cached prefix that no running request holds.
  virtual Status ResetPrefixCache() = 0;

  /// Gives the engine an order (control.h). Any thread; never blocks. `done` hears once what became of it:
  /// kUnsupported where the engine knows no such orders, kUnavailable when it has ended.
  virtual void Control(ControlRequest request, ControlDone done);

  /// Refuses new requests from now on, lets running ones end until `deadline`, then aborts the rest; returns
  /// when all sinks have heard their end and the threads are gone. Call once.
  virtual void Drain(TimePoint deadline) = 0;
};

}  // namespace cadre::engine
