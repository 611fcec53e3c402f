#include "model/adapter.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <set>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/prefix_hash.h"
#include "checkpoint/source.h"
#include "model/adapter_config.h"

namespace cadre::model {
namespace {

using checkpoint::TensorInfo;
using checkpoint::TensorSource;
using kernels::PackFormat;
using nn::LayerAdapter;

constexpr const char* kTensorFile = "adapter_model.safetensors";

// A projection that may have a pair, and this rank's share of it.
struct Target {
  size_t layer = 0;
  nn::LowRank LayerAdapter::*product = nullptr;
  int64_t all_outputs = 0, all_inputs = 0;  // in the checkpoint
  Range outputs, inputs;                    // of this rank
  int64_t first_output = 0;                 // in this rank's fused product
};

struct Targets {
  std::vector<Target> list;                      // parts of a fused product in its order
  std::unordered_map<std::string, size_t> find;  // by module; a target may have several names
  std::set<std::string> kinds;                   // "q_proj", for messages
};

class TargetWalk {
 public:
  TargetWalk(const ModelSpec& spec, const ShardShape& shard) : spec_(spec), shard_(shard) {}

  Targets Run() {
    for (size_t i = 0; i < spec_.layers.size(); ++i) {
      layer_ = i;
      const std::string prefix = spec_.names.layer_prefix + std::to_string(i) + ".";
      Attention(prefix + spec_.names.attention);
      if (!spec_.layers[i].moe) {
        FeedForward({prefix + spec_.names.dense}, spec_.dense_inter, shard_.dense_inter);
      } else if (spec_.moe.shared_inter > 0) {
        std::vector<std::string> names;
        for (const std::string& moe : spec_.names.moe) names.push_back(prefix + moe + spec_.names.shared);
        FeedForward(names, spec_.moe.shared_inter, shard_.shared_inter);
      }
    }
    return std::move(targets_);
  }

 private:
  void Attention(const std::string& at) {
    const AttentionSpec& a = spec_.attention;
    const auto rows = [](Range heads, int64_t dim) { return Range{heads.begin * dim, heads.end * dim}; };
    const Range all_inputs = {0, spec_.hidden};
    const Range queries = rows(shard_.heads, a.head_dim);
    const int64_t all_queries = int64_t{a.num_heads} * a.head_dim;
    if (a.kind == AttentionKind::kMla) {
      const Range low = {0, a.q_lora_rank}, latent = {0, a.kv_lora_rank + a.qk_rope_dim};
      if (a.q_lora_rank > 0)
        Add({at + "q_a_proj"}, &LayerAdapter::q_a, low.end, low, spec_.hidden, all_inputs);
      Add({at + (a.q_lora_rank > 0 ? "q_b_proj" : "q_proj")}, &LayerAdapter::q_b, all_queries, queries,
          a.q_lora_rank > 0 ? low.end : spec_.hidden, a.q_lora_rank > 0 ? low : all_inputs);
      Add({at + "kv_a_proj_with_mqa"}, &LayerAdapter::kv_a, latent.end, latent, spec_.hidden, all_inputs);
    } else {
      const Range keys = rows(shard_.kv_heads, a.head_dim), values = rows(shard_.kv_heads, a.v_head_dim);
      const int64_t heads = a.num_kv_heads;
      Add({at + "q_proj"}, &LayerAdapter::qkv, all_queries, queries, spec_.hidden, all_inputs);
      Add({at + "k_proj"}, &LayerAdapter::qkv, heads * a.head_dim, keys, spec_.hidden, all_inputs,
          queries.size());
      Add({at + "v_proj"}, &LayerAdapter::qkv, heads * a.v_head_dim, values, spec_.hidden, all_inputs,
          queries.size() + keys.size());
    }
    Add({at + "o_proj"}, &LayerAdapter::o, spec_.hidden, all_inputs, int64_t{a.num_heads} * a.v_head_dim,
        rows(shard_.heads, a.v_head_dim));
  }

  void FeedForward(const std::vector<std::string>& at, int64_t inter, Range local) {
    const Range hidden = {0, spec_.hidden};
    const auto named = [&](const char* name) {
      std::vector<std::string> names = at;
      for (std::string& module : names) module += name;
      return names;
    };
    Add(named("gate_proj"), &LayerAdapter::gate_up, inter, local, spec_.hidden, hidden);
    Add(named("up_proj"), &LayerAdapter::gate_up, inter, local, spec_.hidden, hidden, local.size());
    Add(named("down_proj"), &LayerAdapter::down, spec_.hidden, hidden, inter, local);
  }

