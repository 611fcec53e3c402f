#pragma once
// The slow twin of the weight path, for tests: reads a checkpoint with a few lines of its own, cuts and turns
// the tensors as the definitions in weights.h say, and compares with what lies packed in memory. Layout
// arithmetic here is done on plain f32 rows, sharing no code with weight_map, shard or weight_sink.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/loader.h"
#include "tensor/fp8.h"

namespace cadre::model::test {

/// A folder of its own below the system's temporary one, removed at the end.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "cadre_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void WriteText(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

/// Rows of f32.
struct Plain {
  int64_t rows = 0, cols = 0;
  std::vector<float> data;

  float At(int64_t r, int64_t c) const { return data[static_cast<size_t>(r * cols + c)]; }
  Plain Rows(int64_t begin, int64_t end) const {
    return {end - begin, cols, {data.begin() + begin * cols, data.begin() + end * cols}};
  }
  Plain Cols(int64_t begin, int64_t end) const {
    Plain part{rows, end - begin, {}};
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = begin; c < end; ++c) part.data.push_back(At(r, c));
    }
    return part;
  }
  Plain Turned() const {
    Plain turned{cols, rows, {}};
    for (int64_t c = 0; c < cols; ++c) {
      for (int64_t r = 0; r < rows; ++r) turned.data.push_back(At(r, c));
    }
    return turned;
  }
};

inline Plain Stack(const std::vector<Plain>& parts) {
  Plain all{0, parts.front().cols, {}};
  for (const Plain& part : parts) {
    all.rows += part.rows;
    all.data.insert(all.data.end(), part.data.begin(), part.data.end());
  }
  return all;
}

/// All tensors of a folder as f32: leading dimensions are rows.
class PlainCheckpoint {
 public:
  explicit PlainCheckpoint(const std::string& folder) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() != ".safetensors" || entry.path().filename() == "golden.safetensors")
        continue;
      AddFile(ReadText(entry.path().string()));
    }
  }
  bool Has(const std::string& name) const { return tensors_.contains(name); }
  const std::map<std::string, Plain>& all() const { return tensors_; }
  const std::vector<int64_t>& ShapeOf(const std::string& name) const { return shapes_.at(name); }
  const Plain& Get(const std::string& name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) ADD_FAILURE() << "no tensor " << name;
    static const Plain kNone;
    return found == tensors_.end() ? kNone : found->second;
  }

 private:
  void AddFile(const std::string& bytes) {
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, bytes.data(), 8);
    const auto header = Json::Parse(bytes.substr(8, header_bytes));
    ASSERT_TRUE(header.has_value());
    for (const auto& [name, entry] : header->AsObject()) {
      if (name == "__metadata__") continue;
      Plain tensor{1, 1, {}};
      for (const Json& extent : entry.Find("shape")->AsArray()) {
        tensor.rows *= tensor.cols;
        tensor.cols = extent.AsInt();
        shapes_[name].push_back(extent.AsInt());
      }
      const std::string type = entry.Find("dtype")->AsString();
      const char* data = bytes.data() + 8 + header_bytes + entry.Find("data_offsets")->AsArray()[0].AsInt();
      for (int64_t i = 0; i < tensor.rows * tensor.cols; ++i) tensor.data.push_back(ToPlain(type, data, i));
      tensors_[name] = std::move(tensor);
    }
  }
  static float ToPlain(const std::string& type, const char* data, int64_t i) {
    float value = 0;
    uint16_t bits = 0;
    if (type == "F32") {
      std::memcpy(&value, data + i * 4, 4);
      return value;
    }
    std::memcpy(&bits, data + i * 2, 2);
    return type == "BF16" ? ToFloat(Bf16{bits}) : HalfToFloat(bits);
  }

  std::map<std::string, Plain> tensors_;
  std::map<std::string, std::vector<int64_t>> shapes_;
};

/// What the fp8 places of a rank hold: nothing, the numbers of the file, or its rows quantised.
enum class Fp8 { kNone, kPublished, kWhileLoading };

