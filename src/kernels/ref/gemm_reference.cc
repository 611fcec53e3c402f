#include "kernels/ref/gemm_reference.h"

#include <cmath>
#include <vector>

namespace cadre::kernels {
namespace {

float ReadRow(const void* row, DType type, int64_t idx) {
  return type == DType::kBf16 ? ToFloat(static_cast<const Bf16*>(row)[idx])
                              : static_cast<const float*>(row)[idx];
}

void WriteRow(void* row, DType type, int64_t idx, float value) {
  if (type == DType::kBf16) {
    static_cast<Bf16*>(row)[idx] = ToBf16(value);
  } else {
    static_cast<float*>(row)[idx] = value;
  }
}

std::vector<float> Unpack(const PackedMatrix& w) {
  std::vector<float> values(static_cast<size_t>(w.n * w.k));
  UnpackRows(w, 0, w.n, values.data(), w.k);
  return values;
}

float Activate(const ExpertsArgs& args, float gate, float up) {
  if (args.activation == Activation::kSilu) return gate / (1.0f + std::exp(-gate)) * up;
  gate = gate > args.swiglu_limit ? args.swiglu_limit : gate;
  up = up > args.swiglu_limit ? args.swiglu_limit : up;
  up = up < -args.swiglu_limit ? -args.swiglu_limit : up;
  return gate / (1.0f + std::exp(-(gate * args.swiglu_alpha))) * (up + 1.0f);
}

}  // namespace

void GemmReference(const GemmArgs& args, float* magnitude) {
  const DType a_type = args.w.format == PackFormat::kBf16 ? DType::kBf16 : DType::kF32;
  const std::vector<float> w = Unpack(args.w);
  for (int64_t m = 0; m < args.m; ++m) {
    const void* a = static_cast<const std::byte*>(args.a) + m * args.a_stride * DTypeBytes(a_type);
    void* c = static_cast<std::byte*>(args.c) + m * args.c_stride * DTypeBytes(args.c_type);
    for (int64_t n = 0; n < args.w.n; ++n) {
      float sum = 0, scale = 0;
      for (int64_t k = 0; k < args.w.k; ++k) {
        const float product = ReadRow(a, a_type, k) * w[static_cast<size_t>(n * args.w.k + k)];
        sum += product;
        scale += std::fabs(product);
      }
      if (magnitude != nullptr) magnitude[m * args.w.n + n] = scale;
      if (args.bias != nullptr) sum += args.bias[n];
      if (args.accumulate) sum = ReadRow(c, args.c_type, n) + sum;
      WriteRow(c, args.c_type, n, sum);
    }
  }
}

void RunExpertsReference(const ExpertsArgs& args) {
  const int64_t inter_stride = RoundUp(args.inter, 2);
  for (size_t e = 0; e < args.experts.size(); ++e) {
    const ExpertWeights& expert = args.experts[e];
    std::vector<float> gate_up(static_cast<size_t>(expert.gate_up.n));
    for (int64_t row = args.offsets[e]; row < args.offsets[e + 1]; ++row) {
      GemmReference({.m = 1,
                     .a = args.rows[row],
                     .w = expert.gate_up,
                     .bias = expert.gate_up_bias,
                     .c = gate_up.data()});
      void* inter = static_cast<std::byte*>(args.inter_rows) + row * inter_stride * DTypeBytes(args.act_type);
      for (int64_t i = 0; i < args.inter; ++i) {
        const size_t gate = static_cast<size_t>(i / kPanelRows * 2 * kPanelRows + i % kPanelRows);
        WriteRow(inter, args.act_type, i, Activate(args, gate_up[gate], gate_up[gate + kPanelRows]));
      }
      float* out = args.out + row * args.out_stride;
      GemmReference({.m = 1, .a = inter, .w = expert.down, .bias = expert.down_bias, .c = out});
      if (args.row_weights == nullptr) continue;
      for (int64_t i = 0; i < args.hidden; ++i) out[i] *= args.row_weights[row];
    }
  }
}

}  // namespace cadre::kernels
