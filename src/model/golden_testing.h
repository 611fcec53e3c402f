#pragma once
// For golden tests: the folders under CADRE_GOLDEN/models and the numbers that the reference library computed
// for them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/format.h"
#include "checkpoint/safetensors.h"

namespace cadre::model::test {

inline std::string GoldenModelsFolder() {
  const char* set = std::getenv("CADRE_GOLDEN");
  return (set && *set ? std::string(set) : CADRE_SOURCE_DIR "/../shared/golden") + "/models";
}

/// Names of all model folders; "none" if there are none, so that the test can say that it was skipped.
inline std::vector<std::string> GoldenModelNames() {
  std::vector<std::string> names;
  if (std::filesystem::is_directory(GoldenModelsFolder())) {
    for (const auto& entry : std::filesystem::directory_iterator(GoldenModelsFolder())) {
      if (entry.is_directory()) names.push_back(entry.path().filename().string());
    }
  }
  std::sort(names.begin(), names.end());
  if (names.empty()) names.push_back("none");
  return names;
}

inline std::string TestName(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
}

/// One prompt's numbers.
struct GoldenCase {
  std::vector<int32_t> prompt, greedy;
  std::vector<float> logits;               ///< [prompt, vocab]
  std::vector<float> margin;               ///< [greedy]
  std::vector<std::vector<float>> hidden;  ///< [layers + 1][prompt * hidden], of one prompt only
};

/// The arrays of a golden.safetensors file.
class GoldenFile {
 public:
  explicit GoldenFile(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    uint64_t header_bytes = 0;
    if (bytes_.size() < 8) return;
    std::memcpy(&header_bytes, bytes_.data(), 8);
    auto tensors = checkpoint::ParseSafetensorsHeader(std::string_view(bytes_).substr(8, header_bytes),
                                                      static_cast<int64_t>(bytes_.size()), path);
    EXPECT_TRUE(tensors.has_value()) << tensors.error().message;
    if (tensors) tensors_ = std::move(*tensors);
  }

  /// Empty if there is no such array.
  template <typename T>
  std::vector<T> Read(const std::string& name) const {
    const auto found = std::ranges::find(tensors_, name, &checkpoint::TensorInfo::name);
    if (found == tensors_.end()) return {};
    std::vector<T> values(static_cast<size_t>(found->num_bytes) / sizeof(T));
    std::memcpy(values.data(), bytes_.data() + found->offset, static_cast<size_t>(found->num_bytes));
    return values;
  }

  GoldenCase Case(int index) const {
    const std::string suffix = Format("_{}", index);
    GoldenCase golden{.prompt = Read<int32_t>("prompt" + suffix),
                      .greedy = Read<int32_t>("greedy" + suffix),
                      .logits = Read<float>("logits" + suffix),
                      .margin = Read<float>("margin" + suffix)};
    for (int layer = 0;; ++layer) {
      auto hidden = Read<float>(Format("hidden{}_{}", suffix, layer));
      if (hidden.empty()) return golden;
      golden.hidden.push_back(std::move(hidden));
    }
  }

 private:
  std::string bytes_;
  std::vector<checkpoint::TensorInfo> tensors_;
};

}  // namespace cadre::model::test
