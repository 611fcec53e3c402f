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
  Layer layer;
  layer.shape_ = shape;
  CADRE_TRY(shape.model == nullptr ? layer.DrawWeights(experts) : layer.LoadWeights(experts));
  return layer;
}

Status Layer::DrawWeights(std::span<const int32_t> experts) {
  const Shape& s = shape_;
  CADRE_ASSIGN(bank_, nn::ExpertBank::Create(static_cast<int32_t>(experts.size()), s.hidden, s.inter));
  for (size_t slot = 0; slot < experts.size(); ++slot) {
    const int64_t e = experts[slot];
    const auto gate = DrawMatrix(s.seed, kGate, e, s.inter, s.hidden);
    const auto up = DrawMatrix(s.seed, kUp, e, s.inter, s.hidden);
    const auto down = DrawMatrix(s.seed, kDown, e, s.hidden, s.inter);
    bank_->Set(static_cast<int32_t>(slot), {gate.data(), up.data(), down.data()});
  }
  const auto held = bank_->experts();
  weights_.experts.assign(held.begin(), held.end());
  expert_bytes_ = bank_->bytes();
  constexpr auto kF32 = kernels::PackFormat::kF32;
  CADRE_ASSIGN(router_bytes_,
               sys::AllocateRegion(static_cast<size_t>(kernels::PackedBytes(kF32, s.num_experts, s.hidden))));
  weights_.router = {.data = router_bytes_.data(), .n = s.num_experts, .k = s.hidden, .format = kF32};
  const auto router = DrawMatrix(s.seed, kRouter, 0, s.num_experts, s.hidden);
  kernels::PackRows(weights_.router, 0, s.num_experts, router.data(), DType::kF32, s.hidden);
  spec_ = {.num_experts = s.num_experts,
           .top_k = s.top_k,
           .inter = static_cast<int32_t>(s.inter),
           .score = kernels::RouterScore::kSoftmaxAfterTopK};
  return {};
}

Status Layer::LoadWeights(std::span<const int32_t> experts) {
  CADRE_ASSIGN(loaded_, LoadModelPart(*shape_.model, {experts.begin(), experts.end()}));
  spec_ = shape_.model->spec.moe;
  weights_ = loaded_->weights.layers[static_cast<size_t>(shape_.model->layer())].moe;
  expert_bytes_ = loaded_->expert_bytes;
  return {};
}

void Layer::Tokens(const kernels::Device& device, int rank, float* rows) const {
  if (!loaded_) return DrawTokens(shape_, rank, rows);
  ModelRows(*shape_.model, *loaded_, device, rank * shape_.num_tokens, shape_.num_tokens, rows);
}

void Layer::Route(const kernels::Device& device, const float* rows, int64_t num_rows, int32_t* experts,
                  float* weights) const {
  std::vector<float> logits(static_cast<size_t>(num_rows * spec_.num_experts));
  kernels::Gemm(device, {.m = num_rows,
                         .a = rows,
                         .a_stride = shape_.hidden,
                         .w = weights_.router,
                         .bias = weights_.router_bias,
                         .c = logits.data(),
                         .c_stride = spec_.num_experts});
  kernels::RouterTopK(device, {.num_rows = num_rows,
                               .num_experts = spec_.num_experts,
                               .top_k = spec_.top_k,
                               .logits = logits.data(),
                               .score = spec_.score,
                               .selection_bias = weights_.selection_bias,
                               .num_groups = spec_.num_groups,
                               .top_groups = spec_.top_groups,
                               .group_score = spec_.group_score,
                               .normalize = spec_.normalize,
                               .normalize_eps = spec_.normalize_eps,
                               .scale = spec_.scale,
                               .experts = experts,
                               .weights = weights});
}

void Layer::Run(const kernels::Device& device, const a2a::RowTable& table, float* out) const {
  if (table.num_rows == 0) return;
  std::vector<float> inter_rows(static_cast<size_t>(table.num_rows * kernels::RoundUp(shape_.inter, 2)));
  kernels::RunExperts(device, {.hidden = shape_.hidden,
                               .inter = shape_.inter,
                               .act_type = DType::kF32,
                               .experts = weights_.experts,
                               .offsets = table.offsets.data(),
                               .rows = table.rows,
                               .row_weights = table.row_weights,
                               .activation = spec_.activation,
                               .swiglu_alpha = spec_.swiglu_alpha,
                               .swiglu_limit = spec_.swiglu_limit,
                               .inter_rows = inter_rows.data(),
                               .out = out,
                               .out_stride = shape_.hidden});
}

}  // namespace cadre::app::demo
