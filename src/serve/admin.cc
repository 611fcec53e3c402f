// What people and machines ask about the server itself.
#include "serve/api.h"

namespace cadre::serve {

Result<http::Response> Health(Api& api, const http::Request&) {
  CADRE_TRY(api.session.engine().Health());
  if (api.draining) return Fail(Code::kUnavailable, "the server is shutting down");
  return http::Response{200, "", {}, ""};
}

Result<http::Response> Ping(Api& api, const http::Request& request) {
  return Health(api, request);
}

Result<http::Response> Version(Api& api, const http::Request&) {
  return http::Response{
      200, "application/json", {}, Json(Json::Object{{"version", api.options.version}}).Dump()};
}

Result<http::Response> Load(Api& api, const http::Request&) {
  return http::Response{
      200, "application/json", {}, Format("{{\"server_load\":{}}}", api.num_in_flight.load())};
}

Result<http::Response> Metrics(Api& api, const http::Request&) {
  return http::Response{
      200, "text/plain; version=0.0.4; charset=utf-8", {}, api.metrics.Serialize(api.session.engine())};
}

Result<http::Response> ResetPrefixCache(Api& api, const http::Request&) {
  CADRE_TRY(api.session.engine().ResetPrefixCache());
  return http::Response{200, "", {}, ""};
}

}  // namespace cadre::serve
