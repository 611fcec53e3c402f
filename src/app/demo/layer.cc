#include "app/demo/layer.h"

#include <cmath>

#include "base/random.h"
#include "kernels/gemm.h"

namespace cadre::app::demo {
namespace {

enum Tensor : int { kRouter, kGate, kUp, kDown, kTokens };

double WeightScale(int64_t columns) {
  return std::sqrt(3.0 / static_cast<double>(columns));
}

std::vector<float> DrawMatrix(uint64_t seed, int tensor, int64_t index, int64_t rows, int64_t columns) {
  std::vector<float> matrix(static_cast<size_t>(rows * columns));
  Draw(seed, tensor, index, 0, WeightScale(columns), matrix);
  return matrix;
}

}  // namespace

void Draw(uint64_t seed, int tensor, int64_t index, int64_t begin, double scale, std::span<float> out) {
  const auto stream = static_cast<uint64_t>(tensor + 8 * index);
  std::array<uint32_t, 4> words{};
  uint64_t drawn = ~uint64_t{0};
  for (size_t i = 0; i < out.size(); ++i) {
    const uint64_t element = static_cast<uint64_t>(begin) + i;
    if (element / 4 != drawn) words = Philox(seed, stream, drawn = element / 4);
    out[i] = static_cast<float>((static_cast<double>(words[element % 4] >> 8) * 0x1p-23 - 1.0) * scale);
  }
}

void DrawTokens(const Shape& shape, int rank, float* rows) {
  Draw(shape.seed, kTokens, rank, 0, std::sqrt(3.0),
       {rows, static_cast<size_t>(shape.num_tokens * shape.hidden)});
}

Result<Layer> Layer::Create(const Shape& shape, std::span<const int32_t> experts) {
  CADRE_ASSIGN(auto bank,
               nn::ExpertBank::Create(static_cast<int32_t>(experts.size()), shape.hidden, shape.inter));
  Layer layer(std::move(bank));
  layer.shape_ = shape;
  for (size_t slot = 0; slot < experts.size(); ++slot) {
    const int64_t e = experts[slot];
    const auto gate = DrawMatrix(shape.seed, kGate, e, shape.inter, shape.hidden);
    const auto up = DrawMatrix(shape.seed, kUp, e, shape.inter, shape.hidden);
    const auto down = DrawMatrix(shape.seed, kDown, e, shape.hidden, shape.inter);
    layer.bank_.Set(static_cast<int32_t>(slot), {gate.data(), up.data(), down.data()});
  }
  const auto router = DrawMatrix(shape.seed, kRouter, 0, shape.num_experts, shape.hidden);
  CADRE_ASSIGN(layer.router_bytes_, sys::AllocateRegion(static_cast<size_t>(kernels::PackedBytes(
                                        kernels::PackFormat::kF32, shape.num_experts, shape.hidden))));
  layer.router_ = {.data = layer.router_bytes_.data(),
                   .n = shape.num_experts,
                   .k = shape.hidden,
                   .format = kernels::PackFormat::kF32};
  kernels::PackRows(layer.router_, 0, shape.num_experts, router.data(), DType::kF32, shape.hidden);
  return layer;
}

void Layer::Route(const kernels::Device& device, const float* rows, int64_t num_rows, int32_t* experts,
                  float* weights) const {
  std::vector<float> logits(static_cast<size_t>(num_rows * shape_.num_experts));
  kernels::Gemm(device, {.m = num_rows,
                         .a = rows,
                         .a_stride = shape_.hidden,
                         .w = router_,
                         .c = logits.data(),
                         .c_stride = shape_.num_experts});
  kernels::RouterTopK(device, {.num_rows = num_rows,
                               .num_experts = shape_.num_experts,
                               .top_k = shape_.top_k,
                               .logits = logits.data(),
                               .score = kernels::RouterScore::kSoftmaxAfterTopK,
                               .experts = experts,
                               .weights = weights});
}

}  // namespace cadre::app::demo
