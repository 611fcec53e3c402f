#include "app/latency_picture.h"

#include <algorithm>
#include <cmath>

#include "app/statistics.h"
#include "app/svg.h"
#include "base/format.h"

namespace cadre::app {
namespace {

constexpr size_t kMaxRuns = 4;
constexpr const char* kStrong[] = {"#5f5a53", "#b73a28", "#1f6f8b", "#7a4f9a"};
constexpr const char* kPale[] = {"#cdc7be", "#eab5a8", "#a9d0dd", "#d3c0e2"};
constexpr size_t kBuckets = 240;  // of a strip
constexpr double kAxis = 62;      // px left of a panel

struct Gap {
  double at = 0, ms = 0;  // seconds after the load's begin; time since the token before
};

struct Series {
  std::string name;
  std::vector<Gap> gaps;
  std::vector<double> sorted;  // ms
  std::vector<double> marks;   // seconds at which long prompts were sent
  double duration = 0;
};

Series SeriesOf(const LoadRun& run) {
  Series series{.name = run.name, .gaps = {}, .sorted = {}, .marks = {}, .duration = run.load.duration};
  const bool mixed = std::ranges::any_of(run.load.records, [](const auto& r) { return !r.is_long; });
  for (const RequestRecord& record : run.load.records) {
    const double begin = Seconds(record.start - run.load.start);
    if (record.is_long) series.marks.push_back(begin);
    if (!record.success || (record.is_long && mixed)) continue;
    double at = begin + record.ttft;
    for (const double gap : record.itl) {
      at += gap;
      series.gaps.push_back({at, gap * 1e3});
      series.sorted.push_back(gap * 1e3);
    }
  }
  std::ranges::sort(series.sorted);
  return series;
}

// Milliseconds on a logarithmic scale.
struct Scale {
  double low = 0, high = 1;  // exponents of ten
  double top = 0, height = 0;