  void Add(const std::vector<std::string>& modules, nn::LowRank LayerAdapter::*product, int64_t all_outputs,
           Range outputs, int64_t all_inputs, Range inputs, int64_t first_output = 0) {
    for (const std::string& module : modules) {
      targets_.find[module] = targets_.list.size();
      targets_.kinds.insert(module.substr(module.rfind('.') + 1));
    }
    targets_.list.push_back({.layer = layer_,
                             .product = product,
                             .all_outputs = all_outputs,
                             .all_inputs = all_inputs,
                             .outputs = outputs,
                             .inputs = inputs,
                             .first_output = first_output});
  }

  const ModelSpec& spec_;
  const ShardShape& shard_;
  size_t layer_ = 0;
  Targets targets_;
};

// What an adapter has for a target.
struct Pair {
  std::string module;
  const TensorInfo *a = nullptr, *b = nullptr;
  int64_t rank() const { return a->shape[0]; }
};

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != text.npos;
}

// Tells contents apart that nobody has made to be confused; about as fast as a file is read.
uint64_t Digest(uint64_t before, std::span<const std::byte> bytes) {
  before = MixBits(before + bytes.size());
  for (size_t at = 0; at < bytes.size(); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, std::min<size_t>(8, bytes.size() - at));
    before = MixBits(before * 0x9E3779B97F4A7C15 + word);
  }
  return before;
}

class Reader {
 public:
  Reader(const ModelSpec& spec, const WeightPlan& plan, const TensorSource& source,
         const AdapterConfig& config, int64_t max_rank)
      : spec_(spec),
        source_(source),
        config_(config),
        max_rank_(max_rank),
        a_format_(plan.layout.type == DType::kBf16 ? PackFormat::kBf16 : PackFormat::kF32),
        targets_(TargetWalk(spec, plan.shard).Run()),
        pairs_(targets_.list.size()) {}

  Result<std::unique_ptr<LoadedAdapter>> Run() {
    for (const TensorInfo& tensor : source_.tensors()) CADRE_TRY(Take(tensor));
    for (size_t i = 0; i < pairs_.size(); ++i) CADRE_TRY(Check(pairs_[i], targets_.list[i]));
    auto adapter = std::make_unique<LoadedAdapter>();
    Shape(*adapter);
    if (adapter->max_rank == 0)
      return Fail(Code::kInvalidArgument, "{} in it has no LoRA tensors for this model", kTensorFile);
    CADRE_TRY(Place(*adapter));
    for (size_t i = 0; i < pairs_.size(); ++i) {
      if (pairs_[i].a != nullptr) CADRE_TRY(Fill(pairs_[i], i, *adapter));
    }
    return adapter;
  }

 private:
  static constexpr std::string_view kPrefix = "base_model.model.";
  static constexpr std::string_view kA = ".lora_A.weight", kB = ".lora_B.weight";

