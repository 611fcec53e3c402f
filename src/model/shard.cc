#include "model/shard.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace cadre::model {
namespace {

constexpr const char* kTpFlag = "tensor-parallel-size";

// Splits columns or rows that may be shared unevenly, but not so that a rank has none.
Result<Range> SplitOver(int64_t total, int64_t parts, int64_t index, const char* key, const char* over) {
  if (total > 0 && total < parts) {
    return FailParam(Code::kInvalidArgument, kTpFlag, "{} {} cannot be divided over {} ranks ({})", key,
                     total, parts, over);
  }
  return SplitRange(total, parts, index);
}

Status SplitHeads(const ModelSpec& spec, const WeightLayout& layout, ShardShape& shape) {
  const AttentionSpec& attention = spec.attention;
  if (attention.num_heads % layout.tp_size != 0) {
    return FailParam(Code::kInvalidArgument, kTpFlag, "num_attention_heads {} cannot be divided over --{} {}",
                     attention.num_heads, kTpFlag, layout.tp_size);
  }
  shape.heads = SplitRange(attention.num_heads, layout.tp_size, layout.tp_rank);
  if (attention.kind == AttentionKind::kMla) {
    shape.kv_heads = {0, 1};
  } else if (attention.num_kv_heads % layout.tp_size == 0) {
    shape.kv_heads = SplitRange(attention.num_kv_heads, layout.tp_size, layout.tp_rank);
  } else if (layout.tp_size % attention.num_kv_heads == 0) {
    const int64_t head = int64_t{layout.tp_rank} * attention.num_kv_heads / layout.tp_size;
    shape.kv_heads = {head, head + 1};
  } else {
    return FailParam(
        Code::kInvalidArgument, kTpFlag,
        "num_key_value_heads {} can neither be divided over --{} {} nor be repeated on it evenly",
        attention.num_kv_heads, kTpFlag, layout.tp_size);
  }
  return {};
}

Status ChooseSlots(const ModelSpec& spec, const WeightLayout& layout, ShardShape& shape) {
  const auto num_moe_layers = static_cast<size_t>(spec.num_moe_layers());
  if (!layout.enable_ep || layout.slots.empty()) {
    const Range owned = layout.enable_ep ? SplitRange(spec.moe.num_experts, layout.ep_size, layout.ep_rank)
                                         : Range{0, spec.moe.num_experts};
    std::vector<int32_t> experts(static_cast<size_t>(owned.size()));
    std::iota(experts.begin(), experts.end(), static_cast<int32_t>(owned.begin));
    shape.slots.assign(num_moe_layers, experts);
    return {};
  }
  if (layout.slots.size() != num_moe_layers) {
    return Fail(Code::kInvalidArgument, "the expert map has {} layers, the model has {} layers with experts",
                layout.slots.size(), num_moe_layers);
  }
  for (const auto& slots : layout.slots) {
    for (const int32_t expert : slots) {
      if (expert >= -1 && expert < spec.moe.num_experts) continue;
      return Fail(Code::kInvalidArgument, "the expert map names expert {}; the model has {}", expert,
                  spec.moe.num_experts);
    }
  }
  shape.slots = layout.slots;
  return {};
}

}  // namespace

Range SplitRange(int64_t total, int64_t parts, int64_t index) {
  CADRE_CHECK(parts >= 1 && index >= 0 && index < parts);
  const int64_t base = total / parts, more = total % parts;
  const int64_t begin = index * base + std::min(index, more);
  return {begin, begin + base + (index < more ? 1 : 0)};
}

Result<ShardShape> MakeShard(const ModelSpec& spec, const WeightLayout& layout) {
  CADRE_CHECK(layout.type == DType::kBf16 || layout.type == DType::kF32);
  CADRE_CHECK(layout.tp_size >= 1 && layout.tp_rank >= 0 && layout.tp_rank < layout.tp_size);
  CADRE_CHECK(layout.ep_size >= 1 && layout.ep_rank >= 0 && layout.ep_rank < layout.ep_size);
  ShardShape shape;
  CADRE_TRY(SplitHeads(spec, layout, shape));
  const int64_t tp = layout.tp_size, tp_rank = layout.tp_rank;
  CADRE_ASSIGN(shape.dense_inter, SplitOver(spec.dense_inter, tp, tp_rank, "intermediate_size", "tp"));
  CADRE_ASSIGN(shape.shared_inter, SplitOver(spec.moe.shared_inter, tp, tp_rank,
                                             "intermediate size of the shared experts", "tp"));
  CADRE_ASSIGN(shape.vocab, SplitOver(spec.vocab_size, tp, tp_rank, "vocab_size", "tp"));
  if (layout.enable_ep) {
    shape.expert_inter = {0, spec.moe.inter};
  } else {
    CADRE_ASSIGN(shape.expert_inter,
                 SplitOver(spec.moe.inter, layout.ep_size, layout.ep_rank, "intermediate size of the experts",
                           "tp x dp; --enable-expert-parallel keeps experts whole"));
  }
  CADRE_TRY(ChooseSlots(spec, layout, shape));
  return shape;
}

}  // namespace cadre::model
