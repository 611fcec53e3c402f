#pragma once
// Counters, gauges and histograms for Prometheus. A registry is an object that is passed around: two servers
// in one process (tests, ranks as threads) never mix their numbers.
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace cadre {

using MetricLabels = std::map<std::string, std::string>;

/// A number that only rises. Any thread; about 15 ns.
class Counter {
 public:
  void Add(double amount = 1);
  /// Lifts the counter to `value` if it is lower: for totals that somebody else counts.
  void RaiseTo(double value);
  double value() const;

 private:
  friend class MetricsRegistry;
  explicit Counter(void* impl) : impl_(impl) {}
  void* impl_;  // the foreign counter, owned by the registry
};

/// A number that rises and falls. Any thread.
class Gauge {
 public:
  void Set(double value);
  void Add(double amount);
  double value() const;

 private:
  friend class MetricsRegistry;
  explicit Gauge(void* impl) : impl_(impl) {}
  void* impl_;
};

/// Counts observations by size. Any thread; about 40 ns.
class Histogram {
 public:
  void Observe(double value);
  /// Adds what somebody else has counted: one number a bucket (the one without bound included) and the sum of
  /// the values.
  void ObserveCounted(const std::vector<double>& bucket_counts, double sum);

 private:
  friend class MetricsRegistry;
  explicit Histogram(void* impl) : impl_(impl) {}
  void* impl_;
};

class MetricsRegistry {
 public:
  MetricsRegistry();
  ~MetricsRegistry();
  MetricsRegistry(const MetricsRegistry&) = delete;
  MetricsRegistry& operator=(const MetricsRegistry&) = delete;

  // The metric of that name and those labels, made when it is not there yet. The reference lives as long as
  // the registry. One name has one kind and one help text (checked). Names are printed as given: Prometheus
  // expects counters to end in _total.
  Counter& AddCounter(const std::string& name, const std::string& help, const MetricLabels& labels);
  Gauge& AddGauge(const std::string& name, const std::string& help, const MetricLabels& labels);
  /// `bounds`: upper bounds of the buckets, rising; a last one without bound is added.
  Histogram& AddHistogram(const std::string& name, const std::string& help, const MetricLabels& labels,
                          const std::vector<double>& bounds);

  /// All metrics in Prometheus' text format, version 0.0.4. Any thread.
  std::string Serialize() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cadre
