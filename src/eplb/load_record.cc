#include "eplb/load_record.h"

#include <utility>

namespace cadre::eplb {
namespace {

constexpr auto kBad = Code::kInvalidArgument;
constexpr std::string_view kVersionKey = "cadre_eplb_load";
constexpr int64_t kVersion = 1;
constexpr int64_t kMaxCount = int64_t{1} << 53;  // exact as a double
constexpr int64_t kMaxSize = 1 << 20;            // layers, experts

Result<int64_t> IntMember(const Json& record, const char* key, int64_t least, int64_t most) {
  const Json* value = record.Find(key);
  if (value == nullptr) return FailParam(kBad, key, "a recorded load lacks '{}'", key);
  if (!value->is_int() || value->AsInt() < least || value->AsInt() > most) {
    return FailParam(kBad, key, "'{}' of a recorded load must be an integer from {} to {}, not {}", key,
                     least, most, Excerpt(value->Dump()));
  }
  return value->AsInt();
}

Status ReadCounts(const Json& record, LoadTable& load) {
  const Json* counts = record.Find("counts");
  if (counts == nullptr || !counts->is_array())
    return FailParam(kBad, "counts", "a recorded load needs 'counts', one array a layer");
  const Json::Array& layers = counts->AsArray();
  if (layers.size() != static_cast<size_t>(load.num_layers)) {
    return FailParam(kBad, "counts", "'counts' of a recorded load has {} layers where 'layers' says {}",
                     layers.size(), load.num_layers);
  }
  for (size_t l = 0; l < layers.size(); ++l) {
    if (!layers[l].is_array() || layers[l].AsArray().size() != static_cast<size_t>(load.num_experts)) {
      return FailParam(kBad, "counts", "'counts' of a recorded load, layer {}: wanted {} numbers, found {}",
                       l, load.num_experts,
                       layers[l].is_array() ? Format("{}", layers[l].AsArray().size())
                                            : std::string(layers[l].TypeName()));
    }
    for (const Json& count : layers[l].AsArray()) {
      if (!count.is_int() || count.AsInt() < 0 || count.AsInt() > kMaxCount) {
        return FailParam(kBad, "counts",
                         "'counts' of a recorded load, layer {}: {} is no count (an integer from 0 to 2^53)",
                         l, Excerpt(count.Dump()));
      }
      load.counts.push_back(count.AsInt());
    }
  }
  return {};
}

}  // namespace

Json LoadRecordJson(const LoadRecord& record) {
  Json json;
  json.Set(std::string(kVersionKey), kVersion);
  json.Set("model", record.model);
  json.Set("layers", record.load.num_layers);
  json.Set("experts", record.load.num_experts);
  json.Set("top_k", record.top_k);
  json.Set("steps", record.steps);
  Json counts{Json::Array()};
  for (int32_t l = 0; l < record.load.num_layers; ++l) {
    Json layer{Json::Array()};
    for (const int64_t count : record.load.Layer(l)) layer.Push(count);
    counts.Push(std::move(layer));
  }
  json.Set("counts", std::move(counts));
  return json;
}

std::string WriteLoadRecord(const LoadRecord& record) {
  const Json json = LoadRecordJson(record);
  std::string text = "{";
  for (const auto& [key, value] : json.AsObject()) {
    if (key == "counts") break;
    AppendJsonString(text, key);
    text += ": " + value.Dump() + ", ";
  }
  text += "\"counts\": [";
  const char* before = "\n  ";
  for (const Json& layer : json.Find("counts")->AsArray()) {
    text += before + layer.Dump();
    before = ",\n  ";
  }
  return text + "]}\n";
}

Result<LoadRecord> ReadLoadRecord(std::string_view text) {
  CADRE_ASSIGN(const Json json, Json::Parse(text, 8));
  const Json* version = json.Find(kVersionKey);
  if (version == nullptr) {
    return Fail(kBad,
                "this is no recorded load (a JSON object with the member \"{}\"); --eplb-record writes one",
                kVersionKey);
  }
  if (!version->is_int() || version->AsInt() != kVersion) {
    return FailParam(kBad, std::string(kVersionKey),
                     "a recorded load of version {}; this program reads version {}", Excerpt(version->Dump()),
                     kVersion);
  }
  const Json* model = json.Find("model");
  if (model == nullptr || !model->is_string())
    return FailParam(kBad, "model", "a recorded load needs 'model', a string that says which model it is of");
  LoadRecord record{.model = model->AsString(), .load = {}};
  CADRE_ASSIGN(const int64_t layers, IntMember(json, "layers", 1, kMaxSize));
  CADRE_ASSIGN(const int64_t experts, IntMember(json, "experts", 1, kMaxSize));
  CADRE_ASSIGN(const int64_t top_k, IntMember(json, "top_k", 1, experts));
  CADRE_ASSIGN(record.steps, IntMember(json, "steps", 0, kMaxCount));
  record.top_k = static_cast<int32_t>(top_k);
  // The sizes come from the file; memory is taken as the counts are found, not as it promises them.
  record.load.num_layers = static_cast<int32_t>(layers);
  record.load.num_experts = static_cast<int32_t>(experts);
  CADRE_TRY(ReadCounts(json, record.load));
  return record;
}

Status CheckRecord(const LoadRecord& record, std::string_view model, int32_t num_layers, int32_t num_experts,
                   int32_t top_k) {
  const LoadTable& load = record.load;
  if (load.num_layers != num_layers || load.num_experts != num_experts || record.top_k != top_k) {
    return Fail(
        kBad,
        "the recorded load is of {} MoE layers with {} experts, {} a token; the model has {} with {}, {} a "
        "token. Record one with this model",
        load.num_layers, load.num_experts, record.top_k, num_layers, num_experts, top_k);
  }
  if (record.model != model) {
    return Fail(kBad, "the recorded load is of the model '{}', not of '{}'. Record one with this model",
                Excerpt(record.model), Excerpt(model));
  }
  return {};
}

}  // namespace cadre::eplb
