#pragma once
// Keeps the experts balanced while the ranks serve: counts what the router chose, plans now and then, lets
// the mover fill spare places a little in every step, and switches a layer's map between two steps.
//
//   counting   every step: slot counts -> expert counts -> the window of the last steps, this rank's own rows
//   planning   when the cadence says so: windows summed over ranks, one plan made by every rank for itself
//   moving     waves, each of them over many steps; the flip of a wave in the step in which all agree
//
// Everything is decided from what all ranks see alike (the number of steps, the summed load, the mover's
// verdicts), so nobody leads and nothing is sent but loads, weights and readiness. A wave that fails leaves
// the maps as they are; it is counted, logged, and planned anew from the same load.
//
// Owned by the engine thread. Only snapshot() may be called from any thread.
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "a2a/collective.h"
#include "eplb/cadence.h"
#include "eplb/load.h"
#include "eplb/moves.h"
#include "eplb/policy.h"
#include "nn/weights.h"
#include "rebalance/expert_memory.h"
#include "rebalance/mover.h"

namespace cadre::rebalance {

struct RebalanceOptions {
  int32_t window_size = 1000;    ///< steps whose load counts
  int32_t step_interval = 3000;  ///< steps between two rebalances
  bool use_async = true;         ///< false: the step in which a rebalance is due waits until it is done
  std::string policy = "default";
  bool log_balancedness = false;
  int32_t log_balancedness_interval = 1;              ///< steps
  std::string model_name;                             ///< for the log
  int32_t num_groups = 1;                             ///< the model's expert groups
  int32_t num_spares = 0;                             ///< spare places a rank
  double step_share = 0.02;                           ///< of a step's time that copying may take
  Duration stalled_after = std::chrono::seconds(60);  ///< a wave that takes longer is named in the log
  int32_t num_tries = 3;   ///< of a rebalance whose waves fail, before the next interval
  std::string load_model;  ///< what records of the load call the model (eplb::LoadRecord)
  int32_t top_k = 1;       ///< experts a row, for the same
};

/// What a rank brings.
struct RebalanceParts {
  ExpertMemory* memory = nullptr;         ///< null for one rank: loads are counted, nothing moves
  a2a::Collective* collective = nullptr;  ///< of all ranks; null for one rank
  sys::ThreadPool* pool = nullptr;
  std::vector<eplb::ExpertMap> maps;     ///< [MoE layers] at start
  std::vector<nn::MoeWeights*> weights;  ///< [MoE layers]; experts are pointed to their places
  bool prefer_own_host = false;          ///< rows take copies in the own host where there are any
  std::function<bool(const eplb::Wave&)> fails = {};  ///< tests: whether this rank gives a wave up
};

/// What the engine knows of a step when it has ended.
struct StepReport {
  int64_t step = 0;
  bool had_rows = false;  ///< this rank's own
  Duration busy{};        ///< time of the step itself
  TimePoint deadline = TimePoint::max();
};

/// For people and metrics: as of the last report (every report_steps() steps).
struct Snapshot {
  int64_t epoch = 1;                              ///< largest of the layers'
  int64_t num_rebalances = 0, num_unchanged = 0;  ///< finished; of these, found nothing worth moving
  int64_t num_moved = 0;                          ///< experts received by ranks, over all ranks
  int64_t moved_bytes = 0;                        ///< theirs
  int64_t num_failed_waves = 0;
  double moving_seconds = 0;  ///< spent in copying and agreeing, this rank
  bool moving = false, stalled = false;
  std::string waits_for;  ///< where stalled: who has not finished
  int64_t steps_until_next = 0;
  int32_t window_steps = 0;
  eplb::LoadTable load;                           ///< window sums over all ranks
  std::vector<std::vector<int32_t>> slots;        ///< [layers][slots] expert in each slot
  std::vector<std::vector<int32_t>> start_slots;  ///< the same when serving began
  std::vector<int64_t> layer_epochs;              ///< [layers]
  eplb::SlotLayout layout;
  eplb::Balance balance;
  std::vector<eplb::Balance> layer_balance;  ///< [layers]
};

class Rebalancer {
 public:
  /// Points the weights' experts to their places (they are there already). Errors: an unknown policy, parts
  /// that do not fit together.
  static Result<std::unique_ptr<Rebalancer>> Create(const RebalanceOptions& options, RebalanceParts parts);

  /// [MoE layers], of the next step. The addresses stay, what they point to changes in AfterStep.
  const std::vector<const eplb::ExpertMap*>& maps() const { return map_addresses_; }
  /// [MoE layers, slots], zero at the start of a step: the router adds the choices of this rank's own rows.
  std::span<uint32_t> slot_counts() { return slot_counts_; }

  /// Collective over all ranks, after every step. Errors: those of the exchange between ranks.
  Status AfterStep(const StepReport& report);

  /// Whether steps are wanted though nobody has work: a rebalance is under way. The same on all ranks.
  bool moving() const { return schedule_.has_value(); }

  /// Ends a rebalance where it is (before weights are replaced): maps stay, half-filled places count for
  /// nothing. All ranks call it between the same two steps.
  void Abandon(const std::string& why);

  const RebalanceOptions& options() const { return options_; }
  bool prefers_own_host() const { return parts_.prefer_own_host; }

  Snapshot snapshot() const;
  /// Changes when the snapshot has changed (but for moving_seconds). Any thread.
  int64_t version() const { return version_.load(std::memory_order_acquire); }

 private:
  Rebalancer(const RebalanceOptions& options, RebalanceParts parts);

  int32_t num_layers() const { return static_cast<int32_t>(maps_.size()); }
  const eplb::SlotLayout& layout() const { return maps_.front().layout(); }
  int rank() const { return parts_.collective == nullptr ? 0 : parts_.collective->rank(); }
  int64_t report_steps() const;

  void Count(bool had_rows);
  Result<eplb::LoadTable> SummedLoad();
  Status Start();
  Status Plan();
  Status Move(const StepReport& report);
  void BeginWave();
  Status EndWave(Verdict verdict);
  void Flip(const eplb::Wave& wave);
  void Finish();
  void WatchForStall();
  RoundBudget BudgetFor(const StepReport& report) const;
  void LearnMessageSize(Duration spent, Duration allowed);
  void Report(const eplb::LoadTable& load);
  void LogBalance(const eplb::Balance& balance) const;

  RebalanceOptions options_;
  RebalanceParts parts_;
  const eplb::Policy* policy_ = nullptr;
  eplb::Hosts hosts_;
  std::vector<eplb::ExpertMap> maps_;
  std::vector<const eplb::ExpertMap*> map_addresses_;
  std::vector<uint32_t> slot_counts_, expert_counts_;
  eplb::LoadWindow window_;
  eplb::Cadence cadence_;
  eplb::PlaceTable places_;
  std::unique_ptr<Mover> mover_;

  // Of the rebalance under way.
  eplb::LoadTable planned_load_;
  std::optional<eplb::Schedule> schedule_;
  size_t wave_ = 0;
  int32_t tries_ = 0;
  TimePoint started_, wave_started_;
  int64_t message_bytes_;
  bool stalled_ = false;

  // Changes the snapshot under its lock.
  template <typename Change>
  void Tell(Change change) {
    const std::lock_guard lock(mutex_);
    change(snapshot_);
    version_.fetch_add(1, std::memory_order_release);
  }
  mutable std::mutex mutex_;
  Snapshot snapshot_;  // under mutex_
  std::atomic<int64_t> version_ = 0;
};

}  // namespace cadre::rebalance