  static Scale Of(const std::vector<Series>& all) {
    double least = 1e300, most = 0;
    for (const Series& series : all) {
      if (series.sorted.empty()) continue;
      // What lies below the median is of no interest: tokens that came together.
      least = std::min(least, series.sorted[series.sorted.size() / 4]);
      most = std::max(most, series.sorted.back());
    }
    if (most <= 0) return {};
    Scale scale;
    scale.high = std::log10(most * 1.15);
    scale.low = std::min(std::log10(std::max(least, 1e-3)) - 0.15, scale.high - 0.5);
    return scale;
  }
  double At(double ms) const {
    const double share = (std::log10(std::max(ms, 1e-9)) - low) / (high - low);
    return top + height * (1 - std::clamp(share, 0.0, 1.0));
  }
};

void DrawTicks(Drawing& drawing, const Scale& scale, double x, double width) {
  for (int power = static_cast<int>(std::floor(scale.low)); power <= std::ceil(scale.high); ++power) {
    for (const int digit : {1, 2, 5}) {
      const double ms = digit * std::pow(10, power);
      if (std::log10(ms) < scale.low || std::log10(ms) > scale.high) continue;
      drawing.Line(x, scale.At(ms), x + width, scale.At(ms), "#ece8e2");
      // Between decades only where there is room.
      if (digit == 1 || scale.height / (scale.high - scale.low) > 90)
        drawing.Text(x - 7, scale.At(ms) + 4, Format("{}", ms),
                     {.size = 11, .anchor = "end", .fill = kFaint});
    }
  }
}

double TickSeconds(double duration) {
  for (const double step : {0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0})
    if (duration / step <= 14) return step;
  return duration / 10;
}

void DrawStrip(Drawing& drawing, const Series& series, size_t number, Scale scale, double duration) {
  const double x = kMargin + kAxis, width = kInner - kAxis;
  scale.top = drawing.y + 12;
  scale.height = 120;
  const double bottom = scale.top + scale.height;
  drawing.Text(x, drawing.y, series.name, {.size = 13, .bold = true});
  DrawTicks(drawing, scale, x, width);
  std::vector<std::vector<double>> buckets(kBuckets);
  for (const Gap& gap : series.gaps) {
    const auto place = static_cast<size_t>(gap.at / duration * kBuckets);
    buckets[std::min(place, kBuckets - 1)].push_back(gap.ms);
  }
  const double bar = width / kBuckets;
  for (size_t i = 0; i < kBuckets; ++i) {
    if (buckets[i].empty()) continue;
    const double left = x + static_cast<double>(i) * bar;
    const double median = scale.At(Median(buckets[i])),
                 most = scale.At(*std::ranges::max_element(buckets[i]));
    drawing.Rect(left, most, bar - 0.4, std::max(median - most, 1.0), kPale[number]);
    drawing.Rect(left, median - 1, bar - 0.4, 2.2, kStrong[number]);
  }
  for (const double mark : series.marks) {
    const double at = x + std::min(mark / duration, 1.0) * width;
    drawing.Line(at, bottom, at, bottom + 6, kInk);
  }
  drawing.Line(x, bottom, x + width, bottom, kFaint);
  const double step = TickSeconds(duration);
  for (double second = 0; second <= duration; second += step)
    drawing.Text(x + second / duration * width, bottom + 19, Format("{:.3g}", second),
                 {.size = 11, .anchor = "middle", .fill = kFaint});
  drawing.y = bottom + 50;
}

// Percentiles by their nines: 0, 90, 99, 99.9 are as far from each other.
void DrawPercentiles(Drawing& drawing, const std::vector<Series>& all, Scale scale) {
  size_t most = 1;
  for (const Series& series : all) most = std::max(most, series.sorted.size());
  const double nines = std::max(std::ceil(std::log10(static_cast<double>(most))), 2.0);
  const double x = kMargin + kAxis, width = kInner - kAxis - 150;
  scale.top = drawing.y + 36;
  scale.height = 250;
  const double bottom = scale.top + scale.height;
  drawing.Text(kMargin, drawing.y, "So many of the times are no longer", {.size = 15, .bold = true});
  drawing.Text(kMargin, drawing.y + 17,
               "percentiles of the times between tokens in ms; the right end of a line is the longest",
               {.fill = kFaint});
  DrawTicks(drawing, scale, x, width);
  for (int nine = 0; nine <= static_cast<int>(nines); ++nine) {
    const double at = x + nine / nines * width;
    drawing.Line(at, scale.top, at, bottom, "#ece8e2");
    const double percent = 100 - std::pow(10.0, 2 - nine);
    drawing.Text(at, bottom + 17, Format("{}%", PercentileName(std::round(percent * 1e6) / 1e6)),
                 {.size = 11, .anchor = "middle", .fill = kFaint});
  }
  drawing.Line(x, bottom, x + width, bottom, kFaint);
  double label = scale.top + 10;
  for (size_t i = 0; i < all.size(); ++i) {
    const auto& sorted = all[i].sorted;
    if (sorted.empty()) continue;
    const auto count = static_cast<double>(sorted.size());
    const double end = std::log10(count);
    std::vector<std::pair<double, double>> line;
    for (double nine = 0; nine < end; nine += 0.02) {
      const auto rank = std::min(static_cast<size_t>((1 - std::pow(10, -nine)) * count), sorted.size() - 1);
      line.emplace_back(x + nine / nines * width, scale.At(sorted[rank]));
    }
    line.emplace_back(x + end / nines * width, scale.At(sorted.back()));
    drawing.Polyline(line, kStrong[i], 2);
    drawing.Rect(x + width + 16, label - 8, 18, 4, kStrong[i]);
    drawing.Text(x + width + 40, label, all[i].name, {.size = 12, .bold = true});
    for (const auto& [name, ms] :
         {std::pair("median", Percentile(sorted, 50)), {"99%", Percentile(sorted, 99)}})
      drawing.Text(x + width + 40, label += 15, Format("{} {:.1f} ms", name, ms),
                   {.size = 11, .fill = kFaint});
    label += 24;
  }
  drawing.y = bottom + 24;
}

}  // namespace

std::string LatencySvg(const std::string& title, const std::string& subtitle,
                       const std::vector<LoadRun>& runs) {
  std::vector<Series> all;
  double duration = 1e-3;
  for (size_t i = 0; i < std::min(runs.size(), kMaxRuns); ++i) {
    all.push_back(SeriesOf(runs[i]));
    duration = std::max(duration, all.back().duration);
  }
  const bool mixed = std::ranges::any_of(all, [](const Series& s) { return !s.marks.empty(); });
  Drawing drawing(false);
  drawing.Text(kMargin, drawing.y + 8, title, {.size = 24, .bold = true});
  drawing.Text(kMargin, drawing.y + 32, subtitle, {.size = 13, .fill = kFaint});
  drawing.y += 76;
  drawing.Text(kMargin, drawing.y, "In the course of the load", {.size = 15, .bold = true});
  drawing.Text(
      kMargin, drawing.y + 17,
      Format("time between two tokens of one {} in ms: dark the median, pale up to the longest; below, "
             "seconds{}",
             mixed ? "chat" : "answer", mixed ? ", and a tick where a long prompt was sent" : ""),
      {.fill = kFaint});
  drawing.y += 48;
  const Scale scale = Scale::Of(all);
  for (size_t i = 0; i < all.size(); ++i) DrawStrip(drawing, all[i], i, scale, duration);
  drawing.y += 14;
  DrawPercentiles(drawing, all, scale);
  return drawing.Take();
}

}  // namespace cadre::app
