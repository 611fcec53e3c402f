#include "serve/server.h"

#include <malloc.h>

#include <atomic>
#include <ctime>
#include <mutex>

#include "base/caught.h"
#include "base/log.h"
#include "base/random.h"
#include "serve/errors.h"
#include "serve/gate.h"
#include "serve/routes.h"
#include "serve/worker_pool.h"

namespace cadre::serve {
namespace {

// Parsing and encoding a body of this size takes about a millisecond; longer ones leave the io thread.
constexpr size_t kInlineBodyBytes = 8 << 10;
constexpr size_t kMaxWaitingWork = 1024;
// What has ended in the engine gets this long to reach its clients.
constexpr auto kLastAnswers = std::chrono::seconds(2);

// vLLM takes no other type. Left out is fine: nobody who sends a body without one means a form.
Status CheckContentType(const http::Request& request) {
  const std::string* type = request.Header("Content-Type");
  if (type == nullptr) return {};
  std::string_view media = std::string_view(*type).substr(0, type->find(';'));
  while (media.ends_with(' ') || media.ends_with('\t')) media.remove_suffix(1);
  if (media.empty() || http::EqualNoCase(media, "application/json")) return {};
  return FailParam(Code::kInvalidArgument, "Content-Type",
                   "Unsupported Media Type: Only 'application/json' is allowed, found '{}'; send the header "
                   "'Content-Type: application/json'",
                   Excerpt(media));
}

// Errors that the HTTP layer finds. A body past the limit is a bad request like any other.
http::Response TransportError(int status, const std::string& message) {
  if (status == 413) return ErrorResponse(400, message, "body");
  return ErrorResponse(status, message);
}

// glibc lets both thresholds grow with what is freed, up to 32 and 64 MiB, and malloc_trim does not reach the
// free end of a thread's arena: after a few large bodies every thread would keep tens of MiB. Fixed ones give
// back what is large at once; what steps and requests usually need (below 4 MiB) still stays mapped.
void KeepLittleFreeMemory() {
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  mallopt(M_TRIM_THRESHOLD, 8 << 20);
}

}  // namespace

class ApiServer::Impl {
 public:
  Impl(ServeOptions options, MetricsRegistry& registry)
      : options_(std::move(options)),
        registry_(registry),
        workers_(std::max(1, options_.num_workers), kMaxWaitingWork) {}

  Status Open() {
    http::ServerOptions http_options = options_.http;
    http_options.error_response = TransportError;
    CADRE_ASSIGN(
        http_, http::Server::Start(std::move(http_options), [this](http::Request request, WriterPtr writer) {
          Handle(std::move(request), std::move(writer));
        }));
    return {};
  }

  void SetStarting(const std::string& why) {
    const std::lock_guard lock(starting_mutex_);
    starting_ = why;
  }

  void Serve(const session::Session& session) {
    ready_ = std::make_unique<Ready>(options_, session, registry_);
    api_.store(&ready_->api, std::memory_order_release);
  }

  FrontPart Part() const {
    const Api* api = api_.load(std::memory_order_acquire);
    if (api == nullptr) return {};
    return {.num_in_flight = api->num_in_flight, .metrics = registry_.Serialize()};
  }

  void Stop(TimePoint deadline) {
    if (!http_ || stopped_.exchange(true)) return;
    if (Api* api = api_.load(std::memory_order_acquire); api != nullptr) {
      api->draining = true;
      api->session.engine().Drain(deadline);
    }
    http_->Stop(std::max(Now(), std::min(deadline, Now() + kLastAnswers)) + kLastAnswers);
    workers_.Stop();
    if (Api* api = api_.load(std::memory_order_acquire); api != nullptr) {
      api->eplb.Stop();
      api->liveness.Stop();
    }
  }

  http::Server& http() { return *http_; }

 private:
  // What the handlers need once there is a model.
  struct Ready {
    Ready(const ServeOptions& options, const session::Session& session, MetricsRegistry& registry)
        : metrics(registry, options.served_model_names.front(), session.engine()),
          api{.options = options,
              .session = session,
              .metrics = metrics,
              .started_at = time(nullptr),
              .num_in_flight = 0,
              .draining = false} {}
    ServeMetrics metrics;
    Api api;
  };

  void Handle(http::Request request, WriterPtr writer);
  static void Run(Api& api, const Route& route, const http::Request& request, const WriterPtr& writer);
  static void RunUnguarded(Api& api, const Route& route, const http::Request& request,
                           const WriterPtr& writer);

  std::string Starting() {
    const std::lock_guard lock(starting_mutex_);
    return Format("not ready: {}; try again soon", starting_);
  }

