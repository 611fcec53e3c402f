#include "model/weight_map.h"

#include <charconv>
#include <string>
#include <utility>

#include "base/check.h"

namespace cadre::model {
namespace {

using checkpoint::TensorInfo;
using checkpoint::TensorSource;
using Shape = std::vector<int64_t>;

std::string ShapeText(const Shape& shape) {
  return Format("[{}]", fmt::join(shape, ", "));
}

// Collects fills; keeps the first error, so that the walk below reads as a list of weights.
class Mapper {
 public:
  Mapper(const ModelSpec& spec, const WeightPlan& plan, const TensorSource& source)
      : spec_(spec),
        shard_(plan.shard),
        type_(plan.layout.type),
        source_(source),
        used_(source.tensors().size()) {}

  Result<WeightMap> Run(const ModelWeights& weights) {
    const TensorNames& names = spec_.names;
    const Shape table = {spec_.vocab_size, spec_.hidden};
    if (!weights.embedding_is_head)
      Table(weights.embedding, Part(names.embedding, table, 0, spec_.vocab_size));
    for (size_t i = 0; i < weights.layers.size() && status_; ++i) {
      const std::string prefix = names.layer_prefix + std::to_string(i) + ".";
      Layer(prefix, weights.layers[i], spec_.layers[i].moe);
    }
    Vector(weights.final_norm, {Whole(names.final_norm, spec_.hidden)});
    const std::string& head = spec_.tie_embeddings ? names.embedding : names.lm_head;
    Matrix(weights.lm_head, {Part(head, table, shard_.vocab.begin, shard_.vocab.size())});
    CADRE_TRY(std::move(status_));
    FindUnknown();
    for (const WeightFill& fill : map_.fills) map_.source_bytes += fill.source_bytes();
    return std::move(map_);
  }

 private:
  void Layer(const std::string& prefix, const LayerWeights& layer, bool moe) {
    const TensorNames& names = spec_.names;
    Vector(layer.attn_norm, {Whole(prefix + names.attn_norm, spec_.hidden)});
    Vector(layer.ffn_norm, {Whole(prefix + names.ffn_norm, spec_.hidden)});
    if (spec_.attention.kind == AttentionKind::kMla) {
      Mla(prefix + names.attention, layer.attention);
    } else {
      Gqa(prefix + names.attention, layer.attention);
    }
    if (moe) {
      Moe(MoePrefix(prefix), layer.moe);
    } else {
      FeedForward(prefix + names.dense, layer.dense, spec_.dense_inter, shard_.dense_inter);
    }
  }

  void Gqa(const std::string& at, const AttentionWeights& w) {
    const AttentionSpec& a = spec_.attention;
    const auto rows = [](Range heads, int64_t dim) { return Range{heads.begin * dim, heads.end * dim}; };
    const Range q = rows(shard_.heads, a.head_dim), k = rows(shard_.kv_heads, a.head_dim);
    const Range v = rows(shard_.kv_heads, a.v_head_dim);
    const int64_t all_q = int64_t{a.num_heads} * a.head_dim, all_k = int64_t{a.num_kv_heads} * a.head_dim;
    const int64_t all_v = int64_t{a.num_kv_heads} * a.v_head_dim, hidden = spec_.hidden;
    Matrix(w.qkv, {Linear(at + "q_proj.weight", {all_q, hidden}, q.begin, q.size()),
                   Linear(at + "k_proj.weight", {all_k, hidden}, k.begin, k.size()),
                   Linear(at + "v_proj.weight", {all_v, hidden}, v.begin, v.size())});
    if (w.qkv_bias) {
      Vector(w.qkv_bias, {Part(at + "q_proj.bias", {all_q}, q.begin, q.size()),
                          Part(at + "k_proj.bias", {all_k}, k.begin, k.size()),
                          Part(at + "v_proj.bias", {all_v}, v.begin, v.size())});
    }
    if (a.qk_norm == QkNorm::kPerHead) {
      Vector(w.q_norm, {Whole(at + "q_norm.weight", a.head_dim)});
      Vector(w.k_norm, {Whole(at + "k_norm.weight", a.head_dim)});
    } else if (a.qk_norm == QkNorm::kFullRow) {
      Vector(w.q_norm, {Part(at + "q_norm.weight", {all_q}, q.begin, q.size())});
      Vector(w.k_norm, {Part(at + "k_norm.weight", {all_k}, k.begin, k.size())});
    }
    if (w.sinks)
      Vector(w.sinks, {Part(at + "sinks", {a.num_heads}, shard_.heads.begin, shard_.heads.size())});
    Output(at, w);
  }

