#include "kernels/ref/gemm_reference.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "tensor/fp8.h"

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

// Element (row, col) as the kernels multiply with it, the group of its scale, and that scale.
struct Element {
  float value = 0, scale = 1;
  int64_t group = 0;
};

Element ReadFp8(const PackedMatrix& w, int64_t row, int64_t col) {
  const int64_t block = w.scale_block, phase = w.scale_phase, lead = phase % 4;
  const auto group_of = [&](int64_t c) { return block == 0 ? 0 : (phase + c) / block; };
  const int64_t panel_lines = (lead + w.k + 3) / 4 + group_of(w.k - 1) + 1;
  const std::byte* panel = w.data + row / 16 * panel_lines * 64;
  const int64_t at = lead + col, group = group_of(col), lane = row % 16;
  const std::byte code =
      panel[(at / 4 + group + 1) * 64 + lane / 4 * 16 + at % 4 / 2 * 8 + lane % 4 * 2 + at % 2];
  // Groups begin at lines: the first at 0, the others where their first column lies.
  const int64_t group_line = group == 0 ? 0 : (group * block - phase + lead) / 4 + group;
  Element element{.group = group};
  std::memcpy(&element.scale, panel + group_line * 64 + lane * 4, 4);
  element.value = Fp8ToFloat(std::to_integer<uint8_t>(code));
  return element;
}

std::vector<Element> Unpack(const PackedMatrix& w) {
  std::vector<Element> elements(static_cast<size_t>(w.n * w.k));
  if (IsFp8(w.format)) {
    for (size_t i = 0; i < elements.size(); ++i)
      elements[i] = ReadFp8(w, static_cast<int64_t>(i) / w.k, static_cast<int64_t>(i) % w.k);
    return elements;
  }
  std::vector<float> values(elements.size());
  UnpackRows(w, 0, w.n, values.data(), w.k);
  for (size_t i = 0; i < values.size(); ++i) elements[i].value = values[i];
  return elements;
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
  const DType a_type = RowTypeOf(args.w.format);
  const std::vector<Element> w = Unpack(args.w);
  for (int64_t m = 0; m < args.m; ++m) {
    const void* a = static_cast<const std::byte*>(args.a) + m * args.a_stride * DTypeBytes(a_type);
    void* c = static_cast<std::byte*>(args.c) + m * args.c_stride * DTypeBytes(args.c_type);
    for (int64_t n = 0; n < args.w.n; ++n) {
      float sum = 0, chain = 0, scale = 0;  // chain: of one group
      for (int64_t k = 0; k < args.w.k; ++k) {
        const Element& element = w[static_cast<size_t>(n * args.w.k + k)];
        const float product = ReadRow(a, a_type, k) * element.value;
        chain += product;
        scale += std::fabs(product * element.scale);
        const bool last = k + 1 == args.w.k || (&element)[1].group != element.group;
        if (!last) continue;
        sum += chain * element.scale;
        chain = 0;
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
