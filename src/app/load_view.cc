#include "app/load_view.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "app/serve_target.h"
#include "app/terminal.h"
#include "deploy/expert_start.h"
#include "deploy/model_setup.h"
#include "engine/eplb_json.h"
#include "eplb/load.h"
#include "eplb/placement.h"
#include "eplb/policy.h"
#include "http/client.h"
#include "sys/files.h"

namespace cadre::app {
namespace {

constexpr auto kBad = Code::kInvalidArgument;
constexpr size_t kMaxFileBytes = size_t{256} << 20;

bool IsUrl(const std::string& text) {
  return text.starts_with("http://") || text.starts_with("https://");
}

// What a server says of an error, if it says it in OpenAI's form.
std::string MessageOf(const http::Response& response) {
  const auto json = Json::Parse(response.body);
  const Json* error = json ? json->Find("error") : nullptr;
  const Json* message = error ? error->Find("message") : nullptr;
  return message != nullptr && message->is_string() ? message->AsString() : response.body;
}

Result<std::string> Fetch(std::string url) {
  while (url.ends_with('/')) url.pop_back();
  if (url.ends_with("/eplb")) url.resize(url.size() - 5);
  const auto parsed = ParseServerUrl(url);
  if (!parsed) return FailParam(kBad, "--load", "--load wants a file or http://HOST:PORT, not '{}'", url);
  http::ClientOptions options;
  options.host = parsed->host;
  options.port = parsed->port;
  options.tls = parsed->tls;
  CADRE_ASSIGN(const auto client, http::Client::Create(options));
  http::ClientRequest request{.target = parsed->prefix + "/eplb"};
  request.idle_timeout = std::chrono::seconds(15);
  const auto response = client->Fetch(std::move(request));
  if (!response) {
    return FailParam(response.error().code, "--load", "--load {}: {}", parsed->Text(),
                     response.error().message);
  }
  if (response->status == 200) return std::move(response->body);
  return FailParam(Code::kUnavailable, "--load", "--load {}: the server answers {}: {}", parsed->Text(),
                   response->status, Excerpt(MessageOf(*response), 300));
}

PlacedLoad Place(std::string name, std::vector<std::vector<int32_t>> slots, const LoadView& view) {
  PlacedLoad placed{
      .name = std::move(name), .slots = std::move(slots), .rank_loads = {}, .layer_balancedness = {}};
  eplb::Balance whole;
  for (size_t l = 0; l < placed.slots.size(); ++l) {
    placed.rank_loads.push_back(
        eplb::RankLoads(view.layout, placed.slots[l], view.record.load.Layer(static_cast<int32_t>(l))));
    eplb::Balance layer;
    layer.Add(placed.rank_loads.back());
    whole.Add(placed.rank_loads.back());
    placed.layer_balancedness.push_back(layer.balancedness());
  }
  placed.balancedness = whole.balancedness();
  return placed;
}

std::vector<std::vector<int32_t>> SlotsOf(const std::vector<eplb::ExpertMap>& maps) {
  std::vector<std::vector<int32_t>> slots;
  for (const eplb::ExpertMap& map : maps)
    slots.emplace_back(map.slot_to_expert().begin(), map.slot_to_expert().end());
  return slots;
}

std::vector<std::vector<int32_t>> Rows(const std::vector<int32_t>& values, int32_t columns) {
  std::vector<std::vector<int32_t>> rows;
  for (auto at = values.begin(); at != values.end(); at += columns) rows.emplace_back(at, at + columns);
  return rows;
}

LoadView ViewOf(const engine::EplbState& state) {
  LoadView view{
      .source = {},
      .record = {.model = state.model, .top_k = state.top_k, .steps = state.window_steps, .load = {}},
      .layout = {.num_slots = state.num_slots, .num_ranks = state.num_ranks},
      .before = {},
      .after = {}};
  view.record.load = eplb::LoadTable(state.num_layers, state.num_experts);
  view.record.load.counts = state.load;
  view.before = Place("start map", Rows(state.start_slots, state.num_slots), view);
  view.after =
      Place(Format("present map (epoch {})", state.stats.epoch), Rows(state.slots, state.num_slots), view);
  return view;
}

// Where the flags of a deployment would put the experts, and where the policy then would.
Status PlaceByFlags(const config::ParallelOptions& parallel, int32_t num_groups, LoadView& view) {
  const int num_ranks = parallel.expert_parallel_size();
  if (num_ranks == 1 || !parallel.enable_expert_parallel) return {};
  const eplb::LoadTable& load = view.record.load;
  CADRE_ASSIGN(const auto placement, eplb::ParsePlacement(parallel.expert_placement_strategy));
  CADRE_ASSIGN(const eplb::ExpertMap map,
               eplb::StartMap(load.num_experts, static_cast<int32_t>(parallel.eplb.num_redundant_experts),
                              num_ranks, placement));
  view.layout = map.layout();
  const std::vector<eplb::ExpertMap> start(static_cast<size_t>(load.num_layers), map);
  CADRE_ASSIGN(const eplb::Policy* const policy, eplb::FindPolicy(parallel.eplb.policy));
  const eplb::PolicyInput input{.load = &load,
                                .num_groups = num_groups,
                                .hosts = eplb::Hosts::Even(num_ranks, 1),
                                .layout = view.layout};
  CADRE_ASSIGN(const eplb::Plan plan, eplb::MakePlan(*policy, input, start));
  CADRE_ASSIGN(const std::vector<eplb::ExpertMap> planned, eplb::MapsOf(plan, map.epoch()));
  view.before = Place(Format("start map ({})", parallel.expert_placement_strategy), SlotsOf(start), view);
  view.after = Place(Format("planned by policy '{}'", parallel.eplb.policy), SlotsOf(planned), view);
  return {};
}

// The model's expert groups, if there is a model and the load is of it.
Result<int32_t> GroupsOf(const config::EngineOptions& engine, const eplb::LoadRecord& record) {
  if (engine.model.model.empty()) return 1;
  CADRE_ASSIGN(const deploy::ModelSetup setup, deploy::DescribeModel(engine));
  const nn::MoeSpec& moe = setup.spec.moe;
  CADRE_TRY(eplb::CheckRecord(record, deploy::LoadIdentity(setup), setup.spec.num_moe_layers(),
                              static_cast<int32_t>(moe.num_experts), static_cast<int32_t>(moe.top_k)));
  return std::max<int32_t>(1, static_cast<int32_t>(moe.num_groups));
}

Result<LoadView> Look(const config::InspectOptions& options, const std::string& text) {
  const auto json = Json::Parse(text, 8);
  if (json && json->Find("maps") != nullptr) {
    CADRE_ASSIGN(const engine::EplbState state, engine::ReadEplbState(*json));
    LoadView view = ViewOf(state);
    CADRE_TRY(GroupsOf(options.engine, view.record));
    return view;
  }
  LoadView view;
  CADRE_ASSIGN(view.record, eplb::ReadLoadRecord(text));
  CADRE_ASSIGN(const int32_t num_groups, GroupsOf(options.engine, view.record));
  CADRE_TRY(PlaceByFlags(options.engine.parallel, num_groups, view));
  return view;
}

// Cells of `value(row, column)` in fractions of the row's mean.
template <typename Value>
Grid MakeGrid(int32_t rows, int32_t columns, int32_t max_rows, int32_t max_columns, Value value) {
  Grid grid;
  grid.row_step = (rows + max_rows - 1) / max_rows;
  grid.column_step = (columns + max_columns - 1) / max_columns;
  grid.rows = (rows + grid.row_step - 1) / grid.row_step;
  grid.columns = (columns + grid.column_step - 1) / grid.column_step;
  grid.values.resize(static_cast<size_t>(grid.rows) * static_cast<size_t>(grid.columns));
  for (int32_t row = 0; row < rows; ++row) {
    double sum = 0;
    for (int32_t column = 0; column < columns; ++column) sum += value(row, column);
    if (sum == 0) continue;
    for (int32_t column = 0; column < columns; ++column) {
      const auto at = static_cast<size_t>(row / grid.row_step) * static_cast<size_t>(grid.columns) +
                      static_cast<size_t>(column / grid.column_step);
      grid.values[at] = std::max(grid.values[at], value(row, column) * columns / sum);
    }
  }
  return grid;
}

Json PlacedJson(const PlacedLoad& placed) {
  Json layers{Json::Array()}, maps{Json::Array()}, ranks{Json::Array()};
  for (const double layer : placed.layer_balancedness) layers.Push(layer);
  for (const auto& slots : placed.slots) {
    Json map{Json::Array()};
    for (const int32_t expert : slots) map.Push(expert);
    maps.Push(std::move(map));
  }
  for (const auto& loads : placed.rank_loads) {
    Json row{Json::Array()};
    for (const double load : loads) row.Push(load);
    ranks.Push(std::move(row));
  }
  return Json::Object{{"name", placed.name},
                      {"balancedness", placed.balancedness},
                      {"layer_balancedness", std::move(layers)},
                      {"maps", std::move(maps)},
                      {"rank_tokens", std::move(ranks)}};
}

}  // namespace

std::vector<double> PlacedLoad::RankShares() const {
  std::vector<double> sums(rank_loads.empty() ? 0 : rank_loads.front().size());
  for (const auto& layer : rank_loads)
    for (size_t r = 0; r < sums.size(); ++r) sums[r] += layer[r];
  const double mean = std::accumulate(sums.begin(), sums.end(), 0.0) / static_cast<double>(sums.size());
  for (double& sum : sums) sum = mean > 0 ? sum / mean : 1;
  return sums;
}

Result<LoadView> LookAtLoad(const config::InspectOptions& options) {
  const std::string& source = *options.load;
  CADRE_ASSIGN(const std::string text, IsUrl(source) ? Fetch(source) : sys::ReadFile(source, kMaxFileBytes));
  auto view = Look(options, text);
  if (!view) {
    return FailParam(view.error().code, "--load", "--load {}: {}", source, view.error().message);
  }
  view->source = WithoutControls(source);
  view->record.model = WithoutControls(view->record.model);
  return view;
}

Json LoadJson(const LoadView& view) {
  Json json = Json::Object{{"source", view.source}, {"load", eplb::LoadRecordJson(view.record)}};
  if (!view.before) return json;
  json.Set("ranks", view.layout.num_ranks);
  json.Set("before", PlacedJson(*view.before));
  json.Set("after", PlacedJson(*view.after));
  return json;
}

Grid ExpertGrid(const eplb::LoadTable& load, int32_t max_rows, int32_t max_columns) {
  return MakeGrid(load.num_layers, load.num_experts, max_rows, max_columns,
                  [&](int32_t layer, int32_t expert) {
                    return static_cast<double>(load.Layer(layer)[static_cast<size_t>(expert)]);
                  });
}

Grid RankGrid(const PlacedLoad& placed, int32_t max_rows, int32_t max_columns) {
  const auto layers = static_cast<int32_t>(placed.rank_loads.size());
  const auto ranks = static_cast<int32_t>(placed.rank_loads.front().size());
  return MakeGrid(layers, ranks, max_rows, max_columns, [&](int32_t layer, int32_t rank) {
    return placed.rank_loads[static_cast<size_t>(layer)][static_cast<size_t>(rank)];
  });
}

namespace {

int LevelOf(double multiple, const double (&bounds)[kNumLevels - 1]) {
  if (multiple <= 0) return 0;
  return 1 + static_cast<int>(std::ranges::upper_bound(bounds, multiple) - std::begin(bounds));
}

}  // namespace

int ExpertLevel(double multiple) {
  static constexpr double kBounds[] = {0.125, 0.25, 0.5, 1, 2, 4, 8};
  return LevelOf(multiple, kBounds);
}
int RankLevel(double multiple) {
  static constexpr double kBounds[] = {0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 2};
  return LevelOf(multiple, kBounds);
}
const char* ExpertLevelName(int level) {
  static constexpr const char* kNames[] = {"none", "<⅛", "<¼", "<½", "<1", "<2", "<4", "<8", "≥8"};
  return kNames[level];
}
const char* RankLevelName(int level) {
  static constexpr const char* kNames[] = {"none",  "<0.5", "<0.75", "<0.9", "even",
                                           "<1.25", "<1.5", "<2",    "≥2"};
  return kNames[level];
}

}  // namespace cadre::app