  void Mla(const std::string& at, const AttentionWeights& w) {
    const AttentionSpec& a = spec_.attention;
    const int64_t heads = a.num_heads, first = shard_.heads.begin, hidden = spec_.hidden;
    if (a.q_lora_rank > 0) {
      Matrix(w.q_a, {Linear(at + "q_a_proj.weight", {a.q_lora_rank, hidden}, 0, a.q_lora_rank)});
      if (w.q_a_bias) Vector(w.q_a_bias, {Whole(at + "q_a_proj.bias", a.q_lora_rank)});
      Vector(w.q_a_norm, {Whole(at + "q_a_layernorm.weight", a.q_lora_rank)});
    }
    Matrix(w.q_b, {Linear(at + (a.q_lora_rank > 0 ? "q_b_proj.weight" : "q_proj.weight"),
                          {heads * a.head_dim, w.q_b.k}, first * a.head_dim, w.q_b.n)});
    Matrix(w.kv_a, {Linear(at + "kv_a_proj_with_mqa.weight", {w.kv_a.n, hidden}, 0, w.kv_a.n)});
    if (w.kv_a_bias) Vector(w.kv_a_bias, {Whole(at + "kv_a_proj_with_mqa.bias", w.kv_a.n)});
    Vector(w.kv_a_norm, {Whole(at + "kv_a_layernorm.weight", a.kv_lora_rank)});
    // Rows of kv_b: for each head the key part, then the value part.
    const int64_t per_head = a.qk_nope_dim + a.v_head_dim;
    for (size_t h = 0; h < w.w_uk.size(); ++h) {
      const int64_t row = (first + static_cast<int64_t>(h)) * per_head;
      const Shape shape = {heads * per_head, a.kv_lora_rank};
      Add({.kind = FillKind::kTransposed,
           .matrix = w.w_uk[h],
           .num_cols = a.kv_lora_rank,
           .parts = {Linear(at + "kv_b_proj.weight", shape, row, a.qk_nope_dim)}});
      Matrix(w.w_uv[h], {Linear(at + "kv_b_proj.weight", shape, row + a.qk_nope_dim, a.v_head_dim)});
    }
    Output(at, w);
  }

  void Output(const std::string& at, const AttentionWeights& w) {
    const int64_t dim = spec_.attention.v_head_dim;
    Matrix(w.o, {Linear(at + "o_proj.weight", {spec_.hidden, spec_.attention.num_heads * dim}, 0,
                        spec_.hidden, shard_.heads.begin * dim)});
    if (!spec_.attention.o_bias) return;
    const TensorPart bias = Whole(at + "o_proj.bias", spec_.hidden);
    if (w.o_bias) Vector(w.o_bias, {bias});
  }

  void FeedForward(const std::string& at, const FeedForwardWeights& w, int64_t inter, Range local) {
    Matrix(w.gate_up, {Linear(at + "gate_proj.weight", {inter, spec_.hidden}, local.begin, local.size()),
                       Linear(at + "up_proj.weight", {inter, spec_.hidden}, local.begin, local.size())});
    Matrix(w.down, {Linear(at + "down_proj.weight", {spec_.hidden, inter}, 0, spec_.hidden, local.begin)});
  }

