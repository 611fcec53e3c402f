// GET /v1/models
#include "serve/api.h"

namespace cadre::serve {
namespace {

Json Card(const Api& api, const std::string& name, const std::string& root, Json parent) {
  Json::Object permission{{"id", "modelperm-" + name},
                          {"object", "model_permission"},
                          {"created", api.started_at},
                          {"allow_create_engine", false},
                          {"allow_sampling", true},
                          {"allow_logprobs", true},
                          {"allow_search_indices", false},
                          {"allow_view", true},
                          {"allow_fine_tuning", false},
                          {"organization", "*"},
                          {"group", nullptr},
                          {"is_blocking", false}};
  return Json::Object{{"id", name},
                      {"object", "model"},
                      {"created", api.started_at},
                      {"owned_by", "cadre"},
                      {"root", root},
                      {"parent", std::move(parent)},
                      {"max_model_len", api.session.model().max_model_len},
                      {"permission", Json::Array{Json(std::move(permission))}}};
}

// The adapters that all ranks have, by what each has told last.
engine::AdapterList AdaptersOf(const Api& api) {
  engine::AdapterList newest;
  for (engine::RankStats& stats : api.session.engine().Stats()) {
    if (stats.adapters.num_changes >= newest.num_changes) newest = std::move(stats.adapters);
  }
  return newest;
}

}  // namespace

Result<http::Response> Models(Api& api, const http::Request&) {
  const auto& names = api.options.served_model_names;
  Json::Array cards;
  for (const std::string& name : names) cards.push_back(Card(api, name, api.options.model_root, nullptr));
  if (api.options.enable_lora) {
    for (const engine::AdapterInfo& adapter : AdaptersOf(api).adapters) {
      std::string parent = names.front();
      for (const auto& [name, base] : api.options.adapter_parents)
        if (name == adapter.name) parent = base;
      cards.push_back(Card(api, adapter.name, adapter.path, std::move(parent)));
    }
  }
  http::Response response;
  response.body = Json(Json::Object{{"object", "list"}, {"data", std::move(cards)}}).Dump();
  return response;
}

}  // namespace cadre::serve
