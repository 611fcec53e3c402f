#include "nn/rope.h"

#include <gtest/gtest.h>

#include "model/registry.h"
#include "model/tiny.h"

namespace cadre::model {
namespace {

// Wanted numbers: the functions of transformers 5.23, run in float32.
void ExpectSteps(const RopeSpec& rope, const std::vector<double>& wanted) {
  const std::vector<float> found = nn::RopeInverseFrequencies(rope);
  ASSERT_EQ(found.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(found[i] / wanted[i], 1.0, 1e-6) << i;
}

// Reads rope settings the way a model does.
RopeSpec Read(int head_dim, int max_position, Json scaling, double theta) {
  TinyOptions options{.family = "llama", .head_dim = head_dim, .extra = Json::Object()};
  options.extra.Set("rope_theta", theta);
  options.extra.Set("rope_scaling", std::move(scaling));
  options.extra.Set("max_position_embeddings", max_position);
  const auto spec = ReadModelSpec(MakeTinyConfig(options), Json());
  EXPECT_TRUE(spec.has_value()) << spec.error().message;
  return spec ? spec->attention.rope : RopeSpec{};
}

TEST(Rope, PlainStepsAreAGeometricRow) {
  const RopeSpec rope = Read(8, 512, Json(), 10000.0);
  ExpectSteps(rope, {1, 0.1, 0.01, 0.001});
  EXPECT_EQ(rope.attention_factor, 1.0);
}

TEST(Rope, Linear) {
  const RopeSpec rope = Read(8, 512, Json::Object{{"type", "linear"}, {"factor", 4}}, 10000.0);
  ExpectSteps(rope, {0.25, 0.0250000004, 0.00249999994, 0.000250000012});
}

TEST(Rope, Llama3) {
  const RopeSpec rope = Read(16, 512,
                             Json::Object{{"rope_type", "llama3"},
                                          {"factor", 8.0},
                                          {"low_freq_factor", 1.0},
                                          {"high_freq_factor", 4.0},
                                          {"original_max_position_embeddings", 64}},
                             500000.0);
  ExpectSteps(rope, {1, 0.079403013, 0.00470075384, 0.000911583134, 0.000176776681, 3.42810235e-05,
                     6.64787058e-06, 1.28917316e-06});
}

TEST(Rope, YarnWithWholeBorders) {
  const RopeSpec rope =
      Read(16, 512,
           Json::Object{{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 1024}},
           150000.0);
  ExpectSteps(rope, {1, 0.225418001, 0.0381099582, 0.00572711322, 0.000645497232, 0.000145506696,
                     3.27998277e-05, 7.39367169e-06});
  EXPECT_NEAR(rope.attention_factor, 1.13862944, 1e-7);
}

TEST(Rope, YarnWithFractionalBorders) {
  const RopeSpec rope = Read(16, 512,
                             Json::Object{{"rope_type", "yarn"},
                                          {"factor", 4.0},
                                          {"beta_fast", 32.0},
                                          {"beta_slow", 1.0},
                                          {"truncate", false},
                                          {"original_max_position_embeddings", 64}},
                             150000.0);
  ExpectSteps(rope, {1, 0.116900139, 0.01270332, 0.00286355661, 0.000645497232, 0.000145506696,
                     3.27998277e-05, 7.39367169e-06});
}

TEST(Rope, YarnWithMscale) {
  const RopeSpec rope = Read(64, 163840,
                             Json::Object{{"type", "yarn"},
                                          {"factor", 40.0},
                                          {"beta_fast", 32},
                                          {"beta_slow", 1},
                                          {"mscale", 0.707},
                                          {"mscale_all_dim", 1.0},
                                          {"original_max_position_embeddings", 4096}},
                             10000.0);
  EXPECT_NEAR(rope.attention_factor, 0.921042355, 1e-8);
  ExpectSteps(rope, {1,
                     0.749894202,
                     0.562341332,
                     0.421696514,
                     0.316227764,
                     0.237137392,
                     0.177827939,
                     0.133352146,
                     0.100000001,
                     0.0749894157,
                     0.0562341288,
                     0.0390069261,
                     0.0268793609,
                     0.0183781441,
                     0.012447956,
                     0.0083345091,
                     0.00550000044,
                     0.00356199732,
                     0.00224936521,
                     0.00137051346,
                     0.000790569407,
                     0.000414990413,
                     0.00017782794,
                     3.3338034e-05,
                     2.49999994e-05,
                     1.87473543e-05,
                     1.40585325e-05,
                     1.05424142e-05,
                     7.90569447e-06,
                     5.92843435e-06,
                     4.44569832e-06,
                     3.33380353e-06});
}

TEST(Rope, YarnFactorAndLengthHaveDefaults) {
  const RopeSpec rope =
      Read(16, 512, Json::Object{{"rope_type", "yarn"}, {"original_max_position_embeddings", 64}}, 10000.0);
  EXPECT_EQ(rope.factor, 8.0);
  EXPECT_EQ(rope.beta_fast, 32.0);
  EXPECT_EQ(rope.beta_slow, 1.0);
  EXPECT_TRUE(rope.truncate);
}

}  // namespace
}  // namespace cadre::model
