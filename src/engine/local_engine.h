#pragma once
// The engine of one rank: a thread that owns scheduler, sequences, KV pool and model, fed by one bounded
// inbox.
//
// Life of a request: Submit puts it into the inbox -> the loop moves it to the scheduler -> each step
// computes its tokens and hands them to its sink -> the end removes it and hands the sink exactly one
// OnFinish.
//
// With other ranks (a gate is given) every turn of the loop begins by agreeing on what all do: a rank without
// work of its own steps with no rows as long as anybody has some, and all sleep when nobody has.
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/control_desk.h"
#include "engine/engine.h"
#include "engine/runner.h"
#include "engine/scheduler.h"
#include "engine/step_pace.h"

namespace cadre::engine {

/// How the ranks of an expert-parallel group take steps together. Called from the engine thread alone.
class StepGate {
 public:
  virtual ~StepGate() = default;

  enum class Turn {
    kStep,   ///< somebody has work: all take part in one step
    kOrder,  ///< all have been given the same order about weights: it is carried out now
    kSleep,  ///< nobody has: Sleep(), then ask again
    kStop,   ///< all are asked to stop
  };
  /// Called before the engine looks for work: a Wake() after this ends the next Sleep() at once.
  virtual void BeginTurn() = 0;
  /// What a rank would do next.
  struct Offer {
    int64_t num_tokens = 0;  ///< 0: no work here
    int64_t num_sequences = 0;
    uint64_t order = 0;       ///< about weights, that this rank has been given (ControlDesk::NextOrder)
    bool generates = false;   ///< sequences here wait for their next token
    bool wants_step = false;  ///< a step is wanted all the same: experts are on their way
    bool wants_stop = false;  ///< this rank has nothing left and has been asked to end
  };
  /// Tells the others this rank's offer and learns what all do. Errors name who is missing.
  virtual Result<Turn> Agree(const Offer& offer) = 0;
  /// Of the step just agreed on: kDecode if no rank has more than one token of a sequence.
  virtual a2a::Phase phase() const = 0;
  /// Of that step: rows of the rank with the most.
  virtual int64_t most_tokens() const = 0;
  /// Whether any rank's offer said so when they last agreed. False before.
  virtual bool anybody_generates() const = 0;
  /// Sleeps until Wake() is called on any rank of the group, `most` at most; then all wake. Errors: a rank
  /// has died.
  virtual Status Sleep(Duration most) = 0;
  /// Any thread.
  virtual void Wake() = 0;
};

struct LocalEngineOptions {
  int rank = 0;
  ModelInfo model_info;
  SchedulerOptions scheduler;
  int64_t max_queued_requests = 4096;
  /// While sequences generate, on any rank, prompt chunks are cut so that a step takes about this long at the
  /// measured speed.
  double max_step_seconds = 0.5;
  /// Carries out orders about weights; may be null: they are refused. Outlives the engine.
  WeightKeeper* weight_keeper = nullptr;
  AdapterList adapters;  ///< that are loaded at the start
  /// Called once, from the engine thread, when memory has run out in its own work: all requests have heard
  /// their end, and the engine takes no more. May be null.
  std::function<void(const Error&)> on_out_of_memory;
  /// Hands blocks to and from other engines; null: no request may ask for it. Outlives the engine; its wake
  /// function calls Wake().
  handoff::Agent* agent = nullptr;
  KvHandOffOptions hand_off;
};

class LocalEngine : public Engine {
 public:
  /// `gate` is null for a rank alone. Starts the engine thread.
  LocalEngine(LocalEngineOptions options, std::unique_ptr<Runner> runner, std::unique_ptr<StepGate> gate);
  ~LocalEngine() override;

  const ModelInfo& model_info() const override { return options_.model_info; }
  Result<std::unique_ptr<RequestHandle>> Submit(Request request, std::shared_ptr<EventSink> sink) override;
  std::vector<RankStats> Stats() const override;
  Status Health() const override;
  Result<EplbState> Eplb(TimePoint deadline) const override;
  Status ResetPrefixCache() override;
  void Control(ControlRequest request, ControlDone done) override;
  void Prefixes(PrefixQuery query, PrefixDone done) override;
  void Drain(TimePoint deadline) override;

  /// The agent has something to tell. Any thread.
  void Wake();

 private:
  struct Inbox;
  class Handle;

  void Loop();
  void TakeInbox();
  void TakeTransfers();
  void TakeCalls(std::vector<ControlCall> calls);
  Status CarryOut(uint64_t order);
  bool FindAdapter(Sequence& sequence);
  void TakeAdapter(const AdapterInfo& loaded);
  void DropAdapter(const AdapterInfo& unloaded);
  void TellAdapters();
  void WaitForWork();
  Duration LongestSleep() const;
  Status GuardedTurn(bool& stop);
  Status Turn(bool& stop);
  Status Step(std::span<const ScheduledSequence> plan, a2a::Phase phase);
  bool Generates() const;
  int32_t TokenBudget() const;
  void Deliver(StepOutput& output);
  std::optional<Finish> EndAfter(const Sequence& sequence, int32_t token) const;
  RoutedExperts RoutedOf(const Sequence& sequence) const;
  void ReportPrompt(Sequence& sequence);
  void EndWell(Sequence& sequence, Finish finish, std::vector<GeneratedToken> last_tokens = {});
  void End(SeqId id, Finish finish, std::vector<GeneratedToken> last_tokens = {});
  void EndAll(FinishReason reason, const Error& error);
  void EndOverdue();
  void PublishStats();

  LocalEngineOptions options_;
  std::unique_ptr<Runner> runner_;
  std::unique_ptr<StepGate> gate_;
  PrefixDigest prefixes_;
  Scheduler scheduler_;
  std::optional<KvHandOff> hand_off_;
  ControlDesk desk_;
  std::shared_ptr<Inbox> inbox_;
  int64_t next_sequence_ = 0;
  AdapterList adapters_;  // of the engine thread
  int64_t prompt_tokens_ = 0, generation_tokens_ = 0, num_steps_ = 0;
  int64_t eplb_version_ = 0;  // of the snapshot in stats_
  StepSizes step_sizes_;
  StepPace pace_;

  mutable std::mutex stats_mutex_;
  RankStats stats_;
  std::thread thread_;
};

}  // namespace cadre::engine