/// A row as e4m3 with the smallest power of two that brings it below 448, by search.
inline void QuantizeSlowly(float* row, int64_t count) {
  float largest = 0, scale = 0x1p-120f;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(row[i]));
  while (largest / scale > 448) scale *= 2;
  for (int64_t i = 0; i < count; ++i) {
    const float wanted = std::fabs(row[i]) / scale;
    uint8_t best = 0;  // the last code that is not above, then the one behind it
    for (uint8_t step = 64; step > 0; step /= 2) {
      if (best + step < 0x7F && Fp8ToFloat(static_cast<uint8_t>(best + step)) <= wanted) best += step;
    }
    if (best < 0x7E) {
      const float below = wanted - Fp8ToFloat(best),
                  above = Fp8ToFloat(static_cast<uint8_t>(best + 1)) - wanted;
      if (above < below || (above == below && best % 2 == 1)) ++best;
    }
    row[i] = std::copysign(Fp8ToFloat(best) * scale, row[i]);
  }
}

/// Compares every weight of a rank with the checkpoint; failures carry `where`.
class WeightChecker {
 public:
  WeightChecker(const PlainCheckpoint& file, const ModelSpec& spec, const WeightLayout& layout,
                Fp8 fp8 = Fp8::kNone)
      : file_(file), spec_(spec), layout_(layout), fp8_(fp8) {}

  void Check(const ModelWeights& weights, const std::string& where) {
    SCOPED_TRACE(where);
    const Plain& table = file_.Get("model.embed_tokens.weight");
    EXPECT_EQ(weights.embedding_is_head, spec_.tie_embeddings && layout_.tp_size == 1);
    for (size_t i = 0; !weights.embedding_is_head && i < table.data.size(); ++i) {
      const float found = layout_.type == DType::kF32
                              ? static_cast<const float*>(weights.embedding)[i]
                              : ToFloat(static_cast<const Bf16*>(weights.embedding)[i]);
      ASSERT_EQ(found, Rounded(table.data[i])) << "embedding";
    }
    const Plain& head = spec_.tie_embeddings ? table : file_.Get("lm_head.weight");
    const auto [begin, end] = Share(head.rows, layout_.tp_size, layout_.tp_rank);
    EXPECT_EQ(weights.vocab_begin, begin);
    Same(weights.lm_head, head.Rows(begin, end), "lm_head");
    Same(weights.final_norm, file_.Get("model.norm.weight"), "final norm");
    ASSERT_EQ(weights.layers.size(), spec_.layers.size());
    for (size_t i = 0, moe = 0; i < weights.layers.size(); ++i) {
      at_ = "model.layers." + std::to_string(i) + ".";
      const LayerWeights& layer = weights.layers[i];
      Same(layer.attn_norm, Get("input_layernorm.weight"), "attn_norm");
      Same(layer.ffn_norm, Get("post_attention_layernorm.weight"), "ffn_norm");
      spec_.attention.kind == AttentionKind::kMla ? Mla(layer.attention) : Gqa(layer.attention);
      if (spec_.layers[i].moe) {
        Moe(layer.moe, moe++);
      } else {
        FeedForward(layer.dense, "mlp.", spec_.dense_inter);
      }
    }
  }

 private:
  // Written anew: the first ranks take what does not divide.
  static std::pair<int64_t, int64_t> Share(int64_t total, int64_t parts, int64_t rank) {
    int64_t begin = 0;
    for (int64_t r = 0; r < rank; ++r) begin += total / parts + (r < total % parts);
    return {begin, begin + total / parts + (rank < total % parts)};
  }

  const Plain& Get(const std::string& name) const { return file_.Get(at_ + name); }
  float Rounded(float value) const { return layout_.type == DType::kF32 ? value : ToFloat(ToBf16(value)); }

