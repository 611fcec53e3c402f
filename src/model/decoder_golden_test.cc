// The whole forward pass of every family against numbers that the reference library computed in f32.
#include <cmath>
#include <cstdio>
#include <numeric>

#include "a2a/a2a.h"
#include "checkpoint/hf_config.h"
#include "eplb/placement.h"
#include "kernels/every_isa_test.h"
#include "model/decoder.h"
#include "model/decoder_testing.h"
#include "model/fp8_testing.h"
#include "model/golden_testing.h"
#include "model/loader.h"
#include "model/registry.h"

namespace cadre::model {
namespace {

using test::kBlockSize;
using test::kNumBlocks;
using test::Rig;

struct Difference {
  double max = 0, mean = 0;  // in standard deviations of the wanted values
};

Difference Compare(std::span<const float> got, std::span<const float> wanted) {
  EXPECT_EQ(got.size(), wanted.size());
  double mean = 0, square = 0;
  for (const float w : wanted) mean += w;
  mean /= static_cast<double>(wanted.size());
  for (const float w : wanted) square += (w - mean) * (w - mean);
  const double deviation = std::sqrt(square / static_cast<double>(wanted.size()));
  Difference difference;
  for (size_t i = 0; i < std::min(got.size(), wanted.size()); ++i) {
    const double d = std::abs(static_cast<double>(got[i]) - wanted[i]) / deviation;
    difference.max = std::isnan(d) ? d : std::max(difference.max, d);
    difference.mean += d / static_cast<double>(wanted.size());
  }
  return difference;
}

int32_t ArgMax(std::span<const float> logits) {
  return static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
}

double Deviation(std::span<const float> x) {
  double sum = 0, square = 0;
  for (const float v : x) sum += v, square += static_cast<double>(v) * v;
  const double mean = sum / static_cast<double>(x.size());
  return std::sqrt(square / static_cast<double>(x.size()) - mean * mean);
}

class GoldenDecoder : public testing::TestWithParam<std::string> {
 protected:
  // Skips what is not there or not known; else the folder.
  std::string Folder() const { return test::GoldenModelsFolder() + "/" + GetParam(); }
  bool Known() const {
    const auto files = checkpoint::ReadModelFiles(Folder());
    return files.has_value() && FindFamily(files->config) != nullptr;
  }
};

#define SKIP_UNLESS_KNOWN()                                                                       \
  if (GetParam() == "none") GTEST_SKIP() << "no golden models in " << test::GoldenModelsFolder(); \
  if (!Known()) GTEST_SKIP() << GetParam() << ": its architecture is not built yet"

TEST_P(GoldenDecoder, F32MatchesLogitsHiddenStatesAndGreedyTokens) {
  SKIP_UNLESS_KNOWN();
  const test::GoldenFile golden(Folder() + "/golden.safetensors");
  for (const kernels::Isa isa : kernels::SupportedIsas()) {
    SCOPED_TRACE(kernels::IsaName(isa));
    Rig rig(Folder(), DType::kF32, isa, 2);
    for (int index = 0; index < 3; ++index) {
      SCOPED_TRACE(index);
      const test::GoldenCase wanted = golden.Case(index);
      ASSERT_FALSE(wanted.prompt.empty());
      const auto layers = static_cast<size_t>(rig.spec().num_layers());
      std::vector<std::vector<float>> hidden(layers);
      rig.decoder().on_residual = [&](int32_t layer, const float* x) {
        if (static_cast<size_t>(layer) >= layers) return;
        hidden[static_cast<size_t>(layer)].assign(
            x, x + wanted.prompt.size() * static_cast<size_t>(rig.spec().hidden));
      };
      std::vector<float> logits = rig.Run(wanted.prompt, 0);
      rig.decoder().on_residual = {};
      EXPECT_LT(Compare(logits, wanted.logits).max, 1e-4);
      for (size_t layer = 0; layer < std::min(layers, wanted.hidden.size()); ++layer) {
        EXPECT_LT(Compare(hidden[layer], wanted.hidden[layer]).max, 1e-4) << "layer " << layer;
      }
      const auto vocab = static_cast<size_t>(rig.spec().vocab_size);
      auto position = static_cast<int32_t>(wanted.prompt.size());
      for (const int32_t token : wanted.greedy) {
        ASSERT_EQ(ArgMax(std::span(logits).last(vocab)), token) << "position " << position;
        logits = rig.Run({&token, 1}, position++);
      }
    }
  }
}

// Mean difference of each row's logits, sorted.
std::vector<double> RowDifferences(std::span<const float> got, std::span<const float> wanted, size_t vocab) {
  std::vector<double> rows;
  for (size_t begin = 0; begin < wanted.size(); begin += vocab) {
    rows.push_back(Compare(got.subspan(begin, vocab), wanted.subspan(begin, vocab)).mean);
  }
  std::ranges::sort(rows);
  return rows;
}

// Where two experts' scores are nearer than bf16 noise, a row may take the other expert and be off as a
// whole. So the median row must be near, all rows together fairly near, and a token may differ where its
// margin is small.
TEST_P(GoldenDecoder, Bf16StaysNear) {
  SKIP_UNLESS_KNOWN();
  constexpr double kNear = 0.03;     // of the logits' standard deviation
  constexpr double kFlipped = 0.15;  // what a flipped expert was seen to do to a margin
  const test::GoldenFile golden(Folder() + "/golden.safetensors");
  for (const kernels::Isa isa : kernels::IsasForProducts()) {
    SCOPED_TRACE(kernels::IsaName(isa));
    Rig rig(Folder(), DType::kBf16, isa, 2);
    int num_flipped = 0;
    for (int index = 0; index < 3; ++index) {
      SCOPED_TRACE(index);
      const test::GoldenCase wanted = golden.Case(index);
      const auto vocab = static_cast<size_t>(rig.spec().vocab_size);
      std::vector<float> logits = rig.Run(wanted.prompt, 0);
      const std::vector<double> rows = RowDifferences(logits, wanted.logits, vocab);
      EXPECT_LT(rows[rows.size() / 2], kNear);
      EXPECT_LT(std::accumulate(rows.begin(), rows.end(), 0.0) / static_cast<double>(rows.size()), 2 * kNear);
      const double deviation = Deviation(wanted.logits);
      auto position = static_cast<int32_t>(wanted.prompt.size());
      for (size_t i = 0; i < wanted.greedy.size(); ++i) {
        if (ArgMax(std::span(logits).last(vocab)) != wanted.greedy[i]) {
          EXPECT_LT(wanted.margin[i], kFlipped * deviation) << "position " << position;
          num_flipped += wanted.margin[i] >= kNear * deviation;
          break;  // from here on the sequences are not comparable
        }
        logits = rig.Run({&wanted.greedy[i], 1}, position++);
      }
    }
    EXPECT_LE(num_flipped, rig.spec().moe.num_experts > 0 ? 2 : 0);
  }
}

// The prompt in any chunks gives the same bits: what chunked prefill, prefix hits and recomputation rest on.
TEST_P(GoldenDecoder, ChunksDoNotChangeABit) {
  SKIP_UNLESS_KNOWN();
  const test::GoldenCase golden = test::GoldenFile(Folder() + "/golden.safetensors").Case(2);
  for (const DType type : {DType::kBf16, DType::kF32}) {
    for (const kernels::Isa isa : kernels::IsasForProducts()) {
      SCOPED_TRACE(Format("{} {}", DTypeName(type), kernels::IsaName(isa)));
      Rig whole(Folder(), type, isa, 1);
      const std::vector<float> wanted = whole.Run(golden.prompt, 0);
      for (const int32_t chunk : {1, 7, 64}) {
        Rig rig(Folder(), type, isa, 3);
        std::vector<float> got;
        for (size_t begin = 0; begin < golden.prompt.size(); begin += static_cast<size_t>(chunk)) {
          const size_t count = std::min(static_cast<size_t>(chunk), golden.prompt.size() - begin);
          const auto part =
              rig.Run(std::span(golden.prompt).subspan(begin, count), static_cast<int32_t>(begin));
          got.insert(got.end(), part.begin(), part.end());
        }
        ASSERT_EQ(got.size(), wanted.size());
        EXPECT_EQ(std::memcmp(got.data(), wanted.data(), wanted.size() * sizeof(float)), 0)
            << "chunk " << chunk;
      }
    }
  }
}

// What quantising costs, against the f32 numbers. The golden models are random, which is the hard case: their
// logits are as near to each other as noise, and no layer forgives another's error.
TEST_P(GoldenDecoder, Fp8StaysWithinItsBound) {
  SKIP_UNLESS_KNOWN();
  // Of the logits' standard deviation, for the median row's mean difference. Where groups of experts are
  // chosen first, most rows of a random model meet a choice that 8 bits turn over.
  constexpr double kNear = 0.12, kGrouped = 0.3;
  const test::GoldenFile golden(Folder() + "/golden.safetensors");
  for (const DType type : {DType::kF32, DType::kBf16}) {
    for (const kernels::Isa isa : kernels::IsasForProducts()) {
      SCOPED_TRACE(Format("{} {}", DTypeName(type), kernels::IsaName(isa)));
      Rig rig(Folder(), type, isa, 2, true);
      std::vector<double> all;
      for (int index = 0; index < 3; ++index) {
        const test::GoldenCase wanted = golden.Case(index);
        const auto vocab = static_cast<size_t>(rig.spec().vocab_size);
        const std::vector<double> rows = RowDifferences(rig.Run(wanted.prompt, 0), wanted.logits, vocab);
        all.insert(all.end(), rows.begin(), rows.end());
      }
      std::ranges::sort(all);
      const double bound = rig.spec().moe.num_groups > 1 ? kGrouped : kNear;
      EXPECT_LT(all[all.size() / 2], bound);
      EXPECT_LT(std::accumulate(all.begin(), all.end(), 0.0) / static_cast<double>(all.size()), 2 * bound);
      EXPECT_GT(all[all.size() / 2], 0.002) << "this is not 8 bits";
      std::printf("%s %s %s: median row %.4f, mean %.4f of the logits' standard deviation\n",
                  GetParam().c_str(), DTypeName(type), kernels::IsaName(isa), all[all.size() / 2],
                  std::accumulate(all.begin(), all.end(), 0.0) / static_cast<double>(all.size()));
    }
  }
}

// Published fp8 is nothing but its numbers: in f32 arithmetic the logits are those of a checkpoint of these
// numbers.
TEST_P(GoldenDecoder, PublishedFp8EqualsItsNumbers) {
  SKIP_UNLESS_KNOWN();
  const test::GoldenCase golden = test::GoldenFile(Folder() + "/golden.safetensors").Case(1);
  for (const test::Fp8Layout& layout : test::Fp8Layouts()) {
    SCOPED_TRACE(layout.name);
    test::TempFolder fp8, plain;
    test::PublishFp8(Folder(), layout, fp8.path(), plain.path());
    Rig numbers(plain.path(), DType::kF32, kernels::BestIsa(), 2);
    const std::vector<float> wanted = numbers.Run(golden.prompt, 0);
    for (const kernels::Isa isa : {kernels::BestIsa(), kernels::Isa::kPortable}) {
      Rig rig(fp8.path(), DType::kF32, isa, 2, true);
      EXPECT_LT(Compare(rig.Run(golden.prompt, 0), wanted).max, 1e-4) << kernels::IsaName(isa);
    }
    // With bf16 rows: bf16's own noise, no more.
    Rig rig(fp8.path(), DType::kBf16, kernels::BestIsa(), 2, true);
    const auto rows =
        RowDifferences(rig.Run(golden.prompt, 0), wanted, static_cast<size_t>(rig.spec().vocab_size));
    EXPECT_LT(rows[rows.size() / 2], 0.03);
  }
}

// A trained model that lies in the tree: logits and greedy tokens beside those of f32.
TEST(DemoModel, Fp8StaysNear) {
  const std::string folder = CADRE_SOURCE_DIR "/models/demo";
  Rig plain(folder, DType::kF32, kernels::BestIsa(), 2);
  Rig fp8(folder, DType::kBf16, kernels::BestIsa(), 2, true);
  const auto vocab = static_cast<size_t>(plain.spec().vocab_size);
  std::vector<int32_t> tokens = {1};
  for (int32_t i = 0; i < 160; ++i) {  // what the model itself says after its first token
    const std::vector<float> logits =
        plain.Run(std::span(tokens).last(1), static_cast<int32_t>(tokens.size()) - 1);
    tokens.push_back(static_cast<int32_t>(ArgMax(std::span(logits).last(vocab))));
  }
  const std::vector<float> wanted = plain.Run(tokens, 0), got = fp8.Run(tokens, 0);
  const std::vector<double> rows = RowDifferences(got, wanted, vocab);
  size_t num_same = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    num_same += ArgMax(std::span(got).subspan(i * vocab, vocab)) ==
                ArgMax(std::span(wanted).subspan(i * vocab, vocab));
  }
  std::printf("demo: median row %.4f of the logits' standard deviation, %zu of %zu best tokens the same\n",
              rows[rows.size() / 2], num_same, tokens.size());
  EXPECT_LT(rows[rows.size() / 2], 0.12);
  EXPECT_GT(num_same * 10, tokens.size() * 9);
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenDecoder, testing::ValuesIn(test::GoldenModelNames()), test::TestName);

}  // namespace
}  // namespace cadre::model
