#pragma once
// What this machine can do at best, measured: the denominators of every share that a benchmark reports.
#include <cstdint>

#include "base/error.h"
#include "kernels/device.h"
#include "tensor/dtype.h"

namespace cadre::kernels {

struct MachineRates {
  double read_bytes_per_s = 0;  ///< DRAM, all threads of the device reading
  double operations_per_s = 0;  ///< multiplications and additions of the product instruction, all threads
};

struct ProbeOptions {
  int64_t buffer_bytes = 0;  ///< what is read; 0: 1 GiB or 8 times the last cache, whichever is more
  double seconds = 0.3;      ///< for each of the two
};

/// Measures with the instructions that the device's kernels use for weights of `type` (kBf16 or kF32). The
/// best of many short passes counts, so that a busy neighbour does not lower the floor. Errors:
/// kResourceExhausted where the buffer does not fit.
Result<MachineRates> MeasureRates(const Device& device, DType type, const ProbeOptions& options = {});

}  // namespace cadre::kernels
