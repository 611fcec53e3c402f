#include "route/kv_places.h"

#include "base/json.h"

namespace cadre::route {
namespace {

constexpr size_t kMaxRanks = 65536, kMaxName = 512;

Result<KvPlace> ParseOne(const Json& one, size_t rank) {
  const Json *number = one.Find("rank"), *id = one.Find("engine_id"), *host = one.Find("host"),
             *port = one.Find("port");
  const bool whole = number != nullptr && number->is_int() && id != nullptr && id->is_string() &&
                     host != nullptr && host->is_string() && port != nullptr && port->is_int();
  if (!whole || number->AsInt() != static_cast<int64_t>(rank) || id->AsString().size() > kMaxName ||
      host->AsString().empty() || host->AsString().size() > kMaxName || port->AsInt() < 1 ||
      port->AsInt() > 65535)
    return Fail(Code::kDataLoss, "ranks[{}] is not the place of rank {}", rank, rank);
  return KvPlace{id->AsString(), host->AsString(), static_cast<int>(port->AsInt())};
}

}  // namespace

Result<KvPlaces> ParseKvPlaces(std::string_view body) {
  CADRE_ASSIGN(const Json parsed, Json::Parse(body));
  const Json* push = parsed.is_object() ? parsed.Find("push") : nullptr;
  const Json* ranks = parsed.is_object() ? parsed.Find("ranks") : nullptr;
  if (push == nullptr || !push->is_bool() || ranks == nullptr || !ranks->is_array() ||
      ranks->AsArray().size() > kMaxRanks)
    return Fail(Code::kDataLoss, "members push and ranks are wanted");
  KvPlaces places{.push = push->AsBool(), .ranks = {}};
  for (const Json& one : ranks->AsArray()) {
    if (!one.is_object()) return Fail(Code::kDataLoss, "ranks must hold objects");
    CADRE_ASSIGN(KvPlace place, ParseOne(one, places.ranks.size()));
    places.ranks.push_back(std::move(place));
  }
  if (places.push && places.ranks.empty()) return Fail(Code::kDataLoss, "push without a rank");
  return places;
}

}  // namespace cadre::route
