#pragma once
// A paged cache full of garbage, sequences in it, and the answers that they should give.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/ref/attention_reference.h"

namespace cadre::kernels {

struct AttentionShape {
  int num_heads = 1, num_kv_heads = 1, k_dim = 16, v_dim = 16;
  bool latent = false;
  int window = 0;
  bool sinks = false;
  int block_size = 16;
  DType type = DType::kBf16;

  std::string Name() const {
    return "heads " + std::to_string(num_heads) + "/" + std::to_string(num_kv_heads) + " k " +
           std::to_string(k_dim) + " v " + std::to_string(v_dim) + (latent ? " latent" : "") + " window " +
           std::to_string(window) + (sinks ? " sinks" : "") + " block " + std::to_string(block_size) + " " +
           DTypeName(type);
  }
};

/// Rows as stored: f32, or bf16 in the upper half.
inline float Rounded(float f, DType type) {
  return type == DType::kBf16 ? ToFloat(ToBf16(f)) : f;
}

class PagedCache {
 public:
  PagedCache(const AttentionShape& shape, std::vector<int> lengths, uint32_t seed)
      : shape_(shape), lengths_(std::move(lengths)), random_(seed) {
    view_.block_size = shape.block_size;
    view_.num_kv_heads = shape.num_kv_heads;
    view_.k_dim = shape.k_dim;
    view_.v_dim = shape.v_dim;
    view_.latent = shape.latent;
    view_.type = shape.type;
    view_.block_stride = KvBlockBytes(view_) + 64;
    int num_blocks = 1;
    for (const int n : lengths_) num_blocks += (n + shape.block_size - 1) / shape.block_size;
    memory_.resize(static_cast<size_t>(num_blocks * view_.block_stride) + 64);
    auto at = reinterpret_cast<uintptr_t>(memory_.data());
    view_.base = memory_.data() + ((at + 63) / 64 * 64 - at);
    std::memset(memory_.data(), 0xFF, memory_.size());  // NaN in both types
    std::vector<int32_t> order(static_cast<size_t>(num_blocks));
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    std::mt19937 order_random(seed + static_cast<uint32_t>(num_blocks));
    std::shuffle(order.begin(), order.end(), order_random);
    size_t next = 0;
    for (const int n : lengths_) {
      auto& table = tables_.emplace_back();
      for (int i = 0; i < n; i += shape.block_size) table.push_back(order[next++]);
    }
    sinks_ = Normal(shape.num_heads);
    for (const int n :
         lengths_) {  // a sequence's numbers follow from the seed and the lengths before it alone
      k_.push_back(Normal(int64_t{n} * shape.num_kv_heads * shape.k_dim));
      v_.push_back(shape.latent ? std::vector<float>{}
                                : Normal(int64_t{n} * shape.num_kv_heads * shape.v_dim));
      q_.push_back(Normal(int64_t{n} * shape.num_heads * shape.k_dim));
      for (float& x : q_.back()) x = Rounded(x, shape.type);
    }
    scale_ = 1.5f / std::sqrt(static_cast<float>(shape.k_dim));
  }

  const KvLayerView& view() const { return view_; }
  float scale() const { return scale_; }
  std::vector<float>& k(size_t sequence) { return k_[sequence]; }
  std::vector<float>& v(size_t sequence) { return v_[sequence]; }
  const std::vector<int32_t>& table(size_t sequence) const { return tables_[sequence]; }

  void Write(const Device& device) {
    for (size_t s = 0; s < lengths_.size(); ++s) Write(device, s, 0, lengths_[s]);
  }
  void Write(const Device& device, size_t s, int begin, int end) {
    std::vector<int64_t> slots;
    for (int t = begin; t < end; ++t) {
      slots.push_back(int64_t{tables_[s][static_cast<size_t>(t / shape_.block_size)]} * shape_.block_size +
                      t % shape_.block_size);
    }
    KvWriteArgs args;
    args.kv = view_;
    args.num_tokens = end - begin;
    args.k_stride = int64_t{shape_.num_kv_heads} * shape_.k_dim;
    args.k = k_[s].data() + begin * args.k_stride;
    args.v_stride = int64_t{shape_.num_kv_heads} * shape_.v_dim;
    args.v = shape_.latent ? nullptr : v_[s].data() + begin * args.v_stride;
    args.slots = slots.data();
    WriteKv(device, args);
  }

