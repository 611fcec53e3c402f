#include "kernels/grouped_gemm.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/gemm_testing.h"
#include "kernels/ref/gemm_reference.h"

namespace cadre::kernels {
namespace {

using testing::RandomFloats;
using testing::Rows;
using testing::Weight;

struct Case {
  PackFormat format;
  int64_t hidden, inter;
  bool bias;
  Activation activation;
};

// A bank of experts and a pool of rows, from which layers are put together.
class Bank {
 public:
  static constexpr int64_t kExperts = 9, kRows = 300;

  Bank(Isa isa, const Case& c)
      : isa_(isa),
        case_(c),
        act_type_(RowTypeOf(c.format)),
        rows_(act_type_, kRows, c.hidden, c.hidden + 1, 1, RandomFloats(kRows * c.hidden, 1)) {
    const int64_t padded = RoundUp(c.inter, kPanelRows) * 2;
    for (uint64_t e = 0; e < kExperts; ++e) {
      std::vector<float> gate_up =
          RandomFloats(padded * c.hidden, 10 + e, 2 / std::sqrt(static_cast<float>(c.hidden)));
      for (int64_t i = c.inter; i < padded / 2; ++i) {  // the rows that pad
        const int64_t gate = i / 16 * 32 + i % 16;
        std::fill_n(gate_up.begin() + gate * c.hidden, c.hidden, 0.0f);
        std::fill_n(gate_up.begin() + (gate + 16) * c.hidden, c.hidden, 0.0f);
      }
      weights_.push_back(std::make_unique<Weight>(c.format, padded, c.hidden, gate_up));
      weights_.push_back(
          std::make_unique<Weight>(c.format, c.hidden, c.inter, RandomFloats(c.hidden * c.inter, 50 + e)));
      biases_.push_back(RandomFloats(padded, 100 + e, 3));
      biases_.push_back(RandomFloats(c.hidden, 150 + e));
    }
    for (size_t e = 0; e < kExperts; ++e) {
      experts_.push_back({.gate_up = weights_[2 * e]->matrix(),
                          .down = weights_[2 * e + 1]->matrix(),
                          .gate_up_bias = c.bias ? biases_[2 * e].data() : nullptr,
                          .down_bias = c.bias ? biases_[2 * e + 1].data() : nullptr});
    }
  }

  struct Item {
    size_t expert;
    int64_t row;
    float weight;
  };

  // Runs the items (sorted by expert) in one call, with 0 threads on the caller alone; returns
  // [items][hidden].
  std::vector<std::vector<float>> Run(const std::vector<Item>& items, int threads, bool weighted,
                                      bool reference = false) {
    std::vector<int32_t> offsets(kExperts + 1, 0);
    std::vector<const void*> rows;
    std::vector<float> weights;
    for (const Item& item : items) {
      for (size_t e = item.expert + 1; e <= kExperts; ++e) ++offsets[e];
      rows.push_back(rows_.Row(item.row));
      weights.push_back(item.weight);
    }
    const auto count = static_cast<int64_t>(items.size()), stride = case_.hidden + 2;
    std::vector<std::byte> inter(static_cast<size_t>(count * RoundUp(case_.inter, 2) * DTypeBytes(act_type_)),
                                 std::byte{0xFF});
    std::vector<float> out(static_cast<size_t>(count * stride), -777.0f);
    const ExpertsArgs args{.hidden = case_.hidden,
                           .inter = case_.inter,
                           .act_type = act_type_,
                           .experts = experts_,
                           .offsets = offsets.data(),
                           .rows = rows.data(),
                           .row_weights = weighted ? weights.data() : nullptr,
                           .activation = case_.activation,
                           .swiglu_alpha = 1.5f,
                           .swiglu_limit = 1.25f,
                           .inter_rows = inter.data(),
                           .out = out.data(),
                           .out_stride = stride};
    if (reference) {
      RunExpertsReference(args);
    } else {
      sys::ThreadPool pool({.num_threads = std::max(threads, 1), .cpus = {}, .spin = false});
      RunExperts({isa_, threads == 0 ? nullptr : &pool}, args);
    }
    std::vector<std::vector<float>> results;
    for (int64_t r = 0; r < count; ++r) {
      const auto begin = out.begin() + r * stride;
      results.emplace_back(begin, begin + case_.hidden);
      EXPECT_EQ(begin[case_.hidden], -777.0f);
      EXPECT_EQ(begin[case_.hidden + 1], -777.0f);
    }
    return results;
  }