  Status Take(const TensorInfo& tensor) {
    std::string_view name = tensor.name;
    if (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
    const bool is_a = name.ends_with(kA);
    if (!is_a && !name.ends_with(kB)) return Refuse(tensor, name);
    const std::string module(name.substr(0, name.size() - kA.size()));
    const auto found = targets_.find.find(module);
    if (found == targets_.find.end()) return Refuse(tensor, name);
    if (tensor.dtype != DType::kF32 && tensor.dtype != DType::kBf16 && tensor.dtype != DType::kF16) {
      return Fail(Code::kUnsupported, "tensor '{}' has type {}; wanted bfloat16, float16 or float32",
                  tensor.name, DTypeName(tensor.dtype));
    }
    Pair& pair = pairs_[found->second];
    pair.module = module;
    const TensorInfo*& place = is_a ? pair.a : pair.b;
    if (place != nullptr) {
      return Fail(Code::kInvalidArgument, "tensors '{}' and '{}' are for the same projection", place->name,
                  tensor.name);
    }
    place = &tensor;
    return {};
  }

  std::unexpected<Error> Refuse(const TensorInfo& tensor, std::string_view name) const {
    const auto because = [&](std::string_view what) {
      return Fail(Code::kUnsupported, "tensor '{}': {}; {} are supported", Excerpt(tensor.name, 200), what,
                  fmt::join(targets_.kinds, ", "));
    };
    int64_t layer = -1;
    if (const std::string& prefix = spec_.names.layer_prefix; name.starts_with(prefix))
      std::from_chars(name.data() + prefix.size(), name.data() + name.size(), layer);
    if (layer >= spec_.num_layers()) {
      return Fail(Code::kInvalidArgument,
                  "tensor '{}': the model has {} layers; is it an adapter of another model?",
                  Excerpt(tensor.name, 200), spec_.num_layers());
    }
    if (Contains(name, "lora_magnitude_vector")) return because("DoRA is not built");
    if (Contains(name, ".experts.") || Contains(name, ".experts_"))
      return because("LoRA on experts is not built");
    if (Contains(name, "lora_embedding_") || Contains(name, "embed_tokens"))
      return because("LoRA on embeddings is not built");
    if (Contains(name, "lm_head")) return because("LoRA on the head is not built");
    if (name.ends_with(".bias")) return because("biases in an adapter are not built");
    if (Contains(name, "kv_b_proj"))
      return because("LoRA on kv_b_proj is not built (it is absorbed into other products)");
    if (!Contains(name, ".lora_")) return because("it is no part of a LoRA pair");
    return because("the model has no such projection, or LoRA on it is not built");
  }

  Status Check(const Pair& pair, const Target& target) const {
    if (pair.a == nullptr && pair.b == nullptr) return {};
    if (pair.a == nullptr || pair.b == nullptr) {
      return Fail(Code::kInvalidArgument, "tensor '{}' has no partner: wanted both lora_A and lora_B of {}",
                  (pair.a != nullptr ? pair.a : pair.b)->name, pair.module);
    }
    const auto wrong = [](const TensorInfo& tensor, const std::string& wanted) {
      return Fail(Code::kInvalidArgument,
                  "tensor '{}' has shape {}, wanted {}; is it an adapter of another model?", tensor.name,
                  tensor.ShapeText(), wanted);
    };
    const std::vector<int64_t>&a = pair.a->shape, &b = pair.b->shape;
    if (a.size() != 2 || a[0] < 1 || a[1] != target.all_inputs)
      return wrong(*pair.a, Format("[rank, {}]", target.all_inputs));
    if (b.size() != 2 || b[0] != target.all_outputs || b[1] != a[0])
      return wrong(*pair.b, Format("[{}, {}]", target.all_outputs, a[0]));
    if (a[0] > max_rank_) {
      return FailParam(Code::kInvalidArgument, "max_lora_rank",
                       "LoRA rank {} of '{}' is greater than max_lora_rank {}; raise --max-lora-rank", a[0],
                       pair.module, max_rank_);
    }
    if (a[0] != config_.RankOf(pair.module)) {
      return Fail(Code::kInvalidArgument, "tensor '{}' has rank {}, and adapter_config.json says {}",
                  pair.a->name, a[0], config_.RankOf(pair.module));
    }
    return {};
  }

  // The matrices without memory.
  void Shape(LoadedAdapter& adapter) const {
    adapter.weights.layers.resize(spec_.layers.size());
    for (size_t i = 0; i < pairs_.size(); ++i) {
      const Pair& pair = pairs_[i];
      if (pair.a == nullptr) continue;
      const Target& target = targets_.list[i];
      adapter.max_rank = std::max(adapter.max_rank, pair.rank());
      nn::LowRank& low_rank = adapter.weights.layers[target.layer].*target.product;
      low_rank.parts.push_back(
          {.b = {.n = target.outputs.size(), .k = pair.rank(), .format = PackFormat::kF32},
           .first_rank = low_rank.a.n,
           .first_output = target.first_output});
      low_rank.a = {.n = low_rank.a.n + pair.rank(), .k = target.inputs.size(), .format = a_format_};
    }
  }

  static Status Place(LoadedAdapter& adapter) {
    const auto for_each = [&](auto use) {
      for (LayerAdapter& layer : adapter.weights.layers) {
        for (const auto product : kProducts) {
          nn::LowRank& low_rank = layer.*product;
          if (low_rank.parts.empty()) continue;
          use(low_rank.a);
          for (nn::LowRankPart& part : low_rank.parts) use(part.b);
        }
      }
    };
    int64_t bytes = 0;
    for_each([&](kernels::PackedMatrix& matrix) { bytes += kernels::PackedBytes(matrix); });
    CADRE_ASSIGN(adapter.memory, sys::AllocateRegion(static_cast<size_t>(bytes)));
    std::byte* next = adapter.memory.data();
    for_each([&](kernels::PackedMatrix& matrix) {
      matrix.data = next;
      next += kernels::PackedBytes(matrix);  // a multiple of 64
    });
    return {};
  }

  Status Fill(const Pair& pair, size_t index, LoadedAdapter& adapter) const {
    const Target& target = targets_.list[index];
    nn::LowRank& low_rank = adapter.weights.layers[target.layer].*target.product;
    const auto part = std::ranges::find_if(
        low_rank.parts, [&](const nn::LowRankPart& p) { return p.first_output == target.first_output; });
    const double scale = config_.ScaleOf(pair.module);
    std::vector<std::byte> bytes(static_cast<size_t>(pair.a->num_bytes));
    CADRE_TRY(source_.Read(*pair.a, 0, pair.a->num_bytes, bytes.data()));
    Note(index, *pair.a, scale, bytes, adapter);
    kernels::PackRows(low_rank.a, part->first_rank, pair.rank(),
                      bytes.data() + target.inputs.begin * DTypeBytes(pair.a->dtype), pair.a->dtype,
                      target.all_inputs);
    bytes.resize(static_cast<size_t>(pair.b->num_bytes));
    CADRE_TRY(source_.Read(*pair.b, 0, pair.b->num_bytes, bytes.data()));
    Note(index, *pair.b, scale, bytes, adapter);
    const int64_t row_bytes = pair.rank() * DTypeBytes(pair.b->dtype);
    const int64_t num_rows = target.outputs.size();
    const auto own = std::span(bytes).subspan(static_cast<size_t>(target.outputs.begin * row_bytes),
                                              static_cast<size_t>(num_rows * row_bytes));
    const std::vector<float> scaled = Scaled(own, pair.b->dtype, scale);
    kernels::PackRows(part->b, 0, num_rows, scaled.data(), DType::kF32, pair.rank());
    adapter.source_bytes += pair.a->num_bytes + num_rows * row_bytes;
    return {};
  }

  // A tensor's part in the digest: what it is for and what it holds, not where it stands in the file.
  static void Note(size_t target, const TensorInfo& tensor, double scale, std::span<const std::byte> bytes,
                   LoadedAdapter& adapter) {
    const uint64_t what[] = {target, static_cast<uint64_t>(tensor.dtype), std::bit_cast<uint64_t>(scale)};
    adapter.digest = Digest(Digest(adapter.digest, std::as_bytes(std::span(what))), bytes);
  }

  static std::vector<float> Scaled(std::span<const std::byte> bytes, DType type, double scale) {
    std::vector<float> values(bytes.size() / static_cast<size_t>(DTypeBytes(type)));
    for (size_t i = 0; i < values.size(); ++i) {
      float value = 0;
      if (type == DType::kF32) {
        std::memcpy(&value, bytes.data() + 4 * i, 4);
      } else {
        uint16_t bits = 0;
        std::memcpy(&bits, bytes.data() + 2 * i, 2);
        value = type == DType::kBf16 ? ToFloat(Bf16{bits}) : HalfToFloat(bits);
      }
      values[i] = static_cast<float>(value * scale);
    }
    return values;
  }

  static constexpr nn::LowRank LayerAdapter::*kProducts[] = {
      &LayerAdapter::qkv, &LayerAdapter::q_a,     &LayerAdapter::q_b, &LayerAdapter::kv_a,
      &LayerAdapter::o,   &LayerAdapter::gate_up, &LayerAdapter::down};

  const ModelSpec& spec_;
  const TensorSource& source_;
  const AdapterConfig& config_;
  const int64_t max_rank_;
  const PackFormat a_format_;
  const Targets targets_;
  std::vector<Pair> pairs_;  // [targets]
};

}  // namespace

