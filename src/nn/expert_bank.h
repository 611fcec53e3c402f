#pragma once
// The routed experts that one rank holds, packed from plain f32 matrices: for those who bring weights of
// their own instead of a checkpoint (the demo, the Python package). model/loader.h fills the same structs
// from files.
#include <cstdint>
#include <span>
#include <vector>

#include "a2a/a2a.h"
#include "base/error.h"
#include "kernels/device.h"
#include "kernels/grouped_gemm.h"
#include "sys/memory.h"

namespace cadre::nn {

/// One expert: down(silu(gate x) * up x). Row-major, rows are outputs.
struct ExpertMatrices {
  const float* gate = nullptr;  ///< [inter, hidden]
  const float* up = nullptr;    ///< [inter, hidden]
  const float* down = nullptr;  ///< [hidden, inter]
};

class ExpertBank {
 public:
  /// Room for so many experts, all zero. Rows and weights are f32. Errors: kInvalidArgument for sizes below 1
  /// or past 2^20, kResourceExhausted.
  static Result<ExpertBank> Create(int32_t num_experts, int64_t hidden, int64_t inter);

  /// Packs the weights of expert `local`, 0 <= local < size (checked). Nothing of `matrices` is kept.
  void Set(int32_t local, const ExpertMatrices& matrices);

  int32_t size() const { return static_cast<int32_t>(experts_.size()); }
  int64_t hidden() const { return hidden_; }
  int64_t inter() const { return inter_; }
  /// Bytes of the packed weights.
  int64_t bytes() const { return expert_bytes_ * size(); }
  std::span<const kernels::ExpertWeights> experts() const { return experts_; }

  /// out [table.num_rows, hidden] f32: each row through the expert of its slot, times its row weight. The
  /// table has one slot for each expert. Takes scratch of num_rows * inter floats for the call.
  void Run(const kernels::Device& device, const a2a::RowTable& table, float* out) const;

 private:
  ExpertBank() = default;
  int64_t hidden_ = 0, inter_ = 0, expert_bytes_ = 0;
  sys::Region region_;
  std::vector<kernels::ExpertWeights> experts_;
};

}  // namespace cadre::nn
