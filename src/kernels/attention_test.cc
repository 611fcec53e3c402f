#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/attention_test_case.h"
#include "kernels/every_isa_test.h"

namespace cadre::kernels {
namespace {

// bf16 pools: P is rounded (2^-8 of each weight, and as much of their sum at most), the result once more.
// f32 pools: chains of at most 576 products and the exponential's 2 ulp.
double Bound(DType type) {
  return type == DType::kBf16 ? 3.0 / 256 : 4e-6;
}

class AttentionTest : public EveryIsa {};
INSTANTIATE_TEST_SUITE_P(Isa, AttentionTest, AllIsas(), IsaParamName);

// Three sequences: a long decode, a chunk of a prompt, a whole short prompt.
void ExpectRight(const Device& device, const AttentionShape& shape, const std::vector<int>& lengths,
                 uint32_t seed) {
  PagedCache cache(shape, lengths, seed);
  cache.Write(device);
  std::vector<PagedCache::Chunk> chunks;
  for (size_t s = 0; s < lengths.size(); ++s) {
    const int rows = std::min(lengths[s], s == 0 ? 1 : 5 * static_cast<int>(s) + 2);
    chunks.push_back({s, lengths[s] - rows, lengths[s]});
  }
  EXPECT_LT(cache.WorstError(cache.Run(device, chunks), chunks), Bound(shape.type)) << shape.Name();
}

TEST_P(AttentionTest, EqualsTheReferenceForAllHeadShapes) {
  const Device device = With(2);
  uint32_t seed = 1;
  for (const DType type : {DType::kBf16, DType::kF32}) {
    for (const int k_dim : {2, 16, 24, 32, 64, 72, 96, 128, 192, 256}) {
      for (const int v_dim : {k_dim, k_dim / 2, 40}) {
        const AttentionShape shape = {
            .num_heads = 4, .num_kv_heads = 2, .k_dim = k_dim, .v_dim = v_dim, .type = type};
        ExpectRight(device, shape, {259, 33, 7}, seed++);
      }
    }
  }
}

TEST_P(AttentionTest, EqualsTheReferenceForAllGroupSizes) {
  const Device device = With(2);
  for (const DType type : {DType::kBf16, DType::kF32}) {
    for (int group = 1; group <= 16; ++group) {
      const AttentionShape shape = {
          .num_heads = 2 * group, .num_kv_heads = 2, .k_dim = 32, .v_dim = 32, .type = type};
      ExpectRight(device, shape, {100, 270, 12}, static_cast<uint32_t>(group));
    }
  }
}

TEST_P(AttentionTest, EqualsTheReferenceForLatents) {
  const Device device = With(2);
  uint32_t seed = 100;
  for (const DType type : {DType::kBf16, DType::kF32}) {
    for (const auto& [heads, k_dim, v_dim] :
         {std::tuple{4, 40, 32}, {3, 20, 14}, {130, 40, 32}, {16, 576, 512}, {5, 66, 33}}) {
      for (const bool sinks : {false, true}) {
        const AttentionShape shape = {.num_heads = heads,
                                      .num_kv_heads = 1,
                                      .k_dim = k_dim,
                                      .v_dim = v_dim,
                                      .latent = true,
                                      .window = sinks ? 20 : 0,
                                      .sinks = sinks,
                                      .type = type};
        ExpectRight(device, shape, {265, 40}, seed++);
      }
    }
  }
}

TEST_P(AttentionTest, EqualsTheReferenceForWindowsSinksAndBlocks) {
  const Device device = With(3);
  uint32_t seed = 200;
  for (const DType type : {DType::kBf16, DType::kF32}) {
    for (const int window : {0, 1, 3, 16, 17, 128, 300}) {
      for (const int block_size : {16, 32, 64, 48}) {
        for (const bool sinks : {false, true}) {
          const AttentionShape shape = {.num_heads = 6,
                                        .num_kv_heads = 2,
                                        .k_dim = 32,
                                        .v_dim = 32,
                                        .window = window,
                                        .sinks = sinks,
                                        .block_size = block_size,
                                        .type = type};
          ExpectRight(device, shape, {515, 290, 31}, seed++);
        }
      }
    }
  }
}

TEST_P(AttentionTest, EqualsTheReferenceForAllLengths) {
  const Device device = With(2);
  for (const DType type : {DType::kBf16, DType::kF32}) {
    const AttentionShape shape = {.num_heads = 3, .num_kv_heads = 1, .k_dim = 16, .v_dim = 16, .type = type};
    for (int length = 1; length <= 70; ++length) ExpectRight(device, shape, {length, length}, 300);
    for (const int length : {255, 256, 257, 511, 512, 513, 1000, 2000})
      ExpectRight(device, shape, {length, length}, 301);
  }
}

// --- The law: a row's bits depend on its position, its query and its cache alone ---

struct LawCase {
  const char* name;
  AttentionShape shape;
};
const LawCase kLawCases[] = {
    {"grouped", {.num_heads = 10, .num_kv_heads = 2, .k_dim = 32, .v_dim = 32}},
    {"grouped f32", {.num_heads = 10, .num_kv_heads = 2, .k_dim = 32, .v_dim = 32, .type = DType::kF32}},
    {"one head a group", {.num_heads = 2, .num_kv_heads = 2, .k_dim = 64, .v_dim = 48}},
    {"window", {.num_heads = 8, .num_kv_heads = 2, .k_dim = 16, .v_dim = 24, .window = 37, .sinks = true}},
    {"window f32",
     {.num_heads = 3, .num_kv_heads = 1, .k_dim = 16, .v_dim = 24, .window = 300, .type = DType::kF32}},
    {"latent", {.num_heads = 20, .num_kv_heads = 1, .k_dim = 40, .v_dim = 32, .latent = true}},
    {"latent f32",
     {.num_heads = 20, .num_kv_heads = 1, .k_dim = 40, .v_dim = 32, .latent = true, .type = DType::kF32}},
};

// Every row of two sequences, each by itself on one thread.
std::vector<std::byte> RowsAlone(const PagedCache& cache, const Device& device,
                                 const std::vector<int>& lengths) {
  std::vector<std::byte> rows;
  for (size_t s = 0; s < lengths.size(); ++s) {
    for (int t = 0; t < lengths[s]; ++t) {
      const auto row = cache.Run(device, {{s, t, t + 1}});
      rows.insert(rows.end(), row.begin(), row.end());
    }
  }
  return rows;
}

TEST_P(AttentionTest, RowsHaveTheSameBitsInEveryChunking) {
  const std::vector<int> lengths = {600, 45};
  for (const LawCase& law : kLawCases) {
    PagedCache cache(law.shape, lengths, 7);
    const Device one = With(1);
    cache.Write(one);
    const std::vector<std::byte> alone = RowsAlone(cache, one, lengths);
    ASSERT_FALSE(alone.empty());
    const size_t row_bytes = alone.size() / 645;
    for (const int num_threads : {1, 2, 3, 5}) {
      const Device device = With(num_threads);
      EXPECT_EQ(cache.Run(device, {{0, 0, 600}, {1, 0, 45}}), alone)
          << law.name << ", threads " << num_threads;
      for (const int chunk : {1, 7, 16, 100, 257}) {
        for (int begin = 0; begin < 600; begin += chunk) {
          if (chunk == 1 && begin % 149 != 0) continue;
          const int end = std::min(begin + chunk, 600);
          // Beside it: the other sequence's last rows.
          const auto got = cache.Run(device, {{1, 44 - chunk % 5, 45}, {0, begin, end}});
          const size_t skip = static_cast<size_t>(45 - (44 - chunk % 5)) * row_bytes;
          ASSERT_TRUE(
              std::equal(got.begin() + static_cast<ptrdiff_t>(skip), got.end(),
                         alone.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(begin) * row_bytes)))
              << law.name << ", threads " << num_threads << ", rows " << begin << " to " << end;
        }
      }
    }
  }
}

TEST_P(AttentionTest, RowsHaveTheSameBitsInEveryBlockSizeAndTable) {
  for (const LawCase& law : kLawCases) {
    std::vector<std::byte> first;
    for (const int block_size : {16, 32, 64}) {
      for (const int others : {1, 50, 300}) {  // the number of blocks changes the table
        AttentionShape shape = law.shape;
        shape.block_size = block_size;
        PagedCache cache(shape, {410, others}, 11);
        const Device device = With(2);
        cache.Write(device);
        const auto got = cache.Run(device, {{0, 390, 410}});
        ASSERT_FALSE(got.empty());
        if (first.empty()) first = got;
        EXPECT_EQ(got, first) << law.name << ", block size " << block_size << ", others " << others;
      }
    }
  }
}

TEST_P(AttentionTest, LongDecodeIsTheSameOverThreads) {
  const AttentionShape shape = {.num_heads = 8, .num_kv_heads = 2, .k_dim = 128, .v_dim = 128};
  PagedCache cache(shape, {5000, 900}, 13);
  const Device one = With(1);
  cache.Write(one);
  const auto alone = cache.Run(one, {{0, 4999, 5000}});
  for (const int num_threads : {2, 3, 5}) {
    EXPECT_EQ(cache.Run(With(num_threads), {{0, 4999, 5000}}), alone) << num_threads;
    auto both = cache.Run(With(num_threads), {{0, 4999, 5000}, {1, 880, 900}});
    both.resize(alone.size());
    EXPECT_EQ(both, alone) << num_threads;
  }
}

TEST_P(AttentionTest, LongLatentDecodeIsTheSameOverThreads) {
  const AttentionShape shape = {
      .num_heads = 128, .num_kv_heads = 1, .k_dim = 64, .v_dim = 48, .latent = true};
  PagedCache cache(shape, {3000}, 17);
  const Device one = With(1);
  cache.Write(one);
  const auto alone = cache.Run(one, {{0, 2999, 3000}});
  for (const int num_threads : {2, 3}) EXPECT_EQ(cache.Run(With(num_threads), {{0, 2999, 3000}}), alone);
}

// --- What a row does not see cannot reach it ---

TEST_P(AttentionTest, NothingLeaksFromUnseenPositions) {
  for (const LawCase& law : kLawCases) {
    const Device device = With(2);
    PagedCache cache(law.shape, {300, 20}, 19);
    cache.Write(device);
    const auto clean = cache.Run(device, {{0, 180, 240}});
    ASSERT_FALSE(clean.empty());
    // Later positions of the same sequence, and earlier ones behind the window, become NaN and infinite.
    const float bad[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                         -std::numeric_limits<float>::infinity()};
    const auto spoil = [&](int begin, int end) {
      for (int t = begin; t < end; ++t) {
        for (auto* x : {&cache.k(0), &cache.v(0)}) {
          const size_t width = x->size() / 300;
          for (size_t i = 0; i < width; ++i)
            (*x)[static_cast<size_t>(t) * width + i] = bad[static_cast<size_t>(t) % 3];
        }
      }
      cache.Write(device, 0, begin, end);
    };
    spoil(240, 300);
    EXPECT_EQ(cache.Run(device, {{0, 180, 240}}), clean) << law.name;
    if (law.shape.window == 37) {
      spoil(0, 180 - 36);
      EXPECT_EQ(cache.Run(device, {{0, 180, 240}}), clean) << law.name;
    }
    // A position in the middle: rows before it keep their bits, even in one chunk with those that see it.
    spoil(205, 206);
    auto part = cache.Run(device, {{0, 180, 240}});
    const size_t row_bytes = clean.size() / 60;
    EXPECT_TRUE(
        std::equal(clean.begin(), clean.begin() + static_cast<ptrdiff_t>(25 * row_bytes), part.begin()))
        << law.name;
    EXPECT_NE(part, clean) << law.name;
  }
}

TEST_P(AttentionTest, WriteKvStoresWhatTheLayoutSays) {
  for (const DType type : {DType::kBf16, DType::kF32}) {
    for (const bool latent : {false, true}) {
      const AttentionShape shape = {.num_heads = 2,
                                    .num_kv_heads = latent ? 1 : 2,
                                    .k_dim = 18,
                                    .v_dim = 15,
                                    .latent = latent,
                                    .block_size = 32,
                                    .type = type};
      const Device device = With(2);
      PagedCache cache(shape, {45}, 23);
      cache.Write(device);
      const KvLayerView& kv = cache.view();
      for (int t = 0; t < 45; ++t) {
        for (int h = 0; h < kv.num_kv_heads; ++h) {
          const int64_t element = type == DType::kF32 ? 4 : 2, offset = t % 32, token = offset % 16;
          const int64_t v_bytes = latent ? 0 : (element * 32 * 15 + 63) / 64 * 64;
          const std::byte* at = kv.base + cache.table(0)[static_cast<size_t>(t / 32)] * kv.block_stride +
                                h * (element * 32 * 18 + v_bytes);
          const auto value = [&](const std::byte* from, int64_t i) {
            if (type == DType::kF32) return reinterpret_cast<const float*>(from)[i];
            return ToFloat(reinterpret_cast<const Bf16*>(from)[i]);
          };
          for (int c = 0; c < 18; ++c) {
            const int64_t in_panel = type == DType::kF32 ? c * 16 + token : c / 2 * 32 + token * 2 + c % 2;
            EXPECT_EQ(value(at, offset / 16 * 18 * 16 + in_panel),
                      Rounded(cache.k(0)[static_cast<size_t>((t * kv.num_kv_heads + h) * 18 + c)], type));
          }
          for (int c = 0; !latent && c < 15; ++c) {
            const int64_t in_panel =
                type == DType::kF32 ? token * 15 + c : (token / 2 * 15 + c) * 2 + token % 2;
            EXPECT_EQ(value(at + element * 32 * 18, offset / 16 * 15 * 16 + in_panel),
                      Rounded(cache.v(0)[static_cast<size_t>((t * kv.num_kv_heads + h) * 15 + c)], type));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace cadre::kernels
