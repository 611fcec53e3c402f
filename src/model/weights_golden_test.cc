// Every published-style folder whose architecture is known: what lies packed in memory equals the file.
#include "model/golden_testing.h"
#include "model/registry.h"
#include "model/weights_testing.h"

namespace cadre::model {
namespace {

class GoldenModel : public testing::TestWithParam<std::string> {};

TEST_P(GoldenModel, PackedWeightsEqualTheFile) {
  const std::string folder = test::GoldenModelsFolder() + "/" + GetParam();
  if (GetParam() == "none")
    GTEST_SKIP() << "no golden models in " << test::GoldenModelsFolder() << " (set CADRE_GOLDEN)";
  const auto files = checkpoint::ReadModelFiles(folder);
  ASSERT_TRUE(files.has_value()) << files.error().message;
  if (!FindFamily(files->config)) {
    const auto refused = ReadModelSpec(files->config, files->generation_config);
    ASSERT_FALSE(refused.has_value());
    GTEST_SKIP() << GetParam() << ": " << refused.error().message;
  }
  const auto spec = ReadModelSpec(files->config, files->generation_config);
  ASSERT_TRUE(spec.has_value()) << spec.error().message;
  sys::ThreadPool pool({.num_threads = 2, .cpus = {}, .spin = false});
  for (const DType type : {DType::kBf16, DType::kF32}) {
    for (const auto& [tp, dp] : {std::pair(1, 1), {2, 1}, {1, 3}, {2, 2}, {4, 1}}) {
      const bool heads_fit = spec->attention.num_heads % tp == 0 && (spec->attention.num_kv_heads % tp == 0 ||
                                                                     tp % spec->attention.num_kv_heads == 0);
      if (!heads_fit) continue;
      for (const bool ep : {false, true}) test::CheckAllRanks(folder, tp, dp, ep, type, pool);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenModel, testing::ValuesIn(test::GoldenModelNames()), test::TestName);

}  // namespace
}  // namespace cadre::model
