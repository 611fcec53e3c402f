#include "route/router.h"

#include <algorithm>
#include <set>

#include "base/log.h"
#include "route/exchange.h"
#include "route/facts.h"
#include "route/fan_out.h"
#include "route/messages.h"

namespace cadre::route {
namespace {

constexpr auto kTendEvery = std::chrono::milliseconds(200);
constexpr auto kModelsTimeout = std::chrono::seconds(10);

using Writer = std::shared_ptr<http::ResponseWriter>;

http::Response JsonResponse(Json body, int status = 200) {
  http::Response response;
  response.status = status;
  response.body = body.Dump();
  return response;
}

const char* StateName(Breaker::State state) {
  switch (state) {
    case Breaker::State::kClosed:
      return "closed";
    case Breaker::State::kOpen:
      return "open";
    case Breaker::State::kHalfOpen:
      return "half_open";
  }
  return "";
}

// Ranks of one server are workers of their own for requests, but one for what concerns the whole server.
std::vector<std::shared_ptr<Worker>> OnePerServer(std::vector<std::shared_ptr<Worker>> workers) {
  std::set<std::string> seen;
  std::erase_if(workers, [&](const auto& worker) { return !seen.insert(worker->address().Url()).second; });
  return workers;
}

}  // namespace

class Router::Impl {
 public:
  Impl(Options options, Resolver resolver)
      : options_(std::move(options)), discovery_(options_, std::move(resolver)) {}
  ~Impl() { Stop(Now()); }

  Status Start();
  void Stop(TimePoint deadline);
  void Handle(http::Request request, const Writer& writer);

  const http::Server& server() const { return *server_; }
  const http::Server* metrics_server() const { return metrics_server_.get(); }
  const Fleet& fleet() const { return *fleet_; }
  const MetricsRegistry& metrics() const { return metrics_; }

 private:
  void Control();
  void Health(const http::Request& request, const Writer& writer);
  void Workers(const Writer& writer);
  void Models(const http::Request& request, const Writer& writer);
  void ForAll(http::Request request, const Writer& writer);
  void FinishSession(const http::Request& request, const Writer& writer);
  http::Response MetricsResponse() const;
  Question Asked(const http::Request& request, Duration timeout) const;

  const Options options_;
  MetricsRegistry metrics_;
  Timer timer_;
  std::unique_ptr<Fleet> fleet_;
  std::unique_ptr<Core> core_;
  Discovery discovery_;
  std::thread control_;
  std::mutex mutex_;
  std::condition_variable signal_;
  bool stopping_ = false, stopped_ = false;
  // The last to be made and the first to go: what its threads still held refers to all above.
  std::unique_ptr<http::Server> server_, metrics_server_;
};

Status Router::Impl::Start() {
  CADRE_ASSIGN(fleet_, Fleet::Create(options_, metrics_));
  const auto counter = [&](const char* name, const char* help, const MetricLabels& labels) -> Counter& {
    return metrics_.AddCounter(name, help, labels);
  };
  const char* decisions = "cadre_router_disagg_decision_total";
  const char* transfers = "cadre_router_kv_transfers_total";
  const char* of_transfers = "Requests to pairs, by whether decode was asked after prefill or with it.";
  const char* of_decisions = "Requests to pairs, by whether prefill had a part in them.";
  core_ = std::unique_ptr<Core>(new Core{
      .options = options_,
      .fleet = *fleet_,
      .timer = timer_,
      .metrics = metrics_,
      .retries = counter("cadre_router_retries_total", "Attempts after the first one of a request.", {}),
      .no_worker = counter("cadre_router_no_worker_total", "Requests that found no healthy worker.", {}),
      .pair_decisions = counter(decisions, of_decisions, {{"decision_type", "prefill-decode"}}),
      .alone_decisions = counter(decisions, of_decisions, {{"decision_type", "decode-only"}}),
      .missing_params =
          counter("cadre_router_missing_kv_transfer_params_total",
                  "Prefill answers without kv_transfer_params: decode computed the prompt.", {}),
      .pulled = counter(transfers, of_transfers, {{"mode", "pull"}}),
      .pushed = counter(transfers, of_transfers, {{"mode", "push"}}),
      .push_recomputed =
          counter("cadre_router_push_recomputed_total",
                  "Pushed requests whose prefill failed and that decode was asked for alone.", {}),
      .predicted_tokens = counter("cadre_router_predicted_cached_tokens_total",
                                  "Tokens that workers were expected to have in their caches.", {}),
      .cached_tokens = counter("cadre_router_cached_tokens_total",
                               "What they then said they had, of the same requests.", {}),
      .prediction_error = metrics_.AddHistogram("cadre_router_prediction_error_blocks",
                                                "By how many blocks of tokens the expectation was wrong.", {},
                                                {0, 1, 2, 4, 8, 16, 64, 256})});
  http::ServerOptions http = options_.http;
  http.error_response = [](int status, const std::string& message) { return ErrorResponse(status, message); };
  CADRE_ASSIGN(server_, http::Server::Start(http, [this](http::Request request, Writer writer) {
                 Handle(std::move(request), writer);
               }));
  if (options_.metrics_port >= 0) {
    http::ServerOptions of_metrics;
    of_metrics.host = options_.metrics_host;
    of_metrics.port = options_.metrics_port;
    CADRE_ASSIGN(metrics_server_,
                 http::Server::Start(of_metrics, [this](http::Request, const Writer& writer) {
                   writer->Send(MetricsResponse());
                 }));
  }
  control_ = std::thread([this] { Control(); });
  return {};
}

// Who is there, and who may go. Blocks for files and names.
void Router::Impl::Control() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    if (const auto wanted = discovery_.Poll(Now())) fleet_->Apply(*wanted, *server_, timer_);
    fleet_->Tend(*server_, timer_);
    lock.lock();
    signal_.wait_for(lock, kTendEvery, [this] { return stopping_; });
  }
}