Result<std::unique_ptr<LoadedAdapter>> LoadAdapter(const ModelSpec& spec, const WeightPlan& plan,
                                                   const std::string& folder, int64_t max_rank) {
  CADRE_ASSIGN(const AdapterConfig config, AdapterConfig::Read(folder));
  const std::string file = folder + "/" + kTensorFile;
  auto source = checkpoint::OpenSafetensors(file);
  if (!source && source.error().code == Code::kNotFound) {
    return Fail(Code::kNotFound,
                "No adapter found for {}: there is no {} in it (a .bin must be saved as safetensors)", folder,
                kTensorFile);
  }
  if (!source) return std::unexpected(std::move(source).error());
  auto adapter = Reader(spec, plan, **source, config, max_rank).Run();
  if (!adapter) {
    Error error = std::move(adapter).error();
    error.message = Format("the adapter in {} cannot be used: {}", folder, error.message);
    return std::unexpected(std::move(error));
  }
  return adapter;
}

int64_t AdapterBytes(const ModelSpec& spec, const WeightPlan& plan, int64_t rank) {
  if (rank == 0) return 0;
  const PackFormat format = plan.layout.type == DType::kBf16 ? PackFormat::kBf16 : PackFormat::kF32;
  int64_t bytes = 0;
  for (const Target& target : TargetWalk(spec, plan.shard).Run().list) {
    bytes += kernels::PackedBytes(format, rank, target.inputs.size()) +
             kernels::PackedBytes(PackFormat::kF32, target.outputs.size(), rank);
  }
  return bytes;
}

}  // namespace cadre::model