  void Moe(const std::string& at, const MoeWeights& w) {
    const TensorNames& names = spec_.names;
    const int64_t experts = spec_.moe.num_experts, hidden = spec_.hidden;
    Matrix(w.router, {Part(at + names.router, {experts, hidden}, 0, experts)});
    if (w.router_bias) Vector(w.router_bias, {Whole(at + names.router_bias, experts)});
    if (w.selection_bias) Vector(w.selection_bias, {Whole(at + names.selection_bias, experts)});
    if (spec_.moe.shared_inter > 0)
      FeedForward(at + names.shared, w.shared, spec_.moe.shared_inter, shard_.shared_inter);
    if (spec_.moe.shared_gate) Matrix(w.shared_gate, {Part(at + names.shared_gate, {1, hidden}, 0, 1)});
    const bool fused = source_.Find(at + "experts.gate_up_proj") != nullptr;
    for (size_t s = 0; s < w.experts.size() && status_; ++s) {
      if (w.logical[s] < 0) continue;
      if (fused) {
        FusedExpert(at + "experts.", w.experts[s], w.logical[s]);
      } else {
        SingleExpert(at + "experts." + std::to_string(w.logical[s]) + ".", w.experts[s]);
      }
    }
    if (!fused) MarkExperts(at + "experts.");
  }

  void SingleExpert(const std::string& at, const ExpertWeights& w) {
    const TensorNames& names = spec_.names;
    const Range local = shard_.expert_inter;
    const Shape in = {spec_.moe.inter, spec_.hidden}, out = {spec_.hidden, spec_.moe.inter};
    Expert(w, Linear(at + names.expert_gate + ".weight", in, local.begin, local.size()),
           Linear(at + names.expert_up + ".weight", in, local.begin, local.size()),
           Linear(at + names.expert_down + ".weight", out, 0, spec_.hidden, local.begin));
  }

  // gate_up_proj [experts, 2 * inter, hidden]: gate rows, then up rows; down_proj [experts, hidden, inter].
  void FusedExpert(const std::string& at, const ExpertWeights& w, int64_t expert) {
    const int64_t inter = spec_.moe.inter, hidden = spec_.hidden, experts = spec_.moe.num_experts;
    const Range local = shard_.expert_inter;
    const Shape in = {experts, 2 * inter, hidden}, out = {experts, hidden, inter};
    Expert(w, Linear(at + "gate_up_proj", in, 2 * inter * expert + local.begin, local.size()),
           Linear(at + "gate_up_proj", in, 2 * inter * expert + inter + local.begin, local.size()),
           Linear(at + "down_proj", out, hidden * expert, hidden, local.begin));
  }

  void Expert(const ExpertWeights& w, TensorPart gate, TensorPart up, TensorPart down) {
    Add({.kind = FillKind::kGateUpPanels,
         .expert = true,
         .matrix = w.gate_up,
         .num_cols = w.gate_up.k,
         .parts = {gate, up}});
    Add({.kind = FillKind::kRows, .expert = true, .matrix = w.down, .num_cols = w.down.k, .parts = {down}});
  }

  // Other ranks' experts are known tensors too.
  void MarkExperts(const std::string& at) {
    const TensorNames& names = spec_.names;
    for (int32_t e = 0; e < spec_.moe.num_experts; ++e) {
      for (const std::string* name : {&names.expert_gate, &names.expert_up, &names.expert_down}) {
        for (const char* suffix : {"", "_scale_inv", "_scale"}) {
          if (*suffix != 0 && !spec_.quant.fp8()) continue;
          if (const TensorInfo* tensor =
                  source_.Find(at + std::to_string(e) + "." + *name + ".weight" + suffix))
            Mark(*tensor);
        }
      }
    }
  }

  std::string MoePrefix(const std::string& prefix) const {
    for (const std::string& moe : spec_.names.moe) {
      if (source_.Find(prefix + moe + spec_.names.router)) return prefix + moe;
    }
    return prefix + spec_.names.moe.front();
  }

  void Matrix(const PackedMatrix& to, std::vector<TensorPart> parts) {
    Add({.kind = FillKind::kRows, .matrix = to, .num_cols = to.k, .parts = std::move(parts)});
  }
  void Table(const void* to, TensorPart part) {
    Add({.kind = FillKind::kTable,
         .plain = const_cast<void*>(to),
         .type = type_,
         .num_cols = part.width,
         .parts = {part}});
  }
  void Vector(const float* to, std::vector<TensorPart> parts) {
    Add({.kind = FillKind::kVector,
         .plain = const_cast<float*>(to),
         .type = DType::kF32,
         .parts = std::move(parts)});
  }
  void Add(WeightFill fill) {
    if (status_ && spec_.quant.fp8() && kernels::IsFp8(fill.matrix.format)) CheckAgrees(fill);
    if (status_) map_.fills.push_back(std::move(fill));
  }