 private:
  Isa isa_;
  Case case_;
  DType act_type_;
  Rows rows_;
  std::vector<std::unique_ptr<Weight>> weights_;
  std::vector<std::vector<float>> biases_;
  std::vector<ExpertWeights> experts_;
};

using Item = Bank::Item;

// Item i of an expert takes row (i * 37 + expert) mod kRows, so the rows are scattered and shared between
// experts.
std::vector<Item> Group(const std::vector<int64_t>& counts) {
  std::vector<Item> items;
  for (size_t e = 0; e < counts.size(); ++e) {
    for (int64_t i = 0; i < counts[e]; ++i) {
      items.push_back(
          {e, (i * 37 + static_cast<int64_t>(e)) % Bank::kRows, 0.25f + static_cast<float>(i % 5)});
    }
  }
  return items;
}

const std::vector<std::vector<int64_t>> kGroupings = {
    {0, 0, 0, 0, 0, 0, 0, 0, 0},     {1, 0, 0, 0, 0, 0, 0, 0, 0},     {0, 1, 1, 0, 1, 1, 0, 0, 1},
    {2, 3, 4, 5, 6, 7, 8, 0, 1},     {12, 13, 0, 25, 1, 33, 0, 0, 2}, {0, 0, 0, 0, 299, 0, 0, 0, 0},
    {1, 40, 0, 3, 130, 1, 7, 16, 12}};

const Case kCases[] = {{PackFormat::kBf16, 64, 48, false, Activation::kSilu},
                       {PackFormat::kBf16, 77, 35, true, Activation::kSilu},
                       {PackFormat::kBf16, 130, 16, true, Activation::kClampedSwiglu},
                       {PackFormat::kF32, 64, 48, true, Activation::kClampedSwiglu},
                       {PackFormat::kF32, 77, 35, false, Activation::kSilu},
                       {PackFormat::kF32, 16, 1, true, Activation::kSilu},
                       {PackFormat::kFp8, 64, 48, false, Activation::kSilu},
                       {PackFormat::kFp8, 77, 35, true, Activation::kClampedSwiglu},
                       {PackFormat::kFp8F32, 77, 35, true, Activation::kSilu}};

class RunExpertsTest : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Isa, RunExpertsTest, ::testing::ValuesIn(testing::kEveryIsa), testing::IsaTestName);

TEST_P(RunExpertsTest, AgreesWithTheReference) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  for (const Case& c : kCases) {
    Bank bank(GetParam(), c);
    for (const bool weighted : {false, true}) {
      const std::vector<Item> items = Group({2, 1, 0, 13, 1, 0, 5, 0, 3});
      const auto got = bank.Run(items, 2, weighted), wanted = bank.Run(items, 1, weighted, true);
      // A bf16 intermediate may be rounded to its neighbour, 2^-8 of it, in a sum of `inter` terms below
      // about 4.
      const float tolerance = (RowTypeOf(c.format) == DType::kBf16 ? 0x1p-8f : 0x1p-20f) * 4 * 5;
      double error = 0, size = 0;
      for (size_t r = 0; r < items.size(); ++r) {
        for (size_t i = 0; i < got[r].size(); ++i) {
          ASSERT_NEAR(got[r][i], wanted[r][i], tolerance) << c.hidden << ' ' << r << ' ' << i;
          error += std::pow(got[r][i] - wanted[r][i], 2);
          size += std::pow(wanted[r][i], 2);
        }
      }
      EXPECT_LT(std::sqrt(error / size), RowTypeOf(c.format) == DType::kBf16 ? 1e-3 : 1e-6);
    }
  }
}

TEST_P(RunExpertsTest, ARowsResultIsTheSameInAnyGroupingOnAnyThreads) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  for (const Case& c : kCases) {
    Bank bank(GetParam(), c);
    for (const auto& counts : kGroupings) {
      const std::vector<Item> items = Group(counts);
      const auto first = bank.Run(items, 1, true);
      for (const int threads : {0, 2, 3, 5}) ASSERT_EQ(bank.Run(items, threads, true), first) << threads;
      for (size_t i = 0; i<items.size(); i += items.size()> 40 ? 11 : 1) {
        ASSERT_EQ(bank.Run({items[i]}, 1, true)[0], first[i]) << "item " << i << " of " << items.size();
      }
    }
  }
}

