#include "route/probe.h"

#include "base/log.h"
#include "route/gather.h"

namespace cadre::route {
namespace {

constexpr size_t kMaxHealth = 1 << 16, kMaxPlaces = 16 << 20;

http::ClientRequest Question(const std::string& target, const Options& options) {
  http::ClientRequest request;
  request.target = target;
  request.idle_timeout = request.total_timeout =
      std::max(std::chrono::duration_cast<std::chrono::milliseconds>(options.health.timeout),
               std::chrono::milliseconds(1));
  if (!options.api_key.empty()) request.headers.emplace_back("Authorization", "Bearer " + options.api_key);
  return request;
}

// What is no answer to this question is no reason against the worker: it is then told to pull.
void HearPlaces(const std::shared_ptr<Worker>& worker, const Gathered& heard) {
  if (!heard.status || heard.code != 200) return worker->SetKvPlaces(nullptr);
  auto places = ParseKvPlaces(heard.body);
  if (!places) {
    LogDebug("{}: /kv_transfer: {}", worker->name(), places.error().message);
    return worker->SetKvPlaces(nullptr);
  }
  worker->SetKvPlaces(std::make_shared<const KvPlaces>(*std::move(places)));
}

}  // namespace

void ProbeWorker(const std::shared_ptr<Worker>& worker, const Options& options, std::function<void()> done) {
  const bool asks_places = options.pairs && options.kv_transfer_mode != KvTransferMode::kPull;
  auto heard_health = [worker, &options, asks_places, done](Gathered health) {
    if (!health.status || health.code / 100 != 2) {
      if (health.status) {
        worker->ProbeFailed(Format("its probe answers {}", health.code));
      } else if (health.status.error().code != Code::kCancelled) {
        worker->ProbeFailed(health.status.error().message);
      }
      return done();
    }
    const auto healthy = [worker, done](const Gathered& places) {
      HearPlaces(worker, places);
      worker->ProbeSucceeded();
      done();
    };
    if (asks_places &&
        worker->Send(Question("/kv_transfer", options),
                     std::make_shared<GatherSink>(kMaxPlaces, GatherSink::Beyond::kFails, healthy)))
      return;
    worker->ProbeSucceeded();
    done();
  };
  auto sink =
      std::make_shared<GatherSink>(kMaxHealth, GatherSink::Beyond::kIsDropped, std::move(heard_health));
  if (!worker->Send(Question(options.health.path, options), std::move(sink))) done();
}

}  // namespace cadre::route
