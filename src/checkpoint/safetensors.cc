#include "checkpoint/safetensors.h"

#include <algorithm>
#include <optional>
#include <tuple>

#include "base/json.h"

namespace cadre::checkpoint {
namespace {

struct TypeName {
  DType type;
  const char* name;
};
constexpr TypeName kTypeNames[] = {
    {DType::kF32, "F32"}, {DType::kBf16, "BF16"},      {DType::kF16, "F16"},   {DType::kF64, "F64"},
    {DType::kI64, "I64"}, {DType::kF8E4M3, "F8_E4M3"}, {DType::kI32, "I32"},   {DType::kI16, "I16"},
    {DType::kI8, "I8"},   {DType::kU8, "U8"},          {DType::kBool, "BOOL"},
};

// Both bound the work that a hostile header can cause: a value costs tens of bytes once parsed.
constexpr int64_t kMaxHeaderValues = 8'000'000;
constexpr size_t kMaxDimensions = 8;

std::optional<DType> ParseType(const std::string& name) {
  for (const TypeName& known : kTypeNames) {
    if (name == known.name) return known.type;
  }
  return std::nullopt;
}

std::string KnownTypes() {
  std::string list;
  for (const TypeName& known : kTypeNames) list += (list.empty() ? "" : ", ") + std::string(known.name);
  return list;
}

// Reads one member of the header; offsets stay relative to the data. Checks everything but the neighbours.
Result<TensorInfo> ParseTensor(const Json::Member& member, int64_t data_bytes, const std::string& file) {
  const auto& [name, entry] = member;
  const Json* dtype = entry.Find("dtype");
  const Json* shape = entry.Find("shape");
  const Json* offsets = entry.Find("data_offsets");
  if (!dtype || !dtype->is_string() || !shape || !shape->is_array() || !offsets || !offsets->is_array()) {
    return Fail(Code::kDataLoss,
                "{}: the entry of tensor '{}' must have dtype (text), shape and data_offsets (lists)", file,
                name);
  }
  const auto type = ParseType(dtype->AsString());
  if (!type) {
    return Fail(Code::kUnsupported, "{}: tensor '{}' has dtype '{}'; known are {}", file, name,
                dtype->AsString(), KnownTypes());
  }
  TensorInfo tensor{.name = name, .dtype = *type, .shape = {}, .num_bytes = DTypeBytes(*type)};
  if (shape->AsArray().size() > kMaxDimensions) {
    return Fail(Code::kDataLoss, "{}: tensor '{}' has {} dimensions; at most {} are read", file, name,
                shape->AsArray().size(), kMaxDimensions);
  }
  for (const Json& extent : shape->AsArray()) {
    if (!extent.is_int() || extent.AsInt() < 0 ||
        __builtin_mul_overflow(tensor.num_bytes, extent.AsInt(), &tensor.num_bytes)) {
      return Fail(Code::kDataLoss, "{}: tensor '{}' has the impossible shape {}", file, name, shape->Dump());
    }
    tensor.shape.push_back(extent.AsInt());
  }
  const Json::Array& range = offsets->AsArray();
  if (range.size() != 2 || !range[0].is_int() || !range[1].is_int() || range[0].AsInt() < 0 ||
      range[1].AsInt() < range[0].AsInt()) {
    return Fail(Code::kDataLoss, "{}: tensor '{}' has the impossible data_offsets {}", file, name,
                offsets->Dump());
  }
  tensor.offset = range[0].AsInt();
  if (const int64_t found = range[1].AsInt() - tensor.offset; found != tensor.num_bytes) {
    return Fail(Code::kDataLoss, "{}: tensor '{}' {} {} needs {} bytes, its data_offsets {} give {}", file,
                name, dtype->AsString(), tensor.ShapeText(), tensor.num_bytes, offsets->Dump(), found);
  }
  if (range[1].AsInt() > data_bytes) {
    return Fail(Code::kDataLoss,
                "{}: the file is truncated: tensor '{}' ends at byte {} of the data, the file has {}. "
                "Download it again",
                file, name, range[1].AsInt(), data_bytes);
  }
  return tensor;
}

Status CheckCovered(const std::vector<TensorInfo>& tensors, int64_t data_bytes, const std::string& file) {
  int64_t end = 0;
  const TensorInfo* last = nullptr;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.offset != end) {
      return Fail(Code::kDataLoss,
                  "{}: tensor '{}' begins at byte {} of the data, wanted {} (the end of '{}'): {}", file,
                  tensor.name, tensor.offset, end, last ? last->name : std::string("the header"),
                  tensor.offset < end ? "tensors overlap" : "there is a gap");
    }
    end = tensor.offset + tensor.num_bytes;
    last = &tensor;
  }
  if (end != data_bytes) {
    return Fail(Code::kDataLoss, "{}: the tensors end at byte {} of the data, the file has {}", file, end,
                data_bytes);
  }
  return {};
}

}  // namespace

const char* SafetensorsTypeName(DType type) {
  for (const TypeName& known : kTypeNames) {
    if (type == known.type) return known.name;
  }
  return "?";
}

Result<std::vector<TensorInfo>> ParseSafetensorsHeader(std::string_view header, int64_t file_bytes,
                                                       const std::string& file) {
  const int64_t data_begin = static_cast<int64_t>(header.size()) + 8;
  if (std::count(header.begin(), header.end(), ',') > kMaxHeaderValues) {
    return Fail(Code::kDataLoss, "{}: the header lists more than {} values", file, kMaxHeaderValues);
  }
  auto json = Json::Parse(header, 8);
  if (!json) return Fail(Code::kDataLoss, "{}: damaged header: {}", file, json.error().message);
  if (!json->is_object()) {
    return Fail(Code::kDataLoss, "{}: damaged header: wanted a JSON object, found {}", file,
                json->TypeName());
  }
  std::vector<TensorInfo> tensors;
  for (const Json::Member& member : json->AsObject()) {
    if (member.first == "__metadata__") continue;
    CADRE_ASSIGN(TensorInfo tensor, ParseTensor(member, file_bytes - data_begin, file));
    tensors.push_back(std::move(tensor));
  }
  // Empty tensors share an offset with the tensor that follows.
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.offset, a.num_bytes, a.name) < std::tie(b.offset, b.num_bytes, b.name);
  });
  CADRE_TRY(CheckCovered(tensors, file_bytes - data_begin, file));
  for (TensorInfo& tensor : tensors) tensor.offset += data_begin;
  return tensors;
}

std::string MakeSafetensorsHeader(const std::vector<TensorInfo>& tensors) {
  Json::Object members;
  int64_t offset = 0;
  for (const TensorInfo& tensor : tensors) {
    Json::Array shape(tensor.shape.begin(), tensor.shape.end());
    int64_t num_bytes = DTypeBytes(tensor.dtype);
    for (const int64_t extent : tensor.shape) num_bytes *= extent;
    members.emplace_back(tensor.name,
                         Json::Object{{"dtype", SafetensorsTypeName(tensor.dtype)},
                                      {"shape", std::move(shape)},
                                      {"data_offsets", Json::Array{Json(offset), Json(offset + num_bytes)}}});
    offset += num_bytes;
  }
  std::string json = Json(std::move(members)).Dump();
  json.resize((json.size() + 7) / 8 * 8, ' ');
  std::string bytes(8, '\0');
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(json.size() >> (8 * i) & 0xFF);
  return bytes + json;
}

}  // namespace cadre::checkpoint
