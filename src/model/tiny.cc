#include "model/tiny.h"

#include <cmath>
#include <cstdio>
#include <memory>

#include "base/random.h"
#include "checkpoint/safetensors.h"
#include "model/registry.h"

namespace cadre::model {
namespace {

using checkpoint::TensorInfo;

// What a tensor's numbers look like: mean + spread * uniform(-1, 1).
struct TinyTensor {
  TensorInfo info;
  double mean = 0, spread = 0;
};

// Lists a family's tensors from its spec: the writer's own reading of the names, not the loader's.
class Lister {
 public:
  Lister(const ModelSpec& spec, const TinyOptions& options) : spec_(spec), options_(options) {}

  std::vector<TinyTensor> Run() {
    const int64_t hidden = spec_.hidden;
    Weight(spec_.names.embedding, {spec_.vocab_size, hidden}, 1.0);
    for (size_t i = 0; i < spec_.layers.size(); ++i) {
      const std::string at = spec_.names.layer_prefix + std::to_string(i) + ".";
      Norm(at + "input_layernorm.weight", hidden);
      Norm(at + "post_attention_layernorm.weight", hidden);
      spec_.attention.kind == AttentionKind::kMla ? Mla(at + "self_attn.") : Gqa(at + "self_attn.");
      spec_.layers[i].moe ? Moe(at + spec_.names.moe.front()) : FeedForward(at + "mlp.", spec_.dense_inter);
    }
    Norm(spec_.names.final_norm, hidden);
    if (!spec_.tie_embeddings) Linear(spec_.names.lm_head, spec_.vocab_size, hidden);
    return std::move(tensors_);
  }

 private:
  void Gqa(const std::string& at) {
    const AttentionSpec& a = spec_.attention;
    const int64_t q = int64_t{a.num_heads} * a.head_dim, kv = int64_t{a.num_kv_heads} * a.head_dim;
    const bool per_head = a.qk_norm == QkNorm::kPerHead;
    Linear(at + "q_proj.weight", q, spec_.hidden);
    Linear(at + "k_proj.weight", kv, spec_.hidden);
    Linear(at + "v_proj.weight", kv, spec_.hidden);
    if (a.qkv_bias) {
      Weight(at + "q_proj.bias", {q}, 0.5);
      Weight(at + "k_proj.bias", {kv}, 0.5);
      Weight(at + "v_proj.bias", {kv}, 0.5);
    }
    if (a.qk_norm != QkNorm::kNone) {
      Norm(at + "q_norm.weight", per_head ? a.head_dim : q);
      Norm(at + "k_norm.weight", per_head ? a.head_dim : kv);
    }
    Linear(at + "o_proj.weight", spec_.hidden, q);
    if (a.o_bias) Weight(at + "o_proj.bias", {spec_.hidden}, 0.5);
  }

  void Mla(const std::string& at) {
    const AttentionSpec& a = spec_.attention;
    const int64_t heads = a.num_heads, hidden = spec_.hidden, latent = a.kv_lora_rank + a.qk_rope_dim;
    if (a.q_lora_rank > 0) {
      Linear(at + "q_a_proj.weight", a.q_lora_rank, hidden);
      if (a.qkv_bias) Weight(at + "q_a_proj.bias", {a.q_lora_rank}, 0.5);
      Norm(at + "q_a_layernorm.weight", a.q_lora_rank);
      Linear(at + "q_b_proj.weight", heads * a.head_dim, a.q_lora_rank);
    } else {
      Linear(at + "q_proj.weight", heads * a.head_dim, hidden);
    }
    Linear(at + "kv_a_proj_with_mqa.weight", latent, hidden);
    if (a.qkv_bias) Weight(at + "kv_a_proj_with_mqa.bias", {latent}, 0.5);
    Norm(at + "kv_a_layernorm.weight", a.kv_lora_rank);
    Linear(at + "kv_b_proj.weight", heads * (a.qk_nope_dim + a.v_head_dim), a.kv_lora_rank);
    Linear(at + "o_proj.weight", hidden, heads * a.v_head_dim);
    if (a.o_bias) Weight(at + "o_proj.bias", {hidden}, 0.5);
  }

