#pragma once
// For tests: a whole model on one rank, without an engine.
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "a2a/a2a.h"
#include "eplb/placement.h"
#include "model/decoder.h"
#include "model/loader.h"

namespace cadre::model::test {

inline constexpr int32_t kBlockSize = 16;
inline constexpr int32_t kNumBlocks = 16;
inline constexpr int64_t kMaxAdapterRank = 16;

// One rank with one sequence whose blocks lie in falling order, so that a mix-up of block and position would
// show.
class Rig {
 public:
  Rig(const std::string& folder, DType type, kernels::Isa isa, int num_threads, bool fp8 = false)
      : pool_({.num_threads = num_threads, .cpus = {}, .spin = false}), device_{.isa = isa, .pool = &pool_} {
    auto loaded = LoadModel(folder, {.type = type, .fp8 = fp8}, pool_);
    EXPECT_TRUE(loaded.has_value()) << loaded.error().message;
    model_ = std::make_unique<LoadedModel>(std::move(*loaded));
    const ModelSpec& spec = model_->spec;
    const bool latent = spec.attention.kind == AttentionKind::kMla;
    layout_ = {.num_layers = spec.num_layers(),
               .num_kv_heads = latent ? 1 : spec.attention.num_kv_heads,
               .k_dim = spec.attention.cache_k_dim(),
               .v_dim = spec.attention.cache_v_dim(),
               .latent = latent,
               .block_size = kBlockSize,
               .type = type};
    cache_ = *sys::AllocateRegion(static_cast<size_t>(layout_.PoolBytes(kNumBlocks)));
    const int64_t max_tokens = kBlockSize * kNumBlocks;
    if (spec.moe.num_experts > 0) {
      map_ = *eplb::StartMap(spec.moe.num_experts, 0, 1, eplb::Placement::kLinear);
      exchange_ = *a2a::Create({.hidden = spec.hidden,
                                .act_type = type,
                                .top_k = spec.moe.top_k,
                                .max_rows = max_tokens,
                                .layout = map_->layout(),
                                .device = device_});
    }
    maps_.assign(static_cast<size_t>(spec.num_moe_layers()), map_ ? &*map_ : nullptr);
    decoder_ = std::make_unique<Decoder>(spec, model_->weights,
                                         DecoderOptions{.max_num_tokens = max_tokens,
                                                        .max_expert_rows = max_tokens * spec.moe.top_k,
                                                        .max_adapter_rank = kMaxAdapterRank});
    block_table_.resize(kNumBlocks);
    for (int32_t i = 0; i < kNumBlocks; ++i) block_table_[static_cast<size_t>(i)] = kNumBlocks - 1 - i;
  }

  // Appends tokens after `begin` known ones and returns the logits of all of them; `adapters` name rows of
  // these.
  std::vector<float> Run(std::span<const int32_t> tokens, int32_t begin,
                         std::span<const nn::AdapterRows> adapters = {}) {
    const auto count = static_cast<int32_t>(tokens.size());
    std::vector<int32_t> positions(tokens.size()), rows(tokens.size());
    std::iota(positions.begin(), positions.end(), begin);
    std::iota(rows.begin(), rows.end(), 0);
    std::vector<int64_t> slots;
    for (const int32_t p : positions) {
      slots.push_back(int64_t{block_table_[static_cast<size_t>(p / kBlockSize)]} * kBlockSize +
                      p % kBlockSize);
    }
    const kernels::AttentionSequence sequence{
        .q_begin = 0, .q_len = count, .kv_len = begin + count, .block_table = block_table_.data()};
    const nn::StepContext context{.device = device_,
                                  .batch = {.token_ids = tokens,
                                            .positions = positions,
                                            .kv_slots = slots,
                                            .sequences = {&sequence, 1}},
                                  .kv = {.layout = layout_, .num_blocks = kNumBlocks, .base = cache_.data()},
                                  .adapters = adapters,
                                  .exchange = exchange_.get(),
                                  .expert_maps = maps_};
    if (exchange_ != nullptr) exchange_->BeginStep(0, TimePoint::max());
    EXPECT_TRUE(decoder_->Forward(context).has_value());
    std::vector<float> logits(tokens.size() * static_cast<size_t>(model_->spec.vocab_size));
    EXPECT_TRUE(decoder_->Logits(context, rows, logits.data()).has_value());
    return logits;
  }

  const ModelSpec& spec() const { return model_->spec; }
  const LoadedModel& model() const { return *model_; }
  Decoder& decoder() { return *decoder_; }

 private:
  sys::ThreadPool pool_;
  kernels::Device device_;
  std::unique_ptr<LoadedModel> model_;
  kv::Layout layout_;
  sys::Region cache_;
  std::optional<eplb::ExpertMap> map_;
  std::vector<const eplb::ExpertMap*> maps_;
  std::unique_ptr<a2a::AllToAll> exchange_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<int32_t> block_table_;
};

}  // namespace cadre::model::test