  struct Chunk {
    size_t sequence;
    int begin, end;  // positions
  };
  /// The rows of all chunks, one after the other, as bytes of [rows, num_heads, v_dim].
  std::vector<std::byte> Run(const Device& device, const std::vector<Chunk>& chunks) const {
    const int64_t element = shape_.type == DType::kF32 ? 4 : 2;
    const int64_t q_stride = int64_t{shape_.num_heads} * shape_.k_dim + 6;  // rows need not be dense
    const int64_t out_stride = int64_t{shape_.num_heads} * shape_.v_dim + 10;
    int32_t rows = 0;
    std::vector<AttentionSequence> sequences;
    for (const Chunk& c : chunks) {
      sequences.push_back({rows, c.end - c.begin, c.end, tables_[c.sequence].data()});
      rows += c.end - c.begin;
    }
    std::vector<std::byte> q(static_cast<size_t>(rows * q_stride * element));
    std::vector<std::byte> out(static_cast<size_t>(rows * out_stride * element), std::byte{0x77});
    int64_t row = 0;
    for (const Chunk& c : chunks) {
      for (int t = c.begin; t < c.end; ++t, ++row) {
        for (int64_t i = 0; i < int64_t{shape_.num_heads} * shape_.k_dim; ++i) {
          const float x =
              q_[c.sequence][static_cast<size_t>(t * int64_t{shape_.num_heads} * shape_.k_dim + i)];
          std::byte* to = q.data() + (row * q_stride + i) * element;
          const Bf16 b = ToBf16(x);
          std::memcpy(to, shape_.type == DType::kF32 ? static_cast<const void*>(&x) : &b,
                      static_cast<size_t>(element));
        }
      }
    }
    AttentionArgs args;
    args.kv = view_;
    args.num_heads = shape_.num_heads;
    args.q = q.data();
    args.q_stride = q_stride;
    args.scale = scale_;
    args.window = shape_.window;
    args.sinks = shape_.sinks ? sinks_.data() : nullptr;
    args.sequences = sequences;
    args.out = out.data();
    args.out_stride = out_stride;
    Attention(device, args);
    const int64_t width = int64_t{shape_.num_heads} * shape_.v_dim * element;
    std::vector<std::byte> dense;
    for (int64_t r = 0; r < rows; ++r) {
      const auto begin = out.begin() + r * out_stride * element;
      dense.insert(dense.end(), begin, begin + width);
      for (auto it = begin + width; it != begin + out_stride * element; ++it) {
        if (*it != std::byte{0x77}) return {};  // wrote beside its row
      }
    }
    return dense;
  }

  /// The largest error of a row's result, in parts of sum(p * |v|).
  double WorstError(const std::vector<std::byte>& out, const std::vector<Chunk>& chunks) const {
    double worst = 0;
    int64_t at = 0;
    for (const Chunk& c : chunks) {
      std::vector<float> k, v;
      for (const float x : k_[c.sequence]) k.push_back(Rounded(x, shape_.type));
      for (const float x : v_[c.sequence]) v.push_back(Rounded(x, shape_.type));
      for (int t = c.begin; t < c.end; ++t) {
        for (int h = 0; h < shape_.num_heads; ++h) {
          const ref::AttentionRowResult want = Reference(c.sequence, t, h, k, v);
          for (int i = 0; i < shape_.v_dim; ++i, ++at) {
            const double got = static_cast<double>(At(out, at));
            const double error =
                std::abs(got - want.out[static_cast<size_t>(i)]) / want.magnitude[static_cast<size_t>(i)];
            worst = error <= worst ? worst : error;  // keeps NaN
            if (std::isnan(error)) return std::numeric_limits<double>::infinity();
          }
        }
      }
    }
    return worst;
  }

 private:
  std::vector<float> Normal(int64_t n) {
    std::normal_distribution<float> normal;
    std::vector<float> x(static_cast<size_t>(n));
    for (float& f : x) f = normal(random_);
    return x;
  }
  float At(const std::vector<std::byte>& out, int64_t i) const {
    if (shape_.type == DType::kF32) {
      float f;
      std::memcpy(&f, out.data() + i * 4, 4);
      return f;
    }
    Bf16 b;
    std::memcpy(&b, out.data() + i * 2, 2);
    return ToFloat(b);
  }
  ref::AttentionRowResult Reference(size_t s, int t, int h, const std::vector<float>& k,
                                    const std::vector<float>& v) const {
    const int kv_head = h / (shape_.num_heads / shape_.num_kv_heads);
    ref::AttentionRow row;
    row.q = q_[s].data() + (int64_t{t} * shape_.num_heads + h) * shape_.k_dim;
    row.k = k.data() + int64_t{kv_head} * shape_.k_dim;
    row.k_stride = int64_t{shape_.num_kv_heads} * shape_.k_dim;
    row.v = shape_.latent ? row.k : v.data() + int64_t{kv_head} * shape_.v_dim;
    row.v_stride = shape_.latent ? row.k_stride : int64_t{shape_.num_kv_heads} * shape_.v_dim;
    row.k_dim = shape_.k_dim;
    row.v_dim = shape_.v_dim;
    row.begin = shape_.window > 0 ? std::max(0, t - shape_.window + 1) : 0;
    row.end = t + 1;
    row.scale = static_cast<double>(scale_);
    row.sink = shape_.sinks ? &sinks_[static_cast<size_t>(h)] : nullptr;
    return ref::Attention(row);
  }

  AttentionShape shape_;
  std::vector<int> lengths_;
  std::mt19937 random_;
  KvLayerView view_;
  std::vector<std::byte> memory_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<std::vector<float>> k_, v_, q_;
  std::vector<float> sinks_;
  float scale_ = 1;
};

}  // namespace cadre::kernels
