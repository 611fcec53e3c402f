// Every published-style folder whose architecture is known: what lies packed in memory equals the file.
#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "model/registry.h"
#include "model/test_support.h"

namespace cadre::model {
namespace {

std::string GoldenFolder() {
  const char* set = std::getenv("CADRE_GOLDEN");
  return (set && *set ? std::string(set) : CADRE_SOURCE_DIR "/../shared/golden") + "/models";
}

class GoldenModel : public testing::TestWithParam<std::string> {};

std::vector<std::string> Folders() {
  std::vector<std::string> names;
  if (std::filesystem::is_directory(GoldenFolder())) {
    for (const auto& entry : std::filesystem::directory_iterator(GoldenFolder())) {
      if (entry.is_directory()) names.push_back(entry.path().filename().string());
    }
  }
  std::sort(names.begin(), names.end());
  if (names.empty()) names.push_back("none");
  return names;
}

TEST_P(GoldenModel, PackedWeightsEqualTheFile) {
  const std::string folder = GoldenFolder() + "/" + GetParam();
  if (GetParam() == "none") GTEST_SKIP() << "no golden models in " << GoldenFolder() << " (set CADRE_GOLDEN)";
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

INSTANTIATE_TEST_SUITE_P(Models, GoldenModel, testing::ValuesIn(Folders()), [](const auto& param) {
  std::string name = param.param;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
});

}  // namespace
}  // namespace cadre::model
