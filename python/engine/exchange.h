#pragma once
// Exchanges and collectives of a group of ranks, as objects that end with their world.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "a2a/a2a.h"
#include "a2a/collective.h"
#include "eplb/placement.h"
#include "python/engine/compute.h"
#include "python/engine/world.h"

namespace cadre::python {

struct ExchangeOptions {
  std::shared_ptr<World> world;  ///< null: one rank alone
  std::vector<int> ranks;        ///< world ranks of the group, this one among them; rising
  std::string backend;
  int32_t num_experts = 0, top_k = 0;
  int64_t hidden = 0, max_rows = 0;
  std::string placement = "linear";
  Duration timeout = std::chrono::seconds(60);
  std::shared_ptr<Device> device;
};

/// Dispatch and combine of one expert layer, f32 rows, all rows of a call in one piece. After a failed wait
/// every further call fails with the same error.
class Exchange final : public Tenant {
 public:
  /// Collective over the group. Errors: those of a2a::Create, of the placement and of the world.
  static Result<std::shared_ptr<Exchange>> Create(const ExchangeOptions& options);

  /// rows [T, hidden], experts [T, top_k] logical or -1, weights [T, top_k]; returns the number of rows that
  /// came for this rank's experts. Errors: kInvalidArgument for experts out of range or twice in a row, more
  /// than max_rows rows, or a dispatch before the last one was combined.
  Result<int64_t> Dispatch(const float* rows, int64_t num_rows, const int32_t* experts, const float* weights);
  /// What came: rows [N, hidden], offsets [held + 1], weights [N] that expert rows must be multiplied with.
  Status Received(float* rows, int32_t* offsets, float* weights) const;
  /// Runs the held experts over what came, where it lies. The bank holds them in the order of held().
  Status Compute(const nn::ExpertBank& bank);
  /// out [T, hidden] of the last dispatch. expert_rows [N, hidden] already multiplied with their weights;
  /// null after Compute.
  Status Combine(const float* expert_rows, float* out);

  int64_t num_rows() const { return num_rows_; }
  int64_t num_received() const { return table_.num_rows; }
  const ExchangeOptions& options() const { return options_; }
  std::vector<int32_t> held() const;
  /// The rank (by position in the group) of every expert.
  std::vector<int32_t> homes() const;
  a2a::ByteCounts bytes() const;
  std::string Describe() const;
  void Vacate() override { exchange_.reset(); }

 private:
  enum class Stage { kIdle, kReceived, kComputed };
  Exchange(const ExchangeOptions& options, int index, eplb::ExpertMap map)
      : options_(options), index_(index), map_(std::move(map)) {}
  Status CheckUsable() const;
  Status CheckChoices(int64_t num_rows, const int32_t* experts) const;
  Status Keep(Status status);

  ExchangeOptions options_;
  int index_;
  eplb::ExpertMap map_;
  std::unique_ptr<a2a::AllToAll> exchange_;
  Stage stage_ = Stage::kIdle;
  a2a::RowTable table_;
  float* expert_rows_ = nullptr;
  std::vector<float> buffer_;
  std::vector<int32_t> slots_;
  int64_t num_rows_ = 0, step_ = 0;
  Status broken_;
};

struct CollectiveOptions {
  std::shared_ptr<World> world;
  std::vector<int> ranks;
  Duration timeout = std::chrono::seconds(60);
};

class Collective final : public Tenant {
 public:
  static Result<std::shared_ptr<Collective>> Create(const CollectiveOptions& options);

  Status Barrier();
  Status AllReduceSum(float* x, int64_t count);
  Status AllGather(const void* own, const std::vector<int64_t>& sizes, void* out);
  Status Broadcast(int root, std::string& bytes);
  void Vacate() override { collective_.reset(); }

 private:
  explicit Collective(const CollectiveOptions& options) : options_(options) {}
  Status Begin();
  Status Keep(Status status);

  CollectiveOptions options_;
  std::unique_ptr<a2a::Collective> collective_;
  int64_t step_ = 0;
  Status broken_;
};

}  // namespace cadre::python
