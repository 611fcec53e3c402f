#include "app/mix_report.h"

#include <algorithm>
#include <functional>

#include "app/statistics.h"

namespace cadre::app {
namespace {

constexpr size_t kNameWidth = 34, kColumnWidth = 18;

const std::vector<double>& Samples(const ServeMetrics& metrics, const char* key) {
  return std::ranges::find(metrics.measures, key, &Measure::key)->ms;
}

struct Column {
  ServeMetrics all, chats, longs;
};

class Table {
 public:
  explicit Table(const std::vector<LoadRun>& runs) {
    text_ = Format("{:<{}}", "", kNameWidth);
    for (const LoadRun& run : runs) {
      columns_.push_back({.all = Summarize(run.load, {}),
                          .chats = Summarize(OfKind(run.load, false), {}),
                          .longs = Summarize(OfKind(run.load, true), {})});
      text_ += Format("{:>{}}", run.name, kColumnWidth);
    }
    text_ += "\n";
  }

  void Row(const std::string& name, const std::function<std::string(const Column&)>& value) {
    text_ += Format("{:<{}}", name, kNameWidth);
    for (const Column& column : columns_) text_ += Format("{:>{}}", value(column), kColumnWidth);
    text_ += "\n";
  }
  void Times(const char* whose, const char* what, ServeMetrics Column::*part, const char* key) {
    for (const double percent : {50.0, 99.0, 100.0}) {
      const std::string name = percent < 100 ? Format("P{}", PercentileName(percent)) : "longest";
      Row(Format("{} {}, {} (ms)", whose, what, name), [&](const Column& column) {
        const auto& ms = Samples(column.*part, key);
        return ms.empty() ? std::string("-") : Format("{:.2f}", Percentile(ms, percent));
      });
    }
  }
  bool HasLong() const {
    return std::ranges::any_of(columns_, [](const Column& c) { return c.longs.completed > 0; });
  }
  std::string Take() { return std::move(text_); }

 private:
  std::vector<Column> columns_;
  std::string text_;
};

}  // namespace

LoadResult OfKind(const LoadResult& load, bool is_long) {
  LoadResult part{.records = {}, .start = load.start, .duration = load.duration};
  std::ranges::copy_if(load.records, std::back_inserter(part.records),
                       [&](const RequestRecord& record) { return record.is_long == is_long; });
  return part;
}

std::string MixTable(const std::vector<LoadRun>& runs) {
  Table table(runs);
  table.Times("chats:", "first token", &Column::chats, "ttft");
  table.Times("chats:", "between tokens", &Column::chats, "itl");
  if (table.HasLong()) {
    table.Times("long prompts:", "first token", &Column::longs, "ttft");
    table.Times("long prompts:", "between", &Column::longs, "itl");
  }
  table.Row("output tokens a second",
            [](const Column& c) { return Format("{:.2f}", c.all.output_throughput); });
  table.Row("all tokens a second",
            [](const Column& c) { return Format("{:.2f}", c.all.total_token_throughput); });
  table.Row("duration (s)", [](const Column& c) { return Format("{:.2f}", c.all.duration); });
  table.Row("failed requests", [](const Column& c) { return Format("{}", c.all.failed); });
  return table.Take();
}

Json MixResult(const LoadResult& load, const ReportOptions& options) {
  Json out = Json::Object();
  for (const bool is_long : {false, true}) {
    const LoadResult part = OfKind(load, is_long);
    out.Set(is_long ? "long_prompts" : "chats", ServeResult(Summarize(part, {}), part, options, false));
  }
  return out;
}

}  // namespace cadre::app