void Router::Impl::Stop(TimePoint deadline) {
  if (std::exchange(stopped_, true)) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    signal_.notify_all();
  }
  if (control_.joinable()) control_.join();
  if (metrics_server_) metrics_server_->Stop(Now());
  if (server_) server_->Stop(deadline);
  timer_.Stop();
  if (fleet_) fleet_->Disconnect();
}

void Router::Impl::Handle(http::Request request, const Writer& writer) {
  const bool is_get = request.method == "GET" || request.method == "HEAD";
  const std::string& path = request.path;
  if (is_get && (path == "/health" || path == "/healthcheck" || path == "/readiness"))
    return Health(request, writer);
  if (is_get && path == "/metrics") return writer->Send(MetricsResponse());
  if (is_get && path == "/workers") return Workers(writer);
  if (is_get && path == "/v1/models") return Models(request, writer);
  if (!is_get && path == "/finish_session") return FinishSession(request, writer);
  if (IsForAll(path)) return ForAll(std::move(request), writer);
  Exchange::Start(*core_, std::move(request), writer);
}

void Router::Impl::Health(const http::Request& request, const Writer& writer) {
  const TimePoint now = Now();
  size_t usable[3] = {}, known[3] = {};
  for (const auto& worker : fleet_->All()) {
    const auto role = static_cast<size_t>(worker->address().role);
    ++known[role];
    if (worker->Usable(now)) ++usable[role];
  }
  const auto at = [](Role role) { return static_cast<size_t>(role); };
  const bool pairs = fleet_->pairs();
  const bool some =
      pairs ? usable[at(Role::kPrefill)] > 0 && usable[at(Role::kDecode)] > 0 : usable[at(Role::kPlain)] > 0;
  const bool all = some && std::ranges::equal(usable, known);
  Json body = Json::Object{{"status", all ? "ok" : some ? "degraded" : "unavailable"}};
  for (const Role role : {Role::kPlain, Role::kPrefill, Role::kDecode}) {
    if (pairs == (role == Role::kPlain)) continue;
    body.Set(role == Role::kPlain ? "workers" : Format("{}_instances", RoleName(role)),
             static_cast<int64_t>(known[at(role)]));
    body.Set(Format("healthy_{}", RoleName(role)), static_cast<int64_t>(usable[at(role)]));
  }
  const bool good = request.QueryValue("require") == "all" ? all : some;
  writer->Send(JsonResponse(std::move(body), good ? 200 : 503));
}

void Router::Impl::Workers(const Writer& writer) {
  Json::Array list;
  for (const auto& worker : fleet_->All()) {
    list.push_back(Json::Object{{"url", worker->name()},
                                {"role", RoleName(worker->address().role)},
                                {"healthy", worker->healthy()},
                                {"circuit_breaker", StateName(worker->breaker_state(Now()))},
                                {"in_flight", worker->in_flight()}});
  }
  writer->Send(JsonResponse(Json::Object{{"workers", std::move(list)}}));
}