  void Moe(const std::string& at) {
    const MoeSpec& moe = spec_.moe;
    const TensorNames& names = spec_.names;
    const int64_t inter = moe.inter, hidden = spec_.hidden;
    Linear(at + names.router, moe.num_experts, hidden);
    if (moe.selection_bias) Weight(at + names.selection_bias, {moe.num_experts}, 0.2);
    if (options_.fused_experts) {
      Weight(at + "experts.gate_up_proj", {moe.num_experts, 2 * inter, hidden}, Spread(hidden));
      Weight(at + "experts.down_proj", {moe.num_experts, hidden, inter}, Spread(inter));
    } else {
      for (int e = 0; e < moe.num_experts; ++e) {
        const std::string expert = at + "experts." + std::to_string(e) + ".";
        Linear(expert + names.expert_gate + ".weight", inter, hidden);
        Linear(expert + names.expert_up + ".weight", inter, hidden);
        Linear(expert + names.expert_down + ".weight", hidden, inter);
      }
    }
    if (moe.shared_inter > 0) FeedForward(at + names.shared, moe.shared_inter);
    if (moe.shared_gate) Linear(at + names.shared_gate, 1, hidden);
  }

  void FeedForward(const std::string& at, int64_t inter) {
    Linear(at + "gate_proj.weight", inter, spec_.hidden);
    Linear(at + "up_proj.weight", inter, spec_.hidden);
    Linear(at + "down_proj.weight", spec_.hidden, inter);
  }

  static double Spread(int64_t inputs) { return std::sqrt(3.0 / static_cast<double>(inputs)); }
  void Linear(const std::string& name, int64_t n, int64_t k) { Weight(name, {n, k}, Spread(k)); }
  void Norm(const std::string& name, int64_t n) { Add(name, {n}, 1.0, 0.3); }
  void Weight(const std::string& name, std::vector<int64_t> shape, double spread) {
    Add(name, std::move(shape), 0.0, spread);
  }
  void Add(const std::string& name, std::vector<int64_t> shape, double mean, double spread) {
    tensors_.push_back({{.name = name, .dtype = options_.type, .shape = std::move(shape)}, mean, spread});
  }

  const ModelSpec& spec_;
  const TinyOptions& options_;
  std::vector<TinyTensor> tensors_;
};

uint16_t FloatToHalf(float value) {
  // Enough for numbers of ordinary size: round to nearest even by the native type.
  const auto half = static_cast<_Float16>(value);
  return std::bit_cast<uint16_t>(half);
}

void AppendValue(std::string& bytes, DType type, float value) {
  const auto append = [&](auto bits) { bytes.append(reinterpret_cast<const char*>(&bits), sizeof(bits)); };
  switch (type) {
    case DType::kBf16:
      append(ToBf16(value).bits);
      break;
    case DType::kF16:
      append(FloatToHalf(value));
      break;
    default:
      append(value);
  }
}

// The tensor's own name picks its stream of random numbers, so that other tensors do not shift it.
std::string MakeData(const TinyTensor& tensor, uint64_t seed) {
  uint64_t stream = 14695981039346656037ull;  // FNV-1a
  for (const char c : tensor.info.name) stream = (stream ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  int64_t count = 1;
  for (const int64_t extent : tensor.info.shape) count *= extent;
  std::string bytes;
  for (int64_t i = 0; i < count; ++i) {
    const double uniform = 2 * UniformAt(seed, stream, static_cast<uint64_t>(i)) - 1;
    AppendValue(bytes, tensor.info.dtype, static_cast<float>(tensor.mean + tensor.spread * uniform));
  }
  return bytes;
}

Status WriteFile(const std::string& path, const std::string& bytes) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "wb"), std::fclose);
  if (!file || std::fwrite(bytes.data(), 1, bytes.size(), file.get()) != bytes.size() ||
      std::fflush(file.get()) != 0) {
    return Fail(Code::kUnavailable, "cannot write {}", path);
  }
  return {};
}

Status WriteTensors(const std::string& path, const std::vector<TinyTensor>& tensors, uint64_t seed) {
  std::vector<TensorInfo> infos;
  for (const TinyTensor& tensor : tensors) infos.push_back(tensor.info);
  std::string bytes = checkpoint::MakeSafetensorsHeader(infos);
  for (const TinyTensor& tensor : tensors) bytes += MakeData(tensor, seed);
  return WriteFile(path, bytes);
}

