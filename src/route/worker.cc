#include "route/worker.h"

#include <arpa/inet.h>

#include "base/log.h"

namespace cadre::route {
namespace {

constexpr auto kResolveAgain = std::chrono::seconds(10);

const std::vector<double> kFirstByteBounds = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5,
                                              0.75,  1,     2.5,  5,    7.5,  10,   20,   40,  80};
const std::vector<double> kDurationBounds = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10, 15,
                                             20,  30,  40,  50, 60,  120, 240, 480, 960};

bool IsAddress(const std::string& host) {
  in6_addr ignored;
  return inet_pton(AF_INET, host.c_str(), &ignored) == 1 || inet_pton(AF_INET6, host.c_str(), &ignored) == 1;
}

}  // namespace

Worker::Worker(WorkerAddress address, const Options& options, MetricsRegistry& metrics)
    : address_(std::move(address)),
      name_(address_.Name()),
      digests_(options.tokenize ? std::make_shared<DigestFeed>(address_.dp_rank, options) : nullptr),
      health_(options.health),
      breaker_(options.breaker),
      metrics_(metrics),
      labels_{{"worker", name_}, {"role", RoleName(address_.role)}},
      up_(metrics.AddGauge("cadre_router_worker_up", "1 if the worker may be chosen.", labels_)),
      running_(
          metrics.AddGauge("cadre_router_worker_in_flight", "Requests that run at the worker.", labels_)),
      first_byte_(metrics.AddHistogram("cadre_router_worker_first_byte_seconds",
                                       "From the choice of the worker to its first byte of an answer.",
                                       labels_, kFirstByteBounds)),
      duration_(metrics.AddHistogram("cadre_router_worker_request_seconds",
                                     "From the choice of the worker to the end of its answer.", labels_,
                                     kDurationBounds)) {
  up_.Set(0);
}

bool Worker::healthy() const {
  const std::lock_guard lock(mutex_);
  return health_.healthy();
}
bool Worker::ever_healthy() const {
  const std::lock_guard lock(mutex_);
  return health_.ever_healthy();
}
bool Worker::Usable(TimePoint now) const {
  if (leaving_) return false;
  const std::lock_guard lock(mutex_);
  return client_ != nullptr && health_.healthy() && breaker_.Admits(now);
}
Breaker::State Worker::breaker_state(TimePoint now) const {
  const std::lock_guard lock(mutex_);
  return breaker_.state(now);
}
// Under the lock: no other thread may be left with the last reference to a client, see Client::Create.
std::shared_ptr<http::ClientCall> Worker::Send(http::ClientRequest request,
                                               std::shared_ptr<http::ResponseSink> sink) {
  const std::lock_guard lock(mutex_);
  return client_ ? client_->Send(std::move(request), std::move(sink)) : nullptr;
}

void Worker::Connect(const http::Server& server, const Options& options) {
  {
    const std::lock_guard lock(mutex_);
    const bool due = Now() >= resolved_at_ + kResolveAgain || resolved_at_ == TimePoint::min();
    if (!due || (client_ && (health_.healthy() || IsAddress(address_.host)))) return;
    resolved_at_ = Now();
  }
  http::ClientOptions to;
  to.host = address_.host;
  to.port = address_.port;
  to.tls = address_.tls;
  to.connect_timeout = std::chrono::duration_cast<std::chrono::milliseconds>(options.connect_timeout);
  auto made = http::Client::Create(to, &server);
  if (!made) return ProbeFailed(made.error().message);
  std::vector<std::unique_ptr<http::Client>> ended;  // outside the lock: their calls' ends may want it
  const std::lock_guard lock(mutex_);
  if (client_) retired_.push_back(std::move(client_));
  client_ = *std::move(made);
  if (in_flight_ == 0) ended.swap(retired_);
}

void Worker::Disconnect() {
  std::vector<std::unique_ptr<http::Client>> all;
  {
    const std::lock_guard lock(mutex_);
    all.swap(retired_);
    if (client_) all.push_back(std::move(client_));
  }
  all.clear();
  up_.Set(0);
}

void Worker::ProbeSucceeded() {
  const std::lock_guard lock(mutex_);
  last_failure_.clear();
  if (!health_.Success()) return;
  up_.Set(1);
  LogInfo("{} {} is healthy", RoleName(address_.role), name_);
}

void Worker::SetKvPlaces(std::shared_ptr<const KvPlaces> places) {
  const std::lock_guard lock(mutex_);
  const bool pushes = places && places->push;
  if (pushes != (kv_places_ && kv_places_->push))
    LogInfo("{} {} {} be asked at the same time as its pair", RoleName(address_.role), name_,
            pushes ? "can" : "cannot");
  kv_places_ = std::move(places);
}

std::shared_ptr<const KvPlaces> Worker::kv_places() const {
  const std::lock_guard lock(mutex_);
  return kv_places_;
}

void Worker::ProbeFailed(const std::string& why) {
  const std::lock_guard lock(mutex_);
  if (health_.Failure()) {
    up_.Set(0);
    LogWarning("{} {} is unhealthy and gets no requests until it answers its probe: {}",
               RoleName(address_.role), name_, why);
  } else if (!health_.ever_healthy() && why != last_failure_) {
    LogInfo("{} {} does not answer yet: {}", RoleName(address_.role), name_, why);
  }
  last_failure_ = why;
}

bool Worker::Begin(TimePoint now) {
  in_flight_.fetch_add(1, std::memory_order_relaxed);
  running_.Add(1);
  const std::lock_guard lock(mutex_);
  return breaker_.Begin(now);
}

void Worker::TrialGone() {
  const std::lock_guard lock(mutex_);
  breaker_.TrialGone();
}

void Worker::Succeeded(double first_byte_s) {
  first_byte_.Observe(first_byte_s);
  const std::lock_guard lock(mutex_);
  if (breaker_.Success(Now())) LogInfo("{} {}: requests work again", RoleName(address_.role), name_);
}

void Worker::Failed(const std::string& why) {
  const std::lock_guard lock(mutex_);
  if (breaker_.Failure(Now())) {
    LogWarning("{} {} fails its requests and gets none for a while: {}", RoleName(address_.role), name_, why);
  }
}

void Worker::End(double seconds, const char* outcome) {
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  running_.Add(-1);
  duration_.Observe(seconds);
  MetricLabels labels = labels_;
  labels["outcome"] = outcome;
  metrics_
      .AddCounter("cadre_router_worker_requests_total", "Requests sent to the worker, by how they ended.",
                  labels)
      .Add();
}

}  // namespace cadre::route
