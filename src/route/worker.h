#pragma once
// A server that requests are sent to: its connections, its load, whether it may be chosen, its numbers.
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/metrics.h"
#include "http/client.h"
#include "route/breaker.h"
#include "route/digest_feed.h"
#include "route/kv_places.h"

namespace cadre::route {

class Worker {
 public:
  Worker(WorkerAddress address, const Options& options, MetricsRegistry& metrics);

  const WorkerAddress& address() const { return address_; }
  const std::string& name() const { return name_; }
  int64_t in_flight() const { return in_flight_.load(std::memory_order_relaxed); }
  bool healthy() const;
  bool Usable(TimePoint now) const;  ///< healthy, connected, not leaving, and its breaker admits a request
  Breaker::State breaker_state(TimePoint now) const;
  /// Null if there are no connections (yet, or any more); then the sink hears nothing.
  std::shared_ptr<http::ClientCall> Send(http::ClientRequest request,
                                         std::shared_ptr<http::ResponseSink> sink);

  /// Resolves the host and makes the client on the server's threads; again for a name (not an address) whose
  /// worker is unhealthy, at most every few seconds. Blocks for the resolver.
  void Connect(const http::Server& server, const Options& options);
  /// Before the server goes.
  void Disconnect();
  void Leave() { leaving_ = true; }  ///< gets no further requests
  bool leaving() const { return leaving_; }

  void ProbeSucceeded();
  /// Of probes and of connections that could not be made or were lost.
  void ProbeFailed(const std::string& why);
  bool ever_healthy() const;
  bool TakeProbe() { return !probing_.exchange(true); }  ///< one probe at a time
  void EndProbe() { probing_ = false; }

  /// How its KV is reached; null: it does not say.
  void SetKvPlaces(std::shared_ptr<const KvPlaces> places);
  std::shared_ptr<const KvPlaces> kv_places() const;
  size_t NextTurn() { return turns_.fetch_add(1, std::memory_order_relaxed); }  ///< 0, 1, ...
  /// Null where nobody wants to know.
  DigestFeed* digests() const { return digests_.get(); }

  // Of requests.
  bool Begin(TimePoint now);  ///< true: a trial of the breaker
  void TrialGone();
  void Succeeded(double first_byte_s);
  void Failed(const std::string& why);
  void End(double seconds, const char* outcome);

 private:
  const WorkerAddress address_;
  const std::string name_;
  std::atomic<int64_t> in_flight_{0};
  std::atomic<bool> leaving_{false}, probing_{false};
  std::atomic<size_t> turns_{0};
  const std::shared_ptr<DigestFeed> digests_;
  mutable std::mutex mutex_;
  HealthState health_;  // guarded by mutex_, as all below
  Breaker breaker_;
  std::unique_ptr<http::Client> client_;
  std::vector<std::unique_ptr<http::Client>> retired_;  // calls may still run there
  TimePoint resolved_at_ = TimePoint::min();
  std::string last_failure_;
  std::shared_ptr<const KvPlaces> kv_places_;

  MetricsRegistry& metrics_;
  const MetricLabels labels_;
  Gauge &up_, &running_;
  Histogram &first_byte_, &duration_;
};

/// One request's place at a worker: counts it as running, and says how it ended.
class Lease {
 public:
  Lease() = default;
  explicit Lease(std::shared_ptr<Worker> worker)
      : worker_(std::move(worker)), start_(Now()), trial_(worker_->Begin(start_)) {}
  Lease(Lease&& other) noexcept { *this = std::move(other); }
  Lease& operator=(Lease&& other) noexcept {
    Drop("cancelled");
    worker_ = std::move(other.worker_);
    other.worker_ = nullptr;
    start_ = other.start_;
    trial_ = other.trial_;
    heard_ = other.heard_;
    return *this;
  }
  ~Lease() { Drop("cancelled"); }

  explicit operator bool() const { return worker_ != nullptr; }
  Worker& operator*() const { return *worker_; }
  const std::shared_ptr<Worker>& shared() const { return worker_; }
  Worker* operator->() const { return worker_.get(); }

  /// The first byte of a good answer.
  void Succeeded() {
    if (std::exchange(heard_, true)) return;
    trial_ = false;
    worker_->Succeeded(SecondsSince(start_));
  }
  void Failed(const std::string& why) {
    trial_ = false;
    worker_->Failed(why);
    Drop("failed");
  }
  void Done(const char* outcome) { Drop(outcome); }

 private:
  void Drop(const char* outcome) {
    if (!worker_) return;
    if (trial_) worker_->TrialGone();
    worker_->End(SecondsSince(start_), outcome);
    worker_ = nullptr;
  }

  std::shared_ptr<Worker> worker_;
  TimePoint start_ = {};
  bool trial_ = false, heard_ = false;
};

}  // namespace cadre::route
