#include "app/load_text.h"

#include <algorithm>
#include <cmath>

namespace cadre::app {
namespace {

constexpr int32_t kMaxRows = 64;   // layers drawn; more are put together
constexpr int32_t kMaxRanks = 64;  // bars
constexpr const char* kBlocks[] = {"·", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
// From the 256 of xterm: cold to hot, each to be seen on black and on white.
constexpr int kColors[] = {244, 67, 73, 108, 143, 179, 214, 208, 196};

class Page {
 public:
  explicit Page(const LoadTextOptions& options) : options_(options) {}

  void Cell(int level, int32_t width) {
    if (options_.color) text_ += Format("\x1b[38;5;{}m", kColors[level]);
    for (int32_t i = 0; i < width; ++i) text_ += kBlocks[level];
    if (options_.color) text_ += "\x1b[0m";
  }
  void Row(const Grid& grid, int32_t row, int32_t width, int (*level)(double)) {
    for (int32_t column = 0; column < grid.columns; ++column) Cell(level(grid.At(row, column)), width);
  }
  void Legend(const char* (*name)(int)) {
    Add("  ");
    for (int level = 0; level <= kNumLevels; ++level) {
      Add("  ");
      Cell(level, 1);
      Add(Format(" {}", name(level)));
    }
    Add("\n");
  }
  void Add(const std::string& text) { text_ += text; }
  std::string Take() { return std::move(text_); }

 private:
  const LoadTextOptions options_;
  std::string text_;
};

// Columns that a text of ours takes: all of its characters are one wide.
int32_t Columns(const std::string& text) {
  return static_cast<int32_t>(std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string Padded(std::string text, int32_t width) {
  const int32_t missing = width - Columns(text);
  return missing > 0 ? text + std::string(static_cast<size_t>(missing), ' ') : text;
}

// At most so many columns.
std::string Cut(const std::string& text, int32_t width) {
  if (Columns(text) <= width) return text;
  std::string out;
  int32_t columns = 0;
  for (const char c : text) {
    if ((c & 0xC0) != 0x80 && ++columns >= width) break;
    out += c;
  }
  return out + "…";
}

std::string Bar(double value, double max, int32_t width) {
  const auto eighths = static_cast<int32_t>(std::lround(value / max * width * 8));
  std::string bar;
  for (int32_t i = 0; i < eighths / 8; ++i) bar += "█";
  return Padded(bar + kEighths[eighths % 8], width);
}

// Marks above columns: a number every so many cells, where there is room for it.
std::string Ruler(const Grid& grid, int32_t num_values, int32_t cell_width) {
  std::string line;
  const int32_t every = std::max(1, (6 + cell_width - 1) / cell_width);
  int32_t step = every * grid.column_step;
  for (const int32_t round : {8, 16, 32, 64, 128, 256, 512}) {
    if (round >= step && round % grid.column_step == 0) {
      step = round;
      break;
    }
  }
  step = std::max(grid.column_step, step - step % grid.column_step);
  for (int32_t value = 0; value < num_values; value += step) {
    const auto at = static_cast<size_t>(value / grid.column_step * cell_width);
    const std::string number = Format("{}", value);
    if (at + number.size() > static_cast<size_t>(grid.columns * cell_width)) break;
    if (at > 0 && at < line.size() + 1) continue;
    line.resize(at, ' ');
    line += number;
  }
  return line;
}

std::string BinText(const char* of, const Grid& grid) {
  std::string text;
  if (grid.column_step > 1) text += Format("{} {}", grid.column_step, of);
  if (grid.row_step > 1) text += Format("{}{} layers", text.empty() ? "" : " in ", grid.row_step);
  return text.empty() ? "" : "(a cell is the hottest of " + text + ")\n";
}

void DrawExperts(const LoadView& view, int32_t width, Page& page) {
  const eplb::LoadTable& load = view.record.load;
  const auto label = static_cast<int32_t>(Format("{}", load.num_layers - 1).size()) + 1;
  const int32_t room = width - label;
  const Grid grid = ExpertGrid(load, kMaxRows, room);
  const int32_t cell = std::clamp(room / grid.columns, 1, 3);
  page.Add("\nexperts (across) in each MoE layer (down), in multiples of the layer's mean\n" +
           BinText("experts", grid));
  page.Add(std::string(static_cast<size_t>(label), ' ') + Ruler(grid, load.num_experts, cell) + "\n");
  for (int32_t row = 0; row < grid.rows; ++row) {
    page.Add(Format("{:>{}} ", row * grid.row_step, label - 1));
    page.Row(grid, row, cell, ExpertLevel);
    page.Add("\n");
  }
  page.Legend(ExpertLevelName);
}

void DrawRankLayers(const LoadView& view, int32_t width, Page& page) {
  const auto label = static_cast<int32_t>(Format("{}", view.record.load.num_layers - 1).size()) + 1;
  const int32_t half = (width - label - 2) / 2;
  const Grid before = RankGrid(*view.before, kMaxRows, half), after = RankGrid(*view.after, kMaxRows, half);
  const int32_t cell = std::clamp(half / before.columns, 1, 3);
  // The right-hand map stands near the left one, but no nearer than its name allows.
  const int32_t left = std::max(before.columns * cell, std::min(half, Columns(view.before->name))) + 2;
  page.Add("\nranks (across) in each MoE layer (down), in multiples of the layer's mean\n" +
           BinText("ranks", before));
  const std::string indent(static_cast<size_t>(label), ' ');
  page.Add(indent + Padded(Cut(view.before->name, left - 2), left) + Cut(view.after->name, half) + "\n");
  for (int32_t row = 0; row < before.rows; ++row) {
    page.Add(Format("{:>{}} ", row * before.row_step, label - 1));
    page.Row(before, row, cell, RankLevel);
    page.Add(std::string(static_cast<size_t>(left - before.columns * cell), ' '));
    page.Row(after, row, cell, RankLevel);
    page.Add("\n");
  }
  page.Legend(RankLevelName);
}

void DrawRanks(const LoadView& view, int32_t width, Page& page) {
  const std::vector<double> before = view.before->RankShares(), after = view.after->RankShares();
  const double most = std::max({1.0, *std::ranges::max_element(before), *std::ranges::max_element(after)});
  const auto label = static_cast<int32_t>(Format("rank {}", before.size() - 1).size());
  // Two bars with their numbers: " 1.23" behind each, two columns between.
  const int32_t bar = (width - label - 2 - 2 * 5 - 2) / 2;
  const std::string indent(static_cast<size_t>(label + 2), ' ');
  const auto both = [&](const std::string& left, const std::string& right) {
    page.Add(indent + Padded(Cut(left, bar + 5), bar + 7) + Cut(right, bar + 5) + "\n");
  };
  page.Add("\nranks, all layers, in multiples of the mean\n");
  both(view.before->name, view.after->name);
  both(Format("balancedness {:.3f}", view.before->balancedness),
       Format("balancedness {:.3f}", view.after->balancedness));
  for (size_t r = 0; r < before.size() && r < kMaxRanks; ++r) {
    page.Add(Padded(Format("rank {}", r), label + 2) + Bar(before[r], most, bar) +
             Format(" {:4.2f}  ", before[r]) + Bar(after[r], most, bar) + Format(" {:4.2f}\n", after[r]));
  }
  if (before.size() > kMaxRanks)
    page.Add(Format("... and {} more (--json has all)\n", before.size() - kMaxRanks));
}

}  // namespace

std::string LoadText(const LoadView& view, const LoadTextOptions& options) {
  Page page(options);
  const eplb::LoadRecord& record = view.record;
  int64_t rows = 0;
  for (const int64_t count : record.load.counts) rows += count;
  page.Add(Cut(record.model, options.width) + "\n");
  page.Add(Format("{} MoE layers, {} experts, {} a token; {} steps, {} choices\n", record.load.num_layers,
                  record.load.num_experts, record.top_k, record.steps, rows));
  if (view.before)
    page.Add(Format("{} ranks, {} slots a layer\n", view.layout.num_ranks, view.layout.num_slots));
  DrawExperts(view, options.width, page);
  if (view.before) {
    DrawRankLayers(view, options.width, page);
    DrawRanks(view, options.width, page);
  } else {
    page.Add("\nWithout expert parallelism all ranks carry the same; for more: -dp 4 -ep ...\n");
  }
  return page.Take();
}

}  // namespace cadre::app
