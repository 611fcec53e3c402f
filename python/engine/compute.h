#pragma once
// What needs no other rank: a device, matrices, experts, the router's choice. All of it f32.
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "base/error.h"
#include "kernels/device.h"
#include "kernels/pack.h"
#include "nn/expert_bank.h"
#include "sys/memory.h"
#include "sys/threads.h"

namespace cadre::python {

/// Kernels and threads.
class Device {
 public:
  /// isa: a name of kernels/isa.h, or "auto". Errors: kInvalidArgument for a name that is not known or an
  /// instruction set that the CPU lacks.
  static Result<std::shared_ptr<Device>> Create(const std::string& isa, int num_threads);

  kernels::Device get() const { return {.isa = isa_, .pool = pool_.get()}; }
  /// The pool runs one operation at a time: hold this meanwhile.
  std::unique_lock<std::mutex> Hold() const { return std::unique_lock(mutex_); }
  int num_threads() const { return pool_ == nullptr ? 1 : pool_->num_threads(); }

 private:
  kernels::Isa isa_ = kernels::Isa::kPortable;
  std::unique_ptr<sys::ThreadPool> pool_;
  mutable std::mutex mutex_;
};

/// y = W x for rows x; a row's result does not depend on the rows beside it.
class Linear {
 public:
  /// weight [n, k] row-major.
  static Result<std::shared_ptr<Linear>> Create(const float* weight, int64_t n, int64_t k);
  int64_t n() const { return matrix_.n; }
  int64_t k() const { return matrix_.k; }
  /// rows [num_rows, k] -> out [num_rows, n].
  void Run(const kernels::Device& device, const float* rows, int64_t num_rows, float* out) const;

 private:
  sys::Region region_;
  kernels::PackedMatrix matrix_;
};

/// Errors: kInvalidArgument if top_k is not within 1 .. num_experts.
Status TopK(const kernels::Device& device, const float* logits, int64_t num_rows, int32_t num_experts,
            int32_t top_k, int32_t* experts, float* weights);

/// Plain rows through a bank: offsets [bank.size() + 1], rows [offsets.back(), hidden], row_weights the same
/// length or null. Errors: kInvalidArgument for offsets that do not rise from 0 to num_rows.
Status RunBank(const kernels::Device& device, const nn::ExpertBank& bank, const float* rows, int64_t num_rows,
               const int32_t* offsets, const float* row_weights, float* out);

}  // namespace cadre::python
