#pragma once
// For tests: adapters as PEFT writes them, and checkpoints that they are merged into, by lines of their own.
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/source.h"

namespace cadre::model::test {

/// f32 tensors by name, as one safetensors file.
struct Tensors {
  struct One {
    std::vector<int64_t> shape;
    std::vector<float> values;
  };
  std::map<std::string, One> all;

  /// Of a checkpoint in f32.
  static Tensors Read(const std::string& folder) {
    Tensors tensors;
    const auto source = *checkpoint::OpenCheckpoint(folder);
    for (const checkpoint::TensorInfo& info : source->tensors()) {
      One one{info.shape, std::vector<float>(static_cast<size_t>(info.num_bytes / 4))};
      EXPECT_EQ(info.dtype, DType::kF32);
      EXPECT_TRUE(source->Read(info, 0, info.num_bytes, one.values.data()).has_value());
      tensors.all[info.name] = std::move(one);
    }
    return tensors;
  }
  void Write(const std::string& file) const {
    std::vector<checkpoint::TensorInfo> infos;
    for (const auto& [name, one] : all)
      infos.push_back({.name = name, .dtype = DType::kF32, .shape = one.shape});
    std::ofstream out(file, std::ios::binary);
    out << checkpoint::MakeSafetensorsHeader(infos);
    for (const auto& [name, one] : all)
      out.write(reinterpret_cast<const char*>(one.values.data()),
                static_cast<std::streamsize>(one.values.size() * sizeof(float)));
  }
};

inline std::vector<float> Random(int64_t count, std::mt19937& rng, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(rng);
  return values;
}

struct TestAdapter {
  Json config = Json(Json::Object{{"peft_type", "LORA"}, {"r", 4}, {"lora_alpha", 12}, {"bias", "none"}});
  Tensors tensors;

  static std::string NameOf(const std::string& module, char which) {
    return "base_model.model." + module + ".lora_" + which + ".weight";
  }
  void AddPair(const std::string& module, int64_t outputs, int64_t inputs, int64_t rank, std::mt19937& rng) {
    tensors.all[NameOf(module, 'A')] = {{rank, inputs}, Random(rank * inputs, rng, 0.2f)};
    tensors.all[NameOf(module, 'B')] = {{outputs, rank}, Random(outputs * rank, rng, 0.2f)};
  }
  /// A pair for every projection of the checkpoint whose last name is among `kinds`, experts left out.
  void AddAll(const Tensors& checkpoint, const std::vector<std::string>& kinds, int64_t rank,
              std::mt19937& rng) {
    for (const auto& [name, one] : checkpoint.all) {
      if (!name.ends_with(".weight") || name.find(".experts.") != name.npos) continue;
      const std::string module = name.substr(0, name.size() - 7);
      const std::string kind = module.substr(module.rfind('.') + 1);
      if (std::ranges::count(kinds, kind) > 0) AddPair(module, one.shape[0], one.shape[1], rank, rng);
    }
  }
  void Write(const std::string& folder) const {
    std::filesystem::create_directories(folder);
    std::ofstream(folder + "/adapter_config.json") << config.Dump();
    tensors.Write(folder + "/adapter_model.safetensors");
  }
  /// checkpoint += scale * B A, in double.
  void MergeInto(Tensors& checkpoint, double scale) const {
    for (const auto& [name, a] : tensors.all) {
      const std::string prefix = "base_model.model.", suffix = ".lora_A.weight";
      if (!name.ends_with(suffix)) continue;
      const std::string module = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
      const Tensors::One& b = tensors.all.at(NameOf(module, 'B'));
      Tensors::One& w = checkpoint.all.at(module + ".weight");
      const int64_t rank = a.shape[0], inputs = a.shape[1];
      for (int64_t row = 0; row < b.shape[0]; ++row) {
        for (int64_t col = 0; col < inputs; ++col) {
          double sum = 0;
          for (int64_t r = 0; r < rank; ++r)
            sum += static_cast<double>(b.values[static_cast<size_t>(row * rank + r)]) *
                   a.values[static_cast<size_t>(r * inputs + col)];
          float& weight = w.values[static_cast<size_t>(row * inputs + col)];
          weight = static_cast<float>(weight + scale * sum);
        }
      }
    }
  }
};

}  // namespace cadre::model::test
