#include "nn/expert_bank.h"

#include <algorithm>

#include "base/check.h"

namespace cadre::nn {
namespace {

using kernels::kPanelRows;
using kernels::PackFormat;
using kernels::RoundUp;

constexpr int64_t kMost = int64_t{1} << 20;

}  // namespace

Result<ExpertBank> ExpertBank::Create(int32_t num_experts, int64_t hidden, int64_t inter) {
  if (num_experts < 0 || num_experts > kMost || hidden < 1 || hidden > kMost || inter < 1 || inter > kMost) {
    return Fail(Code::kInvalidArgument,
                "{} experts with hidden size {} and intermediate size {}: sizes go from 1 to {}", num_experts,
                hidden, inter, kMost);
  }
  ExpertBank bank;
  bank.hidden_ = hidden;
  bank.inter_ = inter;
  // gate and up in turns of 16 rows each (kernels::ExpertWeights); rows that pad stay zero.
  const int64_t gate_up_n = 2 * RoundUp(inter, kPanelRows);
  const int64_t gate_up_bytes = kernels::PackedBytes(PackFormat::kF32, gate_up_n, hidden);
  const int64_t bytes = gate_up_bytes + kernels::PackedBytes(PackFormat::kF32, hidden, inter);
  bank.expert_bytes_ = bytes;
  if (num_experts > 0) {
    CADRE_ASSIGN(bank.region_, sys::AllocateRegion(static_cast<size_t>(bytes * num_experts)));
  }
  for (int32_t e = 0; e < num_experts; ++e) {
    std::byte* const base = bank.region_.data() + e * bytes;
    bank.experts_.push_back(
        {.gate_up = {.data = base, .n = gate_up_n, .k = hidden, .format = PackFormat::kF32},
         .down = {.data = base + gate_up_bytes, .n = hidden, .k = inter, .format = PackFormat::kF32}});
  }
  return bank;
}

void ExpertBank::Set(int32_t local, const ExpertMatrices& matrices) {
  CADRE_CHECK(local >= 0 && local < size());
  const kernels::ExpertWeights& expert = experts_[static_cast<size_t>(local)];
  for (int64_t row = 0; row < inter_; row += kPanelRows) {
    const int64_t count = std::min(kPanelRows, inter_ - row);
    PackRows(expert.gate_up, 2 * row, count, matrices.gate + row * hidden_, DType::kF32, hidden_);
    PackRows(expert.gate_up, 2 * row + kPanelRows, count, matrices.up + row * hidden_, DType::kF32, hidden_);
  }
  PackRows(expert.down, 0, hidden_, matrices.down, DType::kF32, inter_);
}

void ExpertBank::Run(const kernels::Device& device, const a2a::RowTable& table, float* out) const {
  if (table.num_rows == 0) return;
  std::vector<float> inter_rows(static_cast<size_t>(table.num_rows * RoundUp(inter_, 2)));
  kernels::RunExperts(device, {.hidden = hidden_,
                               .inter = inter_,
                               .act_type = DType::kF32,
                               .experts = experts_,
                               .offsets = table.offsets.data(),
                               .rows = table.rows,
                               .row_weights = table.row_weights,
                               .inter_rows = inter_rows.data(),
                               .out = out,
                               .out_stride = hidden_});
}

}  // namespace cadre::nn