  const ServeOptions options_;
  std::mutex starting_mutex_;
  std::string starting_ = "the model is being loaded";
  MetricsRegistry& registry_;
  std::unique_ptr<Ready> ready_;
  std::atomic<Api*> api_ = nullptr;  // into ready_; null until Serve
  WorkerPool workers_;
  std::unique_ptr<http::Server> http_;
  std::atomic<bool> stopped_ = false;
};

void ApiServer::Impl::Handle(http::Request request, WriterPtr writer) {
  if (!options_.root_path.empty() && request.path.starts_with(options_.root_path)) {
    request.path.erase(0, options_.root_path.size());
    if (request.path.empty()) request.path.push_back('/');
  }
  http::Headers extra = CorsHeaders(options_.cors, request);
  const std::string* given = request.Header("X-Request-Id");
  if (options_.enable_request_id_headers || (options_.echo_request_ids && given != nullptr)) {
    std::string id = given != nullptr ? *given : Format("{:016x}{:016x}", EntropySeed(), EntropySeed());
    if (given == nullptr) request.headers.emplace_back("X-Request-Id", id);
    extra.emplace_back("X-Request-Id", std::move(id));
  }
  if (request.method == "OPTIONS" && request.Header("Access-Control-Request-Method") != nullptr &&
      !options_.cors.origins.empty()) {
    return writer->Send(Preflight(options_.cors, request));
  }
  if (!extra.empty()) writer = WithHeaders(std::move(writer), std::move(extra));
  if (!IsAuthorized(options_, request)) {
    return writer->Send(ErrorResponse(
        Error{Code::kUnauthenticated, "Unauthorized: send a valid key as 'Authorization: Bearer KEY'", ""}));
  }
  const auto route = FindRoute(request.method, request.path, options_.dev_mode);
  if (!route.has_value()) {
    if (route.error().param != "method") return writer->Send(ErrorResponse(route.error()));
    http::Response response =
        ErrorResponse(405, Format("Method Not Allowed: {} answers to {}, not to {}", Excerpt(request.path),
                                  route.error().message, Excerpt(request.method)));
    response.headers.emplace_back("Allow", route.error().message);
    return writer->Send(std::move(response));
  }
  Api* const api = api_.load(std::memory_order_acquire);
  if (api == nullptr) {
    return writer->Send(ErrorResponse(Error{Code::kUnavailable, Starting(), ""}));
  }
  if (!(*route)->is_built()) {
    return writer->Send(ErrorResponse(
        501, Format("{} {} of vLLM is not built yet in Cadre", request.method, (*route)->path)));
  }
  if ((*route)->takes_json) {
    if (const Status status = CheckContentType(request); !status.has_value())
      return writer->Send(ErrorResponse(status.error()));
  }
  if (request.body.size() <= kInlineBodyBytes) return Run(*api, **route, request, writer);
  const Route& which = **route;
  const bool taken = workers_.Post([api, &which, request = std::move(request), writer]() mutable {
    Run(*api, which, request, writer);
    const size_t body_bytes = request.body.size();
    request = {};
    if (body_bytes >= http::kTrimBodyBytes) malloc_trim(0);
  });
  if (!taken)
    writer->Send(ErrorResponse(
        Error{Code::kResourceExhausted, "too many large requests are waiting; try again later", ""}));
}

// What goes wrong in a handler ends its request and nothing else.
void ApiServer::Impl::Run(Api& api, const Route& route, const http::Request& request,
                          const WriterPtr& writer) {
  try {
    RunUnguarded(api, route, request, writer);
  } catch (...) {
    const Error error = CaughtError();
    LogError("{} {}: {}", request.method, route.path, error.message);
    writer->Send(ErrorResponse(error));
  }
}

void ApiServer::Impl::RunUnguarded(Api& api, const Route& route, const http::Request& request,
                                   const WriterPtr& writer) {
  if (route.sync != nullptr) {
    auto response = route.sync(api, request);
    return writer->Send(response.has_value() ? std::move(*response) : ErrorResponse(response.error()));
  }
  if (api.draining && !route.always) {
    return writer->Send(ErrorResponse(Error{Code::kUnavailable, "the server is shutting down", ""}));
  }
  if (const Status status = route.async(api, request, writer); !status.has_value()) {
    LogDebug("{} {}: {}", request.method, request.path, status.error().message);
    writer->Send(ErrorResponse(status.error()));
  }
}

Result<std::unique_ptr<ApiServer>> ApiServer::Open(ServeOptions options, MetricsRegistry& registry) {
  if (options.served_model_names.empty()) {
    return FailParam(Code::kInvalidArgument, "--served-model-name", "the model needs at least one name");
  }
  KeepLittleFreeMemory();
  auto impl = std::make_unique<Impl>(std::move(options), registry);
  CADRE_TRY(impl->Open());
  return std::unique_ptr<ApiServer>(new ApiServer(std::move(impl)));
}

ApiServer::ApiServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ApiServer::~ApiServer() {
  Stop(Now());
}
int ApiServer::port() const {
  return impl_->http().port();
}
std::string ApiServer::address() const {
  return impl_->http().address();
}
void ApiServer::SetStarting(const std::string& why) {
  impl_->SetStarting(why);
}
void ApiServer::Serve(const session::Session& session) {
  impl_->Serve(session);
}
FrontPart ApiServer::Part() const {
  return impl_->Part();
}
void ApiServer::Stop(TimePoint deadline) {
  impl_->Stop(deadline);
}

}  // namespace cadre::serve