Status WriteShards(const std::string& folder, const std::vector<TinyTensor>& tensors,
                   const TinyOptions& options) {
  const auto num_files = static_cast<size_t>(options.num_files);
  Json map = Json::Object();
  for (size_t f = 0; f < num_files; ++f) {
    const std::string name = Format("model-{:05}-of-{:05}.safetensors", f + 1, num_files);
    std::vector<TinyTensor> part;
    for (size_t i = f; i < tensors.size();
         i += num_files) {  // dealt out, so that every layer lies in every file
      part.push_back(tensors[i]);
      map.Set(tensors[i].info.name, name);
    }
    CADRE_TRY(WriteTensors(folder + "/" + name, part, options.seed));
  }
  const Json index = Json::Object{{"metadata", Json::Object{}}, {"weight_map", std::move(map)}};
  return WriteFile(folder + "/model.safetensors.index.json", index.DumpPretty());
}

// The keys of one family beyond those that all have.
void SetFamilyKeys(const TinyOptions& o, Json& config) {
  const std::string& family = o.family;
  if (family == "mixtral" || family == "olmoe") config.Set("intermediate_size", o.moe_inter);
  if (family == "mixtral") config.Set("num_local_experts", o.num_experts);
  if (family == "qwen3_moe" || family == "qwen2_moe" || family == "olmoe")
    config.Set("num_experts", o.num_experts);
  if (family == "qwen3_moe" || family == "qwen2_moe") config.Set("moe_intermediate_size", o.moe_inter);
  if (family == "qwen3_moe") config.Set("norm_topk_prob", true);
  if (family == "qwen2_moe") config.Set("shared_expert_intermediate_size", 2 * o.moe_inter);
  if (family != "deepseek_v2" && family != "deepseek_v3") return;
  config.Set("moe_intermediate_size", o.moe_inter);
  config.Set("n_routed_experts", o.num_experts);
  config.Set("n_shared_experts", 1);
  config.Set("first_k_dense_replace", 1);
  config.Set("q_lora_rank", o.q_lora_rank > 0 ? Json(o.q_lora_rank) : Json());
  config.Set("kv_lora_rank", o.kv_lora_rank);
  config.Set("qk_nope_head_dim", o.qk_nope_dim);
  config.Set("qk_rope_head_dim", o.qk_rope_dim);
  config.Set("v_head_dim", o.v_head_dim);
  config.Set("num_key_value_heads", o.num_heads);
  config.Set("head_dim", Json());
  if (family == "deepseek_v3") {
    config.Set("n_group", 2);
    config.Set("topk_group", 1);
    config.Set("norm_topk_prob", true);
  }
}

}  // namespace

Json MakeTinyConfig(const TinyOptions& o) {
  Json config = Json::Object();
  for (const Family& family : Families()) {
    if (o.family == family.model_type) config.Set("architectures", Json::Array{Json(family.architecture)});
  }
  const std::string type = DTypeName(o.type);
  config.Set("model_type", o.family);
  config.Set("vocab_size", o.vocab_size);
  config.Set("hidden_size", o.hidden);
  config.Set("num_hidden_layers", o.num_layers);
  config.Set("num_attention_heads", o.num_heads);
  config.Set("num_key_value_heads", o.num_kv_heads);
  config.Set("head_dim", o.head_dim);
  config.Set("intermediate_size", o.dense_inter);
  config.Set("num_experts_per_tok", o.top_k);
  config.Set("hidden_act", "silu");
  config.Set("rms_norm_eps", 1e-6);
  config.Set("max_position_embeddings", 2048);
  config.Set("tie_word_embeddings", o.tie_embeddings);
  config.Set("bos_token_id", 0);
  config.Set("eos_token_id", 1);
  if (o.new_style) {
    config.Set("rope_parameters", Json::Object{{"rope_theta", 10000.0}, {"rope_type", "default"}});
    config.Set("dtype", type);
  } else {
    config.Set("rope_theta", 10000.0);
    config.Set("torch_dtype", type);
  }
  SetFamilyKeys(o, config);
  if (o.extra.is_object()) {
    for (const auto& [key, value] : o.extra.AsObject()) config.Set(key, value);
  }
  return config;
}

Status WriteTinyCheckpoint(const std::string& folder, const TinyOptions& options) {
  const Json config = MakeTinyConfig(options);
  CADRE_ASSIGN(const ModelSpec spec, ReadModelSpec(config, Json()));
  const std::vector<TinyTensor> tensors = Lister(spec, options).Run();
  CADRE_TRY(WriteFile(folder + "/config.json", config.DumpPretty()));
  if (options.num_files > 1) return WriteShards(folder, tensors, options);
  return WriteTensors(folder + "/model.safetensors", tensors, options.seed);
}

}  // namespace cadre::model
