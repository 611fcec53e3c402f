#include "base/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <mutex>
#include <unordered_map>

#include "base/check.h"

namespace cadre {
namespace {

prometheus::Counter& AsCounter(void* impl) {
  return *static_cast<prometheus::Counter*>(impl);
}
prometheus::Gauge& AsGauge(void* impl) {
  return *static_cast<prometheus::Gauge*>(impl);
}

}  // namespace

void Counter::Add(double amount) {
  AsCounter(impl_).Increment(amount);
}
void Counter::RaiseTo(double to) {
  if (const double missing = to - value(); missing > 0) AsCounter(impl_).Increment(missing);
}
double Counter::value() const {
  return AsCounter(impl_).Value();
}
void Gauge::Set(double to) {
  AsGauge(impl_).Set(to);
}
void Gauge::Add(double amount) {
  AsGauge(impl_).Increment(amount);
}
double Gauge::value() const {
  return AsGauge(impl_).Value();
}
void Histogram::Observe(double observed) {
  static_cast<prometheus::Histogram*>(impl_)->Observe(observed);
}

void Histogram::ObserveCounted(const std::vector<double>& bucket_counts, double sum) {
  static_cast<prometheus::Histogram*>(impl_)->ObserveMultiple(bucket_counts, sum);
}

struct MetricsRegistry::Impl {
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Merge};
  std::mutex mutex;  // guards what is below
  // By the address of the foreign metric, so that asking again for the same one gives the same reference.
  std::unordered_map<void*, std::unique_ptr<Counter>> counters;
  std::unordered_map<void*, std::unique_ptr<Gauge>> gauges;
  std::unordered_map<void*, std::unique_ptr<Histogram>> histograms;
};

MetricsRegistry::MetricsRegistry() : impl_(std::make_unique<Impl>()) {}
MetricsRegistry::~MetricsRegistry() = default;

Counter& MetricsRegistry::AddCounter(const std::string& name, const std::string& help,
                                     const MetricLabels& labels) {
  auto& family = prometheus::BuildCounter().Name(name).Help(help).Register(impl_->registry);
  auto* foreign = &family.Add(labels);
  const std::lock_guard lock(impl_->mutex);
  auto& mine = impl_->counters[foreign];
  if (!mine) mine.reset(new Counter(foreign));
  return *mine;
}

Gauge& MetricsRegistry::AddGauge(const std::string& name, const std::string& help,
                                 const MetricLabels& labels) {
  auto& family = prometheus::BuildGauge().Name(name).Help(help).Register(impl_->registry);
  auto* foreign = &family.Add(labels);
  const std::lock_guard lock(impl_->mutex);
  auto& mine = impl_->gauges[foreign];
  if (!mine) mine.reset(new Gauge(foreign));
  return *mine;
}

Histogram& MetricsRegistry::AddHistogram(const std::string& name, const std::string& help,
                                         const MetricLabels& labels, const std::vector<double>& bounds) {
  for (size_t i = 1; i < bounds.size(); ++i) CADRE_CHECK(bounds[i - 1] < bounds[i]);
  auto& family = prometheus::BuildHistogram().Name(name).Help(help).Register(impl_->registry);
  auto* foreign = &family.Add(labels, bounds);
  const std::lock_guard lock(impl_->mutex);
  auto& mine = impl_->histograms[foreign];
  if (!mine) mine.reset(new Histogram(foreign));
  return *mine;
}

std::string MetricsRegistry::Serialize() const {
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace cadre