  // A place of an fp8 checkpoint's kind takes fp8 alone: what the publisher left unquantised is not quantised
  // here.
  void CheckAgrees(const WeightFill& fill) {
    for (const TensorPart& part : fill.parts) {
      if (part.tensor->dtype == DType::kF8E4M3) continue;
      status_ = Fail(
          Code::kUnsupported,
          "{}: tensor '{}' has type {}; by config.json's quantization_config it is float8_e4m3. Name its "
          "layer in {} there",
          source_.FileOf(*part.tensor), part.tensor->name, DTypeName(part.tensor->dtype),
          spec_.quant.method == "fp8" ? "modules_to_not_convert" : "ignore");
      return;
    }
  }

  TensorPart Whole(const std::string& name, int64_t size) { return Part(name, {size}, 0, size); }

  // A linear layer's weight, which may be fp8.
  TensorPart Linear(const std::string& name, const Shape& shape, int64_t row_begin, int64_t num_rows,
                    int64_t col_begin = 0) {
    TensorPart part = Part(name, shape, row_begin, num_rows, col_begin, true);
    if (status_ && part.tensor->dtype == DType::kF8E4M3) FindScale(name, shape, part);
    return part;
  }

  void FindScale(const std::string& name, const Shape& shape, TensorPart& part) {
    const std::string file = source_.FileOf(*part.tensor);
    if (!spec_.quant.fp8()) {
      status_ = Fail(
          Code::kUnsupported,
          "{}: tensor '{}' has type float8_e4m3, but config.json has no quantization_config that says how "
          "it is scaled",
          file, name);
      return;
    }
    for (const char* suffix : {"_scale_inv", "_scale"}) {
      if (part.scale == nullptr) part.scale = source_.Find(name + suffix);
    }
    if (part.scale == nullptr || shape.size() != 2) {
      status_ =
          Fail(Code::kNotFound, "{}: fp8 tensor '{}' of shape {} has no '{}_scale_inv' and no '{}_scale'{}",
               file, name, ShapeText(shape), name, name, shape.size() == 2 ? "" : " that could be read");
      return;
    }
    Mark(*part.scale);
    const QuantSpec& quant = spec_.quant;
    const int64_t n = shape[0], k = shape[1];
    int64_t count = 1;
    for (const int64_t extent : part.scale->shape) count *= extent;
    const Shape found = part.scale->shape;
    const auto blocks = [](int64_t all, int64_t block) { return (all + block - 1) / block; };
    if (quant.block_rows > 0) {
      part.scale_rows = quant.block_rows;
      part.scale_cols = quant.block_cols;
      part.scale_width = blocks(k, quant.block_cols);
      const Shape wanted = {blocks(n, quant.block_rows), part.scale_width};
      if (found == wanted) return CheckScaleType(*part.scale);
      status_ = Fail(Code::kDataLoss,
                     "{}: tensor '{}' has shape {}, wanted {}: one scale for each block of {} x {}",
                     source_.FileOf(*part.scale), part.scale->name, part.scale->ShapeText(),
                     ShapeText(wanted), quant.block_rows, quant.block_cols);
      return;
    }
    part.scale_cols = k;
    part.scale_rows = count == 1 ? n : 1;
    if (count == 1 || found == Shape{n} || found == Shape{n, 1}) return CheckScaleType(*part.scale);
    status_ =
        Fail(Code::kDataLoss, "{}: tensor '{}' has shape {}, wanted one scale, or one for each of {} rows",
             source_.FileOf(*part.scale), part.scale->name, part.scale->ShapeText(), n);
  }