  void Same(const PackedMatrix& packed, const Plain& wanted, const std::string& what,
            bool exact = false) const {
    ASSERT_NE(packed.data, nullptr) << at_ << what;
    ASSERT_EQ(packed.n, wanted.rows) << at_ << what;
    ASSERT_EQ(packed.k, wanted.cols) << at_ << what;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(packed.data) % 64, 0u);
    std::vector<float> found(static_cast<size_t>(packed.n * packed.k));
    kernels::UnpackRows(packed, 0, packed.n, found.data(), packed.k);
    std::vector<float> numbers = wanted.data;
    const bool fp8 = kernels::IsFp8(packed.format);
    const bool never = exact || what == "lm_head" || what == "w_uk" || what == "w_uv";
    ASSERT_EQ(fp8, FollowsFile(what) ? fp8 : fp8_ != Fp8::kNone && !never) << at_ << what;
    for (int64_t r = 0; fp8 && fp8_ == Fp8::kWhileLoading && r < packed.n; ++r)
      QuantizeSlowly(numbers.data() + r * packed.k, packed.k);
    for (size_t i = 0; i < found.size(); ++i) {
      const float value = exact || fp8 ? numbers[i] : Rounded(numbers[i]);
      ASSERT_EQ(found[i], value) << at_ << what << " row " << i / static_cast<size_t>(packed.k);
    }
  }
  // Published checkpoints leave some layers out.
  bool FollowsFile(const std::string&) const { return fp8_ == Fp8::kPublished && !spec_.quant.skip.empty(); }

  void Same(const float* found, const Plain& wanted, const std::string& what) const {
    ASSERT_NE(found, nullptr) << at_ << what;
    for (size_t i = 0; i < wanted.data.size(); ++i)
      ASSERT_EQ(found[i], wanted.data[i]) << at_ << what << " " << i;
  }

  // A vector is one row of many columns here.
  Plain Slice(const std::string& name, int64_t begin, int64_t end) const {
    return Get(name).Cols(begin, end);
  }

  void Gqa(const AttentionWeights& w) const {
    const AttentionSpec& a = spec_.attention;
    const int64_t heads = a.num_heads / layout_.tp_size, first = heads * layout_.tp_rank, dim = a.head_dim;
    const int64_t group = a.num_heads / a.num_kv_heads;  // query heads that share a KV head
    const int64_t kv_first = first / group, kv_last = (first + heads - 1) / group + 1;
    const std::string p = "self_attn.";
    Same(w.qkv,
         Stack({Get(p + "q_proj.weight").Rows(first * dim, (first + heads) * dim),
                Get(p + "k_proj.weight").Rows(kv_first * dim, kv_last * dim),
                Get(p + "v_proj.weight").Rows(kv_first * dim, kv_last * dim)}),
         "qkv");
    Same(w.o, Get(p + "o_proj.weight").Cols(first * dim, (first + heads) * dim), "o");
    EXPECT_EQ(w.qkv_bias != nullptr, file_.Has(at_ + p + "q_proj.bias"));
    if (w.qkv_bias) {
      Plain bias = Slice(p + "q_proj.bias", first * dim, (first + heads) * dim);
      for (const char* name : {"k_proj.bias", "v_proj.bias"}) {
        const Plain more = Slice(p + name, kv_first * dim, kv_last * dim);
        bias.data.insert(bias.data.end(), more.data.begin(), more.data.end());
      }
      Same(w.qkv_bias, bias, "qkv bias");
    }
    EXPECT_EQ(w.o_bias != nullptr, layout_.tp_rank == 0 && file_.Has(at_ + p + "o_proj.bias"));
    if (w.o_bias) Same(w.o_bias, Get(p + "o_proj.bias"), "o bias");
    EXPECT_EQ(w.q_norm != nullptr, file_.Has(at_ + p + "q_norm.weight"));
    if (!w.q_norm) return;
    const bool full = a.qk_norm == QkNorm::kFullRow;
    Same(w.q_norm,
         full ? Slice(p + "q_norm.weight", first * dim, (first + heads) * dim) : Get(p + "q_norm.weight"),
         "q_norm");
    Same(w.k_norm,
         full ? Slice(p + "k_norm.weight", kv_first * dim, kv_last * dim) : Get(p + "k_norm.weight"),
         "k_norm");
  }

  void Mla(const AttentionWeights& w) const {
    const AttentionSpec& a = spec_.attention;
    const int64_t heads = a.num_heads / layout_.tp_size, first = heads * layout_.tp_rank;
    const int64_t per_head = a.qk_nope_dim + a.v_head_dim;
    const std::string p = "self_attn.";
    EXPECT_EQ(a.q_lora_rank > 0, file_.Has(at_ + p + "q_a_proj.weight"));
    if (a.q_lora_rank > 0) {
      Same(w.q_a, Get(p + "q_a_proj.weight"), "q_a");
      Same(w.q_a_norm, Get(p + "q_a_layernorm.weight"), "q_a_norm");
    }
    Same(w.q_b,
         Get(p + (a.q_lora_rank > 0 ? "q_b_proj.weight" : "q_proj.weight"))
             .Rows(first * a.head_dim, (first + heads) * a.head_dim),
         "q_b");
    Same(w.kv_a, Get(p + "kv_a_proj_with_mqa.weight"), "kv_a");
    Same(w.kv_a_norm, Get(p + "kv_a_layernorm.weight"), "kv_a_norm");
    EXPECT_EQ(w.kv_a_bias != nullptr, file_.Has(at_ + p + "kv_a_proj_with_mqa.bias"));
    if (w.kv_a_bias) Same(w.kv_a_bias, Get(p + "kv_a_proj_with_mqa.bias"), "kv_a bias");
    ASSERT_EQ(static_cast<int64_t>(w.w_uk.size()), heads);
    const Plain& kv_b = Get(p + "kv_b_proj.weight");
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t row = (first + h) * per_head;
      Same(w.w_uk[static_cast<size_t>(h)], kv_b.Rows(row, row + a.qk_nope_dim).Turned(), "w_uk");
      Same(w.w_uv[static_cast<size_t>(h)], kv_b.Rows(row + a.qk_nope_dim, row + per_head), "w_uv");
    }
    Same(w.o, Get(p + "o_proj.weight").Cols(first * a.v_head_dim, (first + heads) * a.v_head_dim), "o");
  }

  void FeedForward(const FeedForwardWeights& w, const std::string& p, int64_t inter) const {
    const auto [begin, end] = Share(inter, layout_.tp_size, layout_.tp_rank);
    Same(w.gate_up,
         Stack({Get(p + "gate_proj.weight").Rows(begin, end), Get(p + "up_proj.weight").Rows(begin, end)}),
         p + "gate_up");
    Same(w.down, Get(p + "down_proj.weight").Cols(begin, end), p + "down");
  }

  void Moe(const MoeWeights& w, size_t moe_layer) const {
    const std::string p = file_.Has(at_ + "block_sparse_moe.gate.weight") ? "block_sparse_moe." : "mlp.";
    const MoeSpec& moe = spec_.moe;
    Same(w.router, Get(p + "gate.weight"), "router", true);
    EXPECT_EQ(w.selection_bias != nullptr, file_.Has(at_ + p + "gate.e_score_correction_bias"));
    if (w.selection_bias) Same(w.selection_bias, Get(p + "gate.e_score_correction_bias"), "selection bias");
    const std::string shared =
        file_.Has(at_ + p + "shared_expert.up_proj.weight") ? "shared_expert." : "shared_experts.";
    EXPECT_EQ(moe.shared_inter > 0, file_.Has(at_ + p + shared + "up_proj.weight"));
    if (moe.shared_inter > 0) FeedForward(w.shared, p + shared, moe.shared_inter);
    EXPECT_EQ(moe.shared_gate, file_.Has(at_ + p + "shared_expert_gate.weight"));
    if (moe.shared_gate) Same(w.shared_gate, Get(p + "shared_expert_gate.weight"), "shared gate", true);
    std::vector<int32_t> wanted;
    if (!layout_.slots.empty()) {
      wanted = layout_.slots[moe_layer];
    } else {
      const auto [begin, end] = layout_.enable_ep ? Share(moe.num_experts, layout_.ep_size, layout_.ep_rank)
                                                  : std::pair<int64_t, int64_t>(0, moe.num_experts);
      for (int64_t e = begin; e < end; ++e) wanted.push_back(static_cast<int32_t>(e));
    }
    ASSERT_EQ(w.logical, wanted);
    ASSERT_EQ(w.experts.size(), wanted.size());
    for (size_t s = 0; s < wanted.size(); ++s) {
      if (wanted[s] >= 0) Expert(w.experts[s], p + "experts.", wanted[s]);
    }
  }

  void Expert(const kernels::ExpertWeights& w, const std::string& p, int64_t e) const {
    const int64_t inter = spec_.moe.inter, hidden = spec_.hidden;
    const auto [begin, end] = layout_.enable_ep ? std::pair<int64_t, int64_t>(0, inter)
                                                : Share(inter, layout_.ep_size, layout_.ep_rank);
    Plain gate, up, down;
    if (file_.Has(at_ + p + "gate_up_proj")) {
      const Plain both = Get(p + "gate_up_proj").Rows(e * 2 * inter, (e + 1) * 2 * inter);
      gate = both.Rows(begin, end);
      up = both.Rows(inter + begin, inter + end);
      down = Get(p + "down_proj").Rows(e * hidden, (e + 1) * hidden).Cols(begin, end);
    } else {
      const std::string one = p + std::to_string(e) + ".";
      const bool w123 = file_.Has(at_ + one + "w1.weight");
      gate = Get(one + (w123 ? "w1.weight" : "gate_proj.weight")).Rows(begin, end);
      up = Get(one + (w123 ? "w3.weight" : "up_proj.weight")).Rows(begin, end);
      down = Get(one + (w123 ? "w2.weight" : "down_proj.weight")).Cols(begin, end);
    }
    // 16 gate rows, 16 up rows, and so on; what is missing in the last panels is zero.
    const int64_t panels = (end - begin + 15) / 16;
    Plain mixed{panels * 32, hidden, std::vector<float>(static_cast<size_t>(panels * 32 * hidden))};
    for (int64_t r = 0; r < end - begin; ++r) {
      for (int64_t c = 0; c < hidden; ++c) {
        mixed.data[static_cast<size_t>((r / 16 * 32 + r % 16) * hidden + c)] = gate.At(r, c);
        mixed.data[static_cast<size_t>((r / 16 * 32 + 16 + r % 16) * hidden + c)] = up.At(r, c);
      }
    }
    Same(w.gate_up, mixed, "expert gate_up");
    Same(w.down, down, "expert down");
  }

  const PlainCheckpoint& file_;
  const ModelSpec& spec_;
  const WeightLayout& layout_;
  Fp8 fp8_ = Fp8::kNone;
  std::string at_;
};

