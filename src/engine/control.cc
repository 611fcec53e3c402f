#include "engine/control.h"

#include <algorithm>

#include "base/json.h"
#include "engine/engine.h"

namespace cadre::engine {

void Engine::Control(ControlRequest, ControlDone done) {
  done(Fail(Code::kUnsupported, "this engine cannot be paused, nor its weights replaced"));
}

const AdapterInfo* AdapterList::Find(const std::string& name) const {
  const auto found = std::ranges::find(adapters, name, &AdapterInfo::name);
  return found == adapters.end() ? nullptr : &*found;
}

std::string WeightOrder::ToText() const {
  return Json(Json::Array{static_cast<int64_t>(kind), folder, host, port, first_receiver, world_size,
                          timeout_s, expected, name, in_place})
      .Dump();
}

Result<WeightOrder> WeightOrder::FromText(const std::string& text) {
  constexpr size_t kMembers = 10;
  const auto damaged = [&] {
    return Fail(Code::kDataLoss, "an order about weights is damaged: '{}'", Excerpt(text));
  };
  const auto json = Json::Parse(text);
  if (!json || !json->is_array() || json->AsArray().size() != kMembers) return damaged();
  const Json::Array& members = json->AsArray();
  for (const size_t i : {0u, 3u, 4u, 5u, 6u})
    if (!members[i].is_int()) return damaged();
  for (const size_t i : {1u, 2u, 7u, 8u})
    if (!members[i].is_string()) return damaged();
  if (!members[9].is_bool()) return damaged();
  const int64_t kind = members[0].AsInt();
  if (kind < 0 || kind > static_cast<int64_t>(Kind::kUnloadAdapter)) return damaged();
  return WeightOrder{.kind = static_cast<Kind>(kind),
                     .folder = members[1].AsString(),
                     .host = members[2].AsString(),
                     .port = static_cast<int32_t>(members[3].AsInt()),
                     .first_receiver = static_cast<int32_t>(members[4].AsInt()),
                     .world_size = static_cast<int32_t>(members[5].AsInt()),
                     .timeout_s = members[6].AsInt(),
                     .expected = members[7].AsString(),
                     .name = members[8].AsString(),
                     .in_place = members[9].AsBool()};
}

// FNV-1a: all that is asked of it is that equal orders are equal everywhere.
uint64_t WeightOrder::Id() const {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : ToText()) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash == 0 ? 1 : hash;
}

}  // namespace cadre::engine
