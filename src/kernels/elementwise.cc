#include "kernels/elementwise.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "kernels/row_threads.h"

namespace cadre::kernels {

const RowKernels& RowKernelsFor(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      break;
    case Isa::kAvx2:
      return avx2::kRowKernels;
    case Isa::kAmx:
    case Isa::kAmxEmulated:
    case Isa::kAvx512:
      return avx512::kRowKernels;
    case Isa::kAvx512Bf16:
      return avx512_bf16::kRowKernels;
  }
  return portable::kRowKernels;
}

namespace {

void CheckOutType(DType type) {
  CADRE_CHECK(type == DType::kF32 || type == DType::kBf16);
}

void* RowAt(void* p, DType type, int64_t elements) {
  return static_cast<std::byte*>(p) + elements * (type == DType::kF32 ? 4 : 2);
}

}  // namespace

void RmsNorm(const Device& device, const RmsNormArgs& args) {
  CheckOutType(args.out_type);
  const RowKernels& kernels = RowKernelsFor(device.isa);
  const int64_t row = args.width * args.num_heads;
  ForRows(device, args.num_rows, kColumnNs * row, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t column = 0; column < row; column += args.width) {
        kernels.rms_norm(args.x + t * args.x_stride + column, args.weight, args.width, args.eps,
                         RowAt(args.out, args.out_type, t * args.out_stride + column),
                         args.out_type == DType::kBf16,
                         args.out_f32 == nullptr ? nullptr : args.out_f32 + t * row + column);
      }
    }
  });
}

void Rope(const Device& device, const RopeArgs& args) {
  CADRE_CHECK(args.rotary_dim % 2 == 0 && args.rotary_begin + args.rotary_dim <= args.head_dim);
  const RowKernels& kernels = RowKernelsFor(device.isa);
  ForRows(device, args.num_rows, kColumnNs * args.num_heads * args.rotary_dim,
          [&](int64_t begin, int64_t end) {
            for (int64_t t = begin; t < end; ++t) {
              kernels.rope(args.x + t * args.x_stride + args.rotary_begin, args.num_heads, args.head_dim,
                           args.rotary_dim, args.interleaved, args.cos + t * (args.rotary_dim / 2),
                           args.sin + t * (args.rotary_dim / 2));
            }
          });
}

void ConvertRows(const Device& device, int64_t num_rows, int64_t width, const float* x, int64_t x_stride,
                 void* out, DType out_type, int64_t out_stride) {
  CheckOutType(out_type);
  const RowKernels& kernels = RowKernelsFor(device.isa);
  ForRows(device, num_rows, kColumnNs * width, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      void* to = RowAt(out, out_type, t * out_stride);
      if (out_type == DType::kF32) {
        std::copy_n(x + t * x_stride, width, static_cast<float*>(to));
      } else {
        kernels.to_bf16(x + t * x_stride, width, static_cast<uint16_t*>(to));
      }
    }
  });
}

void SiluMul(const Device& device, const GatedArgs& args) {
  CheckOutType(args.out_type);
  const RowKernels& kernels = RowKernelsFor(device.isa);
  ForRows(device, args.num_rows, 3 * kColumnNs * args.inter, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* gate = args.gate_up + t * args.gate_up_stride;
      kernels.silu_mul(gate, gate + args.inter, args.inter,
                       RowAt(args.out, args.out_type, t * args.out_stride), args.out_type == DType::kBf16);
    }
  });
}

void CombineRows(const Device& device, const CombineArgs& args) {
  const RowKernels& kernels = RowKernelsFor(device.isa);
  ForRows(device, args.num_rows, kColumnNs * args.width * args.top_k, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t at = t * args.top_k;
      kernels.combine(args.expert_rows, args.width, args.index + at,
                      args.weights == nullptr ? nullptr : args.weights + at, args.top_k,
                      args.out + t * args.out_stride, args.accumulate);
    }
  });
}

void GatherRows(const Device& device, int64_t num_tokens, const int32_t* ids, const void* table, DType type,
                int64_t width, float scale, float* out) {
  CheckOutType(type);
  const RowKernels& kernels = RowKernelsFor(device.isa);
  const int64_t row_bytes = width * (type == DType::kF32 ? 4 : 2);
  ForRows(device, num_tokens, kColumnNs * width, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      kernels.scale(static_cast<const std::byte*>(table) + ids[t] * row_bytes, type == DType::kBf16, width,
                    scale, out + t * width);
    }
  });
}

void GatherPackedRows(const Device& device, int64_t num_tokens, const int32_t* ids, const PackedMatrix& table,
                      float scale, float* out) {
  constexpr double kStridedColumnNs = 1;
  ForRows(device, num_tokens, kStridedColumnNs * table.k, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = out + t * table.k;
      UnpackRows(table, ids[t], 1, row, table.k);
      for (int64_t i = 0; i < table.k; ++i) row[i] *= scale;
    }
  });
}

int32_t ArgMax(const Device& device, const float* x, int64_t width) {
  const RowKernels& kernels = RowKernelsFor(device.isa);
  const int64_t found = kernels.find(x, width, kernels.max(x, width));
  return found < 0 ? 0 : static_cast<int32_t>(found);  // not found: all are NaN
}

void ScaledExp(const Device& device, const float* x, int64_t width, float maximum, float factor, float* out) {
  RowKernelsFor(device.isa).scaled_exp(x, width, maximum, factor, out);
}

double SumAtLeast(const Device& device, const float* x, int64_t width, float least) {
  return RowKernelsFor(device.isa).sum_at_least(x, width, least);
}

int64_t SelectAtLeast(const Device& device, const float* x, int64_t width, float least, int32_t* index) {
  const float below = std::nextafter(least, -std::numeric_limits<float>::infinity());
  return RowKernelsFor(device.isa).select_above(x, width, below, index);
}

double LogSumExp(const Device& device, const float* x, int64_t width) {
  const RowKernels& kernels = RowKernelsFor(device.isa);
  const float maximum = kernels.max(x, width);
  if (std::isinf(maximum)) {
    // All are -infinity (their sum is too) or NaN, or one is infinite: no difference to it can be formed.
    for (int64_t i = 0; i < width; ++i) {
      if (std::isnan(x[i])) return std::numeric_limits<double>::quiet_NaN();
    }
    return static_cast<double>(maximum);
  }
  return static_cast<double>(maximum) + std::log(kernels.sum_exp(x, width, maximum));
}

}  // namespace cadre::kernels