/// Loads every rank of (tp, dp, ep) and checks it against the numbers in `plain_folder`, or in `folder`.
inline void CheckAllRanks(const std::string& folder, int tp, int dp, bool enable_ep, DType type,
                          sys::ThreadPool& pool, Fp8 fp8 = Fp8::kNone, const std::string& plain_folder = "") {
  const PlainCheckpoint file(plain_folder.empty() ? folder : plain_folder);
  for (int rank = 0; rank < tp * dp; ++rank) {
    const WeightLayout layout{.type = type,
                              .fp8 = fp8 != Fp8::kNone,
                              .tp_rank = rank % tp,
                              .tp_size = tp,
                              .ep_rank = rank,
                              .ep_size = tp * dp,
                              .enable_ep = enable_ep,
                              .slots = {}};
    auto model = LoadModel(folder, layout, pool);
    ASSERT_TRUE(model.has_value()) << model.error().message;
    EXPECT_EQ(model->weights.generation, 1);
    EXPECT_EQ(model->report.num_unknown, 0);
    WeightChecker(file, model->spec, layout, fp8)
        .Check(model->weights,
               Format("tp {} dp {} ep {} rank {} {}", tp, dp, enable_ep, rank, DTypeName(type)));
  }
}

}  // namespace cadre::model::test
