// GET /v1/models
#include "serve/api.h"

namespace cadre::serve {

Result<http::Response> Models(Api& api, const http::Request&) {
  Json::Array cards;
  for (const std::string& name : api.options.served_model_names) {
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
    cards.push_back(Json::Object{{"id", name},
                                 {"object", "model"},
                                 {"created", api.started_at},
                                 {"owned_by", "cadre"},
                                 {"root", api.options.model_root},
                                 {"parent", nullptr},
                                 {"max_model_len", api.session.model().max_model_len},
                                 {"permission", Json::Array{Json(std::move(permission))}}});
  }
  http::Response response;
  response.body = Json(Json::Object{{"object", "list"}, {"data", std::move(cards)}}).Dump();
  return response;
}

}  // namespace cadre::serve
