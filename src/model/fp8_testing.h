#pragma once
// Checkpoints as they are published in fp8, made from any other one, for tests: the codes and scales are
// computed here, and what they stand for is written beside them as an f32 checkpoint.
#include <cmath>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "model/weights_testing.h"
#include "tensor/fp8.h"

namespace cadre::model::test {

/// A way to publish.
struct Fp8Layout {
  const char* name;
  const char* config;                      ///< quantization_config
  const char* suffix;                      ///< of the scales' names
  int64_t block_rows = 0, block_cols = 0;  ///< 0: per tensor or row
  bool per_row = false;
  DType scale_type = DType::kF32;
  bool column_of_scales = false;  ///< shape [n, 1], else [n]; one scale is [1]
  bool input_scales = false;
  std::string plain_part = {};  ///< names with this part stay as they are
};

inline std::vector<Fp8Layout> Fp8Layouts() {
  return {
      {.name = "deepseek",
       .config = R"({"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3",
                     "weight_block_size": [128, 128]})",
       .suffix = "_scale_inv",
       .block_rows = 128,
       .block_cols = 128},
      {.name = "small blocks, attention left out",
       .config = R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [8, 12],
                     "modules_to_not_convert": ["self_attn", "lm_head", "gate"]})",
       .suffix = "_scale_inv",
       .block_rows = 8,
       .block_cols = 12,
       .plain_part = "self_attn"},
      {.name = "tensor",
       .config = R"({"quant_method": "compressed-tensors", "format": "float-quantized",
                     "config_groups": {"group_0": {"targets": ["Linear"],
                       "weights": {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": true},
                       "input_activations": {"num_bits": 8, "type": "float", "dynamic": false}}},
                     "ignore": ["lm_head", "re:.*mlp.gate$"]})",
       .suffix = "_scale",
       .input_scales = true},
      {.name = "row",
       .config = R"({"quant_method": "compressed-tensors", "format": "float-quantized",
                     "config_groups": {"group_0": {"targets": ["Linear"],
                       "weights": {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": true},
                       "input_activations": {"num_bits": 8, "type": "float", "dynamic": true}}},
                     "ignore": ["lm_head", "re:.*down_proj"]})",
       .suffix = "_scale",
       .per_row = true,
       .scale_type = DType::kBf16,
       .column_of_scales = true,
       .plain_part = "down_proj"},
      {.name = "compressed blocks",
       .config = R"({"quant_method": "compressed-tensors", "format": "float-quantized",
                     "config_groups": {"group_0": {"targets": ["Linear"],
                       "weights": {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [16, 16]}}},
                     "ignore": ["lm_head"]})",
       .suffix = "_scale",
       .block_rows = 16,
       .block_cols = 16},
      {.name = "static",
       .config = R"({"quant_method": "fp8", "activation_scheme": "static"})",
       .suffix = "_scale",
       .input_scales = true},
  };
}

/// A safetensors file in the making.
class TensorFile {
 public:
  void Add(const std::string& name, DType type, std::vector<int64_t> shape, const std::string& bytes) {
    infos_.push_back({.name = name, .dtype = type, .shape = std::move(shape)});
    data_ += bytes;
  }
  void AddFloats(const std::string& name, std::vector<int64_t> shape, const std::vector<float>& values,
                 DType type = DType::kF32) {
    std::string bytes;
    for (const float value : values) {
      const uint16_t half = ToBf16(value).bits;
      bytes.append(
          type == DType::kF32 ? reinterpret_cast<const char*>(&value) : reinterpret_cast<const char*>(&half),
          static_cast<size_t>(DTypeBytes(type)));
    }
    Add(name, type, std::move(shape), bytes);
  }
  void Write(const std::string& path) const {
    WriteText(path, checkpoint::MakeSafetensorsHeader(infos_) + data_);
  }

 private:
  std::vector<checkpoint::TensorInfo> infos_;
  std::string data_;
};

// Codes with a scale for each block, and their numbers.
inline void AddQuantized(const std::string& name, const Plain& tensor, const Fp8Layout& layout,
                         TensorFile& fp8, TensorFile& plain) {
  const int64_t rows = layout.block_rows > 0 ? layout.block_rows : layout.per_row ? 1 : tensor.rows;
  const int64_t cols = layout.block_cols > 0 ? layout.block_cols : tensor.cols;
  const int64_t down = (tensor.rows + rows - 1) / rows, across = (tensor.cols + cols - 1) / cols;
  std::vector<float> scales(static_cast<size_t>(down * across)), numbers(tensor.data.size());
  for (int64_t i = 0; i < tensor.rows * tensor.cols; ++i) {
    float& scale = scales[static_cast<size_t>(i / tensor.cols / rows * across + i % tensor.cols / cols)];
    scale = std::max(scale, std::fabs(tensor.data[static_cast<size_t>(i)]) / 440);
  }
  if (layout.scale_type == DType::kBf16) {
    for (float& scale : scales) scale = ToFloat(ToBf16(scale));
  }
  std::string codes;
  for (int64_t i = 0; i < tensor.rows * tensor.cols; ++i) {
    const float scale = scales[static_cast<size_t>(i / tensor.cols / rows * across + i % tensor.cols / cols)];
    const uint8_t code = FloatToFp8(scale == 0 ? 0 : tensor.data[static_cast<size_t>(i)] / scale);
    codes += static_cast<char>(code);
    numbers[static_cast<size_t>(i)] = Fp8ToFloat(code) * scale;
  }
  fp8.Add(name, DType::kF8E4M3, {tensor.rows, tensor.cols}, codes);
  std::vector<int64_t> shape = {down};
  if (layout.block_rows > 0 || layout.column_of_scales) shape.push_back(across);
  fp8.AddFloats(name + layout.suffix, shape, scales, layout.scale_type);
  if (layout.input_scales) fp8.AddFloats(name.substr(0, name.size() - 6) + "input_scale", {1}, {0.5f});
  plain.AddFloats(name, {tensor.rows, tensor.cols}, numbers);
}

/// Writes `from` as `layout` into `fp8_folder`, and the same numbers as f32 into `plain_folder`. Linear
/// layers are known by their names.
inline void PublishFp8(const std::string& from, const Fp8Layout& layout, const std::string& fp8_folder,
                       const std::string& plain_folder) {
  const PlainCheckpoint file(from);
  TensorFile fp8, plain;
  for (const auto& [name, tensor] : file.all()) {
    bool linear = false;
    for (const char* end :
         {"_proj.weight", "_proj_with_mqa.weight", ".w1.weight", ".w2.weight", ".w3.weight"})
      linear = linear || name.ends_with(end);
    if (!layout.plain_part.empty() && name.find(layout.plain_part) != std::string::npos) linear = false;
    if (linear) {
      AddQuantized(name, tensor, layout, fp8, plain);
    } else {
      fp8.AddFloats(name, file.ShapeOf(name), tensor.data);
      plain.AddFloats(name, file.ShapeOf(name), tensor.data);
    }
  }
  Json config = *Json::Parse(ReadText(from + "/config.json"));
  WriteText(plain_folder + "/config.json", config.Dump());
  plain.Write(plain_folder + "/model.safetensors");
  config.Set("quantization_config", *Json::Parse(layout.config));
  WriteText(fp8_folder + "/config.json", config.Dump());
  fp8.Write(fp8_folder + "/model.safetensors");
}

}  // namespace cadre::model::test
