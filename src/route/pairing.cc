#include "route/pairing.h"

#include <algorithm>

namespace cadre::route {
namespace {

void Remove(Json& object, std::string_view name) {
  std::erase_if(object.AsObject(), [&](const Json::Member& member) { return member.first == name; });
}

void LimitToOneToken(Json& where) {
  where.Set("max_tokens", 1);
  if (where.Find("max_completion_tokens") != nullptr) where.Set("max_completion_tokens", 1);
  Remove(where, "min_tokens");
  Remove(where, "min_completion_tokens");
}

}  // namespace

bool IsGeneration(std::string_view path) {
  constexpr std::string_view kPaths[] = {"/v1/completions", "/v1/chat/completions",
                                         "/v1/chat/completions/tokens", "/chat/completions/tokens",
                                         "/inference/v1/generate"};
  return std::ranges::find(kPaths, path) != std::end(kPaths);
}

bool IsForPair(const Json& body) {
  const Json* prompt = body.Find("prompt");
  if (prompt == nullptr || !prompt->is_array()) return true;
  const auto& items = prompt->AsArray();
  return std::ranges::all_of(items, [](const Json& item) { return item.is_int(); });
}

Json PrefillBody(const Json& body, bool bare) {
  Json out = body;
  Json* sampling = out.Find("sampling_params");
  LimitToOneToken(sampling != nullptr && sampling->is_object() ? *sampling : out);
  out.Set("stream", false);
  Remove(out, "stream_options");
  if (!bare) {
    out.Set("kv_transfer_params", Json::Object{{"do_remote_decode", true},
                                               {"do_remote_prefill", false},
                                               {"remote_engine_id", nullptr},
                                               {"remote_block_ids", nullptr},
                                               {"remote_host", nullptr},
                                               {"remote_port", nullptr}});
  }
  return out;
}

Json PushedPrefillBody(const Json& body) {
  Json out = PrefillBody(body, true);
  out.Set("kv_transfer_params", Json::Object{{"do_remote_decode", true}, {"push", true}});
  return out;
}

Json PushedDecodeBody(const Json& body, const KvPlace& source) {
  Json out = body;
  out.Set("kv_transfer_params", Json::Object{{"do_remote_prefill", true},
                                             {"push", true},
                                             {"remote_engine_id", source.engine_id},
                                             {"remote_host", source.host},
                                             {"remote_port", static_cast<int64_t>(source.port)}});
  return out;
}

Json DecodeBody(const Json& body, const Json& kv_transfer_params) {
  Json out = body;
  if (!kv_transfer_params.is_null()) out.Set("kv_transfer_params", kv_transfer_params);
  return out;
}

Result<Json> TransferParams(std::string_view answer) {
  const auto parsed = Json::Parse(answer);
  if (!parsed || !parsed->is_object())
    return Fail(Code::kDataLoss, "prefill answers 200 with something that is not a JSON object");
  const Json* params = parsed->Find("kv_transfer_params");
  const Json* choices = parsed->Find("choices");
  const bool has_choice = choices != nullptr && choices->is_array() && !choices->AsArray().empty();
  if ((params == nullptr || !params->is_object()) && has_choice)
    params = choices->AsArray().front().Find("kv_transfer_params");
  Json found;
  if (params != nullptr && params->is_object()) found = *params;
  return found;
}

std::string PairRequestId(const std::string& prefill_kv, const std::string& decode_kv,
                          const std::string& id) {
  return Format("___prefill_addr_{}___decode_addr_{}_{}", prefill_kv, decode_kv, id);
}

}  // namespace cadre::route