TEST_P(RunExpertsTest, WithoutWeightsIsAWeightOfOne) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  Bank bank(GetParam(), kCases[1]);
  std::vector<Item> items = Group({3, 0, 1, 20});
  for (Item& item : items) item.weight = 1;
  EXPECT_EQ(bank.Run(items, 2, true), bank.Run(items, 2, false));
}

// Identity matrices make a layer of nothing but its activation: out = f(gate = row, up = up_bias).
std::vector<float> ActivationOf(Isa isa, Activation activation, const std::vector<float>& x, float up) {
  constexpr int64_t kDim = 16;
  std::vector<float> gate_up(2 * kDim * kDim, 0.0f), down(kDim * kDim, 0.0f), bias(2 * kDim, 0.0f);
  for (size_t i = 0; i < kDim; ++i) {
    gate_up[i * kDim + i] = down[i * kDim + i] = 1;
    bias[kDim + i] = up;
  }
  const Weight gate_up_weight(PackFormat::kF32, 2 * kDim, kDim, gate_up),
      down_weight(PackFormat::kF32, kDim, kDim, down);
  const ExpertWeights expert{
      .gate_up = gate_up_weight.matrix(), .down = down_weight.matrix(), .gate_up_bias = bias.data()};
  const auto count = static_cast<int64_t>(x.size()) / kDim;
  std::vector<const void*> rows;
  for (int64_t r = 0; r < count; ++r) rows.push_back(x.data() + r * kDim);
  const std::vector<int32_t> offsets = {0, static_cast<int32_t>(count)};
  std::vector<float> inter(x.size()), out(x.size());
  sys::ThreadPool pool({.num_threads = 1, .cpus = {}, .spin = false});
  RunExperts({isa, &pool}, {.hidden = kDim,
                            .inter = kDim,
                            .act_type = DType::kF32,
                            .experts = {&expert, 1},
                            .offsets = offsets.data(),
                            .rows = rows.data(),
                            .activation = activation,
                            .swiglu_alpha = 1.702f,
                            .swiglu_limit = 7.0f,
                            .inter_rows = inter.data(),
                            .out = out.data(),
                            .out_stride = kDim});
  return out;
}

TEST_P(RunExpertsTest, ActivationsAreExactToAFewUlpOverTheirRange) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  std::vector<float> x;
  for (int i = -16000; i < 16000; ++i) x.push_back(static_cast<float>(i) * 0.0078125f);  // -125 to 125
  const std::vector<float> silu = ActivationOf(GetParam(), Activation::kSilu, x, 1.0f);
  const std::vector<float> clamped = ActivationOf(GetParam(), Activation::kClampedSwiglu, x, -9.0f);
  for (size_t i = 0; i < x.size(); ++i) {
    const double value = x[i], wanted = value / (1 + std::exp(-value));
    ASSERT_NEAR(silu[i], wanted, 6e-7 * std::fabs(wanted) + 1e-35) << x[i];
    const double gate = std::min(value, 7.0),
                 clamped_wanted = gate / (1 + std::exp(-1.702f * gate)) * (-7.0 + 1);
    ASSERT_NEAR(clamped[i], clamped_wanted, 6e-6 * std::fabs(clamped_wanted) + 1e-34) << x[i];
  }
}

TEST_P(RunExpertsTest, NanAndInfinityPassTheActivation) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  std::vector<float> x(32, 0.5f);
  x[0] = NAN;  // the row of identity products around it is NaN too, the other row is not
  const std::vector<float> nan = ActivationOf(GetParam(), Activation::kSilu, x, 1.0f);
  EXPECT_TRUE(std::isnan(nan[0]));
  EXPECT_FLOAT_EQ(nan[16], static_cast<float>(0.5 / (1 + std::exp(-0.5))));
}

TEST_P(RunExpertsTest, LongRunsOfSmallLayersKeepTheirOrder) {
  // Many calls in a row on threads that outnumber the CPUs: a down task that began too early would read NaN.
  SKIP_UNLESS_SUPPORTED(GetParam());
  Bank bank(GetParam(), {PackFormat::kBf16, 256, 128, false, Activation::kSilu});
  const std::vector<Item> items = Group({4, 4, 4, 4, 4, 4, 4, 4, 4});
  const auto wanted = bank.Run(items, 1, true);
  for (int round = 0; round < 50; ++round) ASSERT_EQ(bank.Run(items, 2 + round % 5, true), wanted) << round;
}

}  // namespace
}  // namespace cadre::kernels
