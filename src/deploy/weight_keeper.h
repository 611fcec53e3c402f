#pragma once
// Replaces the weights of a running rank, together with all others, between two steps.
//
// 1. Open: every rank opens what the weights come from and maps each tensor to its places.
// 2. Agree: one rank that cannot, and nothing happens anywhere.
// 3. Write in place, on all threads: the dense weights by one rank of each shard and host, experts by
//    whoever holds them, copies too. A rebalance under way is dropped first: half-filled spares do not count.
// 4. Agree: one rank that failed, and all go back, to their copies, else to the folder applied last.
// 5. Count the generation; requests go on with the next step.
//
// A LoRA adapter (adapter_keeper.h) is read beside what is in place, so nothing has to go back.
//
// There is no second copy unless asked for: places are overwritten, so a failure in the middle costs a
// reload, and where the last weights did not come from a folder, the engine is broken until the next update.
#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "a2a/collective.h"
#include "checkpoint/remote_source.h"
#include "checkpoint/source.h"
#include "deploy/adapter_keeper.h"
#include "deploy/weight_memory.h"
#include "engine/control.h"
#include "model/loader.h"
#include "rebalance/rebalancer.h"

namespace cadre::deploy {

using SourceOpener =
    std::function<Result<std::unique_ptr<checkpoint::TensorSource>>(const std::string& folder)>;

struct WeightKeeperParts {
  const model::ModelSpec* spec = nullptr;
  model::WeightPlan plan;
  model::ModelWeights* weights = nullptr;
  sys::ThreadPool* pool = nullptr;
  rebalance::Rebalancer* rebalancer = nullptr;  ///< null where experts stay
  a2a::Collective* collective = nullptr;        ///< of all ranks of the deployment; null for a rank alone
  bool writes_dense = true;                     ///< false where another rank of the host does
  std::string start_folder;                     ///< what is in place at the start
  /// --weight-update-copy: the memory that updates write to, kept a second time. Empty: no copy.
  std::vector<std::span<std::byte>> copied = {};
  AdapterKeeper* adapters = nullptr;  ///< null: --enable-lora is not given
  int rank = 0;
  SourceOpener open = checkpoint::OpenCheckpoint;
  checkpoint::RemoteMemoryOpener open_memory = OpenWeightMemory;
};

class WeightKeeper : public engine::WeightKeeper {
 public:
  /// Takes the memory of the second copy. Errors: kResourceExhausted.
  static Result<std::unique_ptr<WeightKeeper>> Create(WeightKeeperParts parts);

  Result<Outcome> CarryOut(const engine::WeightOrder& order) override;

 private:
  using Source = std::unique_ptr<checkpoint::TensorSource>;

  explicit WeightKeeper(WeightKeeperParts parts) : parts_(std::move(parts)) {}
  Result<Outcome> Replace(const engine::WeightOrder& order);
  Result<Outcome> ChangeAdapter(const engine::WeightOrder& order);
  Result<Outcome> GoBack(Outcome outcome, const Error& why);
  Result<Source> Open(const engine::WeightOrder& order);
  Result<int64_t> Write(const checkpoint::TensorSource& source, int64_t generation);
  Result<Status> Agree(Status own);
  void Copy(bool back);

  WeightKeeperParts parts_;
  std::optional<std::string> last_folder_;  // that the weights in place came from; empty: not from a folder
  std::vector<sys::Region> copies_;         // of parts_.copied
  std::unique_ptr<checkpoint::RemoteWeights> remote_;
  bool broken_ = false;
  int64_t generation_ = 1, num_orders_ = 0;
  uint64_t order_id_ = 0;  // of the order under way, as is the deadline
  TimePoint deadline_;
  int64_t bytes_ = 0;  // read by all ranks for it
};

}  // namespace cadre::deploy
