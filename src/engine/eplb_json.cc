#include "engine/eplb_json.h"

#include <algorithm>

#include "eplb/load_record.h"
#include "eplb/slot_layout.h"

namespace cadre::engine {
namespace {

constexpr auto kBad = Code::kInvalidArgument;
constexpr int64_t kMaxSlots = 1 << 20;

Json Numbers(const auto& numbers) {
  Json json{Json::Array()};
  for (const auto number : numbers) json.Push(number);
  return json;
}

// [rows, columns] as a list of rows.
Json Rows(const std::vector<int32_t>& values, int32_t columns) {
  Json json{Json::Array()};
  for (size_t at = 0; at < values.size(); at += static_cast<size_t>(columns))
    json.Push(Numbers(std::span(values).subspan(at, static_cast<size_t>(columns))));
  return json;
}

eplb::LoadRecord RecordOf(const EplbState& state) {
  eplb::LoadRecord record{
      .model = state.model, .top_k = state.top_k, .steps = state.window_steps, .load = {}};
  record.load.num_layers = state.num_layers;
  record.load.num_experts = state.num_experts;
  record.load.counts = state.load;
  return record;
}

Json Layout(const EplbState& state) {
  const eplb::SlotLayout layout{.num_slots = state.num_slots, .num_ranks = state.num_ranks};
  Json first{Json::Array()};
  for (int32_t rank = 0; rank <= state.num_ranks; ++rank) first.Push(layout.Begin(rank));
  return Json::Object{
      {"ranks", state.num_ranks}, {"slots", state.num_slots}, {"first_slot", std::move(first)}};
}

// ---- and back

Result<const Json*> Member(const Json& json, const char* key) {
  const Json* found = json.Find(key);
  if (found == nullptr) return FailParam(kBad, key, "the state of balanced experts lacks '{}'", key);
  return found;
}

Result<std::vector<int32_t>> ReadRows(const Json& json, const char* key, const EplbState& state) {
  CADRE_ASSIGN(const Json* const rows, Member(json, key));
  const auto bad = [&] {
    return FailParam(kBad, key, "'{}' wants {} lists of {} experts (0 to {})", key, state.num_layers,
                     state.num_slots, state.num_experts - 1);
  };
  std::vector<int32_t> out;
  if (!rows->is_array() || rows->AsArray().size() != static_cast<size_t>(state.num_layers)) return bad();
  for (const Json& row : rows->AsArray()) {
    if (!row.is_array() || row.AsArray().size() != static_cast<size_t>(state.num_slots)) return bad();
    for (const Json& expert : row.AsArray()) {
      if (!expert.is_int() || expert.AsInt() < 0 || expert.AsInt() >= state.num_experts) return bad();
      out.push_back(static_cast<int32_t>(expert.AsInt()));
    }
  }
  return out;
}

Result<int32_t> ReadSize(const Json& layout, const char* key) {
  CADRE_ASSIGN(const Json* const value, Member(layout, key));
  if (!value->is_int() || value->AsInt() < 1 || value->AsInt() > kMaxSlots)
    return FailParam(kBad, key, "'{}' of the layout must be an integer from 1 to {}", key, kMaxSlots);
  return static_cast<int32_t>(value->AsInt());
}

}  // namespace

Json EplbStateJson(const EplbState& state) {
  const EplbStats& stats = state.stats;
  return Json::Object{{"epoch", stats.epoch},
                      {"moving", stats.moving},
                      {"stalled", stats.stalled},
                      {"waits_for", stats.waits_for},
                      {"steps_until_next", state.steps_until_next},
                      {"balancedness", stats.balancedness},
                      {"counters", Json::Object{{"rebalances", stats.num_rebalances},
                                                {"unchanged", state.num_unchanged},
                                                {"moved_experts", stats.num_moved},
                                                {"moved_bytes", stats.moved_bytes},
                                                {"moving_seconds", stats.moving_seconds},
                                                {"failed_waves", stats.num_failed_waves}}},
                      {"options", Json::Object{{"window_size", state.window_size},
                                               {"step_interval", state.step_interval},
                                               {"num_redundant_experts", state.num_slots - state.num_experts},
                                               {"num_spare_slots", state.num_spares},
                                               {"use_async", state.use_async},
                                               {"policy", state.policy},
                                               {"replica_routing", state.replica_routing}}},
                      {"layout", Layout(state)},
                      {"rank_tokens", Numbers(stats.rank_tokens)},
                      {"layer_balancedness", Numbers(stats.layer_balancedness)},
                      {"layer_epochs", Numbers(state.layer_epochs)},
                      {"maps", Rows(state.slots, state.num_slots)},
                      {"start_maps", Rows(state.start_slots, state.num_slots)},
                      {"load", eplb::LoadRecordJson(RecordOf(state))}};
}

Result<EplbState> ReadEplbState(const Json& json) {
  EplbState state;
  CADRE_ASSIGN(const Json* const load, Member(json, "load"));
  CADRE_ASSIGN(eplb::LoadRecord record, eplb::ReadLoadRecord(load->Dump()));
  state.model = std::move(record.model);
  state.top_k = record.top_k;
  state.window_steps = record.steps;
  state.num_layers = record.load.num_layers;
  state.num_experts = record.load.num_experts;
  state.load = std::move(record.load.counts);
  CADRE_ASSIGN(const Json* const layout, Member(json, "layout"));
  CADRE_ASSIGN(state.num_ranks, ReadSize(*layout, "ranks"));
  CADRE_ASSIGN(state.num_slots, ReadSize(*layout, "slots"));
  if (state.num_slots < state.num_experts || state.num_ranks > state.num_slots) {
    return FailParam(kBad, "layout", "{} slots on {} ranks cannot hold {} experts", state.num_slots,
                     state.num_ranks, state.num_experts);
  }
  CADRE_ASSIGN(state.slots, ReadRows(json, "maps", state));
  CADRE_ASSIGN(state.start_slots, ReadRows(json, "start_maps", state));
  CADRE_ASSIGN(const Json* const epoch, Member(json, "epoch"));
  if (epoch->is_int()) state.stats.epoch = epoch->AsInt();
  return state;
}

}  // namespace cadre::engine