Question Router::Impl::Asked(const http::Request& request, Duration timeout) const {
  Question asked;
  asked.method = request.method == "HEAD" ? "GET" : request.method;
  asked.target = TargetOf(request);
  asked.headers = ForwardedHeaders(request.headers);
  if (!options_.api_key.empty() && request.Header("Authorization") == nullptr)
    asked.headers.emplace_back("Authorization", "Bearer " + options_.api_key);
  asked.timeout = timeout;
  return asked;
}

void Router::Impl::Models(const http::Request& request, const Writer& writer) {
  auto workers = OnePerServer(fleet_->pairs() ? fleet_->Of(Role::kDecode) : fleet_->All());
  std::erase_if(workers, [](const auto& worker) { return !worker->Usable(Now()); });
  if (workers.empty())
    return writer->Send(ErrorResponse(503, "no worker is healthy now; GET /workers shows why"));
  AskAll(
      workers, [&](size_t) { return Asked(request, kModelsTimeout); },
      [writer](const std::vector<WorkerAnswer>& answers) { writer->Send(MergedModels(answers)); });
}

// To all, healthy or not: one that misses new weights must be seen. Goes on when the client leaves, so that
// all workers have heard the same.
void Router::Impl::ForAll(http::Request request, const Writer& writer) {
  const auto workers = OnePerServer(fleet_->All());
  if (workers.empty()) return writer->Send(ErrorResponse(503, "no worker is known; GET /workers lists them"));
  std::vector<std::string> bodies;
  for (size_t i = 0; i < workers.size(); ++i) {
    auto body = request.path == "/init_broadcaster" ? BroadcasterBody(request.body, i, workers.size())
                                                    : Result<std::string>(request.body);
    if (!body) return writer->Send(ErrorResponse(400, body.error().message));
    bodies.push_back(*std::move(body));
  }
  LogInfo("{} {} goes to {} workers", request.method, request.path, workers.size());
  const auto question = [&](size_t worker) {
    Question asked = Asked(request, options_.request_timeout);
    asked.body = std::move(bodies[worker]);
    return asked;
  };
  AskAll(workers, question, [writer, path = request.path](const std::vector<WorkerAnswer>& answers) {
    for (const WorkerAnswer& answer : answers) {
      if (answer.status / 100 == 2) continue;
      LogWarning("{}: {} {}", path, answer.worker->name(),
                 answer.status == 0 ? answer.failure : Format("answered {}", answer.status));
    }
    writer->Send(GatheredResponse(answers));
  });
}

void Router::Impl::FinishSession(const http::Request& request, const Writer& writer) {
  const std::string* header = request.Header("X-Session-ID");
  const auto body = Json::Parse(request.body);
  const Json* named = body ? body->Find("session_id") : nullptr;
  if (header == nullptr && (named == nullptr || !named->is_string())) {
    return writer->Send(ErrorResponse(400, "the session is named by X-Session-ID or {\"session_id\": ...}"));
  }
  const bool known = fleet_->FinishSession(KeyOf(header != nullptr ? *header : named->AsString()));
  writer->Send(JsonResponse(Json::Object{{"status", "ok"}, {"known", known}}));
}

http::Response Router::Impl::MetricsResponse() const {
  http::Response response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = metrics_.Serialize();
  return response;
}

Result<std::unique_ptr<Router>> Router::Start(Options options, Resolver resolver) {
  auto impl = std::make_unique<Impl>(std::move(options), std::move(resolver));
  CADRE_TRY(impl->Start());
  return std::unique_ptr<Router>(new Router(std::move(impl)));
}

Router::Router(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Router::~Router() = default;
int Router::port() const {
  return impl_->server().port();
}
std::string Router::address() const {
  return impl_->server().address();
}
std::string Router::metrics_address() const {
  return impl_->metrics_server() != nullptr ? impl_->metrics_server()->address() : "";
}
int Router::num_healthy() const {
  return static_cast<int>(
      std::ranges::count_if(impl_->fleet().All(), [](const auto& w) { return w->healthy(); }));
}
std::string Router::Metrics() const {
  return impl_->metrics().Serialize();
}
void Router::Stop(TimePoint deadline) {
  impl_->Stop(deadline);
}

}  // namespace cadre::route