  void CheckScaleType(const TensorInfo& scale) {
    if (scale.dtype == DType::kF32 || scale.dtype == DType::kBf16 || scale.dtype == DType::kF16) return;
    status_ = Fail(Code::kUnsupported, "{}: tensor '{}' has type {}; wanted bfloat16, float16 or float32",
                   source_.FileOf(scale), scale.name, DTypeName(scale.dtype));
  }

  // Finds a tensor and checks it; a vector counts as rows of width 1.
  TensorPart Part(const std::string& name, const Shape& shape, int64_t row_begin, int64_t num_rows,
                  int64_t col_begin = 0, bool may_be_fp8 = false) {
    if (!status_) return {};
    const TensorInfo* tensor = source_.Find(name);
    if (!tensor) {
      const auto& all = source_.tensors();
      status_ =
          Fail(Code::kNotFound, "the checkpoint has no tensor '{}' (wanted {}, for {}); it has {} tensors{}",
               name, ShapeText(shape), spec_.architecture, all.size(),
               all.empty() ? "" : Format(", the first in {}", source_.FileOf(all.front())));
      return {};
    }
    if (tensor->shape != shape) {
      status_ = Fail(Code::kDataLoss, "{}: tensor '{}' has shape {}, wanted {} (from config.json)",
                     source_.FileOf(*tensor), name, tensor->ShapeText(), ShapeText(shape));
    } else if (tensor->dtype != DType::kF32 && tensor->dtype != DType::kBf16 &&
               tensor->dtype != DType::kF16 && !(may_be_fp8 && tensor->dtype == DType::kF8E4M3)) {
      status_ = Fail(Code::kUnsupported, "{}: tensor '{}' has type {}; wanted bfloat16, float16 or float32",
                     source_.FileOf(*tensor), name, DTypeName(tensor->dtype));
    }
    Mark(*tensor);
    return {.tensor = tensor,
            .width = shape.size() == 1 ? 1 : shape.back(),
            .row_begin = row_begin,
            .num_rows = num_rows,
            .col_begin = col_begin};
  }

  void Mark(const TensorInfo& tensor) {
    used_[static_cast<size_t>(&tensor - source_.tensors().data())] = true;
  }

  bool IsActivationScale(std::string_view name) const {
    if (!spec_.quant.fp8()) return false;
    for (const char* suffix :
         {".input_scale", ".output_scale", ".k_scale", ".v_scale", ".q_scale", ".kv_scale"}) {
      if (name.ends_with(suffix)) return true;
    }
    return false;
  }

  // The number behind layer_prefix, or -1.
  int64_t LayerOf(const std::string& name) const {
    const std::string& prefix = spec_.names.layer_prefix;
    int64_t layer = -1;
    if (name.starts_with(prefix))
      std::from_chars(name.data() + prefix.size(), name.data() + name.size(), layer);
    return layer;
  }

  void FindUnknown() {
    for (const TensorInfo& tensor : source_.tensors()) {
      if (used_[static_cast<size_t>(&tensor - source_.tensors().data())]) continue;
      if (tensor.name.ends_with("rotary_emb.inv_freq")) continue;  // computed from the config
      if (spec_.tie_embeddings && tensor.name == spec_.names.lm_head) continue;
      if (LayerOf(tensor.name) < spec_.num_layers() && IsActivationScale(tensor.name)) {
        ++map_.num_activation_scales;
      } else if (LayerOf(tensor.name) >= spec_.num_layers()) {
        ++map_.num_future_layers;
      } else {
        map_.unknown.push_back(&tensor);
      }
    }
  }

  const ModelSpec& spec_;
  const ShardShape& shard_;
  DType type_;
  const TensorSource& source_;
  std::vector<bool> used_;
  WeightMap map_;
  Status status_;
};

}  // namespace

int64_t WeightFill::source_bytes() const {
  int64_t sum = 0;
  for (const TensorPart& part : parts) sum += part.num_rows * num_cols * DTypeBytes(part.tensor->dtype);
  return sum;
}

Result<WeightMap> MapWeights(const ModelSpec& spec, const WeightPlan& plan, const ModelWeights& weights,
                             const checkpoint::TensorSource& source) {
  return Mapper(spec, plan, source).Run(weights);
}

}  // namespace cadre::model
