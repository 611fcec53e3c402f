// What people and machines ask about the server itself.
#include "base/caught.h"
#include "serve/api.h"
#include "serve/errors.h"

namespace cadre::serve {
namespace {

// Answers with what `make` makes of all fronts' parts: at once where this is the only one.
void AnswerForAll(Api& api, const WriterPtr& writer,
                  std::function<http::Response(const std::vector<FrontPart>& others)> make) {
  auto answer = [writer, make = std::move(make)](const std::vector<FrontPart>& others) {
    try {
      writer->Send(make(others));
    } catch (...) {
      writer->Send(ErrorResponse(CaughtError()));
    }
  };
  api.options.ask_fronts ? api.options.ask_fronts(std::move(answer)) : answer({});
}

}  // namespace

Result<http::Response> Health(Api& api, const http::Request&) {
  CADRE_TRY(api.session.engine().Health());
  if (api.draining) return Fail(Code::kUnavailable, "the server is shutting down");
  // A rebalance that hangs keeps nobody from being served, so it is no reason to send requests elsewhere.
  for (const engine::RankStats& rank : api.session.engine().Stats()) {
    if (!rank.eplb.stalled) continue;
    const std::string warning = "a rebalance of experts is stalled; it waits for " + rank.eplb.waits_for;
    const Json body = Json::Object{{"status", "ok"}, {"warnings", Json::Array{warning}}};
    return http::Response{200, "application/json", {}, body.Dump()};
  }
  return http::Response{200, "", {}, ""};
}

Result<http::Response> Ping(Api& api, const http::Request& request) {
  return Health(api, request);
}

Result<http::Response> Version(Api& api, const http::Request&) {
  return http::Response{
      200, "application/json", {}, Json(Json::Object{{"version", api.options.version}}).Dump()};
}

Status Load(Api& api, const http::Request&, const WriterPtr& writer) {
  AnswerForAll(api, writer, [&api](const std::vector<FrontPart>& others) {
    int64_t load = api.num_in_flight;
    for (const FrontPart& other : others) load += other.num_in_flight;
    return http::Response{200, "application/json", {}, Format("{{\"server_load\":{}}}", load)};
  });
  return {};
}

Status Metrics(Api& api, const http::Request&, const WriterPtr& writer) {
  AnswerForAll(api, writer, [&api](const std::vector<FrontPart>& others) {
    std::vector<std::string> texts;
    for (const FrontPart& other : others) texts.push_back(other.metrics);
    return http::Response{200,
                          "text/plain; version=0.0.4; charset=utf-8",
                          {},
                          api.metrics.Serialize(api.session.engine(), std::move(texts))};
  });
  return {};
}

Status Eplb(Api& api, const http::Request&, const WriterPtr& writer) {
  return api.eplb.Ask(api.session.engine(), writer);
}

Result<http::Response> ResetPrefixCache(Api& api, const http::Request&) {
  CADRE_TRY(api.session.engine().ResetPrefixCache());
  return http::Response{200, "", {}, ""};
}

}  // namespace cadre::serve
