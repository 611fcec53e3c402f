#include "python/engine/compute.h"

#include <vector>

#include "kernels/gemm.h"
#include "kernels/topk.h"
#include "sys/cpu.h"

namespace cadre::python {

constexpr auto kBad = Code::kInvalidArgument;

Result<std::shared_ptr<Device>> Device::Create(const std::string& isa, int num_threads) {
  auto device = std::make_shared<Device>();
  if (num_threads < 1 || num_threads > 4096)
    return Fail(kBad, "threads is {}; it goes from 1 to 4096", num_threads);
  device->isa_ = kernels::BestIsa();
  if (isa != "auto") {
    CADRE_ASSIGN(device->isa_, kernels::ParseIsa(isa));
    if (!kernels::IsaSupported(device->isa_)) {
      return FailParam(kBad, "CADRE_ISA",
                       "{} asks for instructions that this CPU ({}) lacks; the fastest it has is {}", isa,
                       sys::CpuModelName(), kernels::IsaName(kernels::BestIsa()));
    }
  }
  if (num_threads > 1) {
    device->pool_ = std::make_unique<sys::ThreadPool>(sys::ThreadPoolOptions{
        .num_threads = num_threads, .cpus = {}, .spin = num_threads <= sys::UsableCpus()});
  }
  return device;
}

Result<std::shared_ptr<Linear>> Linear::Create(const float* weight, int64_t n, int64_t k) {
  if (n < 1 || k < 1) return Fail(kBad, "a matrix of {} x {} is empty", n, k);
  auto linear = std::make_shared<Linear>();
  CADRE_ASSIGN(
      linear->region_,
      sys::AllocateRegion(static_cast<size_t>(kernels::PackedBytes(kernels::PackFormat::kF32, n, k))));
  linear->matrix_ = {.data = linear->region_.data(), .n = n, .k = k, .format = kernels::PackFormat::kF32};
  kernels::PackRows(linear->matrix_, 0, n, weight, DType::kF32, k);
  return linear;
}

void Linear::Run(const kernels::Device& device, const float* rows, int64_t num_rows, float* out) const {
  kernels::Gemm(device, {.m = num_rows, .a = rows, .a_stride = k(), .w = matrix_, .c = out, .c_stride = n()});
}

Status TopK(const kernels::Device& device, const float* logits, int64_t num_rows, int32_t num_experts,
            int32_t top_k, int32_t* experts, float* weights) {
  if (top_k < 1 || top_k > num_experts)
    return Fail(kBad, "top_k is {}; of {} experts it goes from 1 to {}", top_k, num_experts, num_experts);
  kernels::RouterTopK(device, {.num_rows = num_rows,
                               .num_experts = num_experts,
                               .top_k = top_k,
                               .logits = logits,
                               .score = kernels::RouterScore::kSoftmaxAfterTopK,
                               .experts = experts,
                               .weights = weights});
  return {};
}

Status RunBank(const kernels::Device& device, const nn::ExpertBank& bank, const float* rows, int64_t num_rows,
               const int32_t* offsets, const float* row_weights, float* out) {
  for (int32_t e = 0; e <= bank.size(); ++e) {
    const int32_t before = e == 0 ? 0 : offsets[e - 1];
    if (offsets[e] < before || offsets[e] > num_rows || (e == 0 && offsets[0] != 0) ||
        (e == bank.size() && offsets[e] != num_rows)) {
      return Fail(kBad, "offsets[{}] is {}; offsets rise from 0 to the number of rows, {}", e, offsets[e],
                  num_rows);
    }
  }
  std::vector<const void*> addresses;
  for (int64_t r = 0; r < num_rows; ++r) addresses.push_back(rows + r * bank.hidden());
  bank.Run(device,
           {.num_rows = num_rows,
            .offsets = {offsets, static_cast<size_t>(bank.size()) + 1},
            .rows = addresses.data(),
            .row_weights = row_weights},
           out);
  return {};
}

}  // namespace cadre::python
