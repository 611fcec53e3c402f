#include "app/load_picture.h"

#include <algorithm>
#include <cmath>

#include "app/svg.h"

namespace cadre::app {
namespace {

constexpr double kLabels = 46;  // px left of a map
constexpr int32_t kMaxRows = 128, kMaxColumns = 256;
constexpr int32_t kMaxBars = 64;
// Light to dark, each step darker than the one before: it reads the same without colour. 0 is paper.
constexpr const char* kColors[] = {"#ffffff", "#fbeab5", "#f9d282", "#f7b254", "#ec8d35",
                                   "#d9632a", "#b3382a", "#7f1e2c", "#430926"};
constexpr const char* kBefore = "#c9c2b8";
constexpr const char* kAfter = "#b73a28";

// A distance between labels that a person likes, for at most `most` of them.
int32_t TickStep(int32_t count, int32_t most) {
  for (const int32_t step : {1, 2, 4, 5, 8, 10, 16, 20, 32, 64, 128, 256, 512, 1024})
    if (count <= step * most) return step;
  return count;
}

struct MapPlace {
  double x = 0, y = 0, width = 0, row_height = 0;
};

struct MapWords {
  const char* column = "";                // "expert"
  int32_t num_rows = 0, num_columns = 0;  // values, not cells
};

std::string TipOf(const Grid& grid, int32_t row, int32_t column, const MapWords& words) {
  const auto range = [](const char* name, int32_t first, int32_t step, int32_t end) {
    const int32_t last = std::min(first + step, end) - 1;
    return last > first ? Format("{}s {}-{}", name, first, last) : Format("{} {}", name, first);
  };
  return Format("{}, {}: {:.2f} x the mean",
                range("layer", row * grid.row_step, grid.row_step, words.num_rows),
                range(words.column, column * grid.column_step, grid.column_step, words.num_columns),
                grid.At(row, column));
}

void DrawMap(Drawing& drawing, const Grid& grid, const MapPlace& place, const MapWords& words,
             int (*level)(double)) {
  const double cell = place.width / grid.columns, height = place.row_height * grid.rows;
  // A hair between cells that are large enough for it.
  const double gap = std::min(cell, place.row_height) >= 6 ? 0.6 : 0;
  drawing.BeginCells(gap == 0);
  for (int32_t row = 0; row < grid.rows; ++row) {
    for (int32_t column = 0; column < grid.columns; ++column) {
      drawing.Rect(place.x + column * cell, place.y + row * place.row_height, cell - gap,
                   place.row_height - gap, kColors[level(grid.At(row, column))],
                   TipOf(grid, row, column, words));
    }
  }
  drawing.EndCells();
  drawing.Frame(place.x - 0.5, place.y - 0.5, place.width + 1 - gap, height + 1 - gap);
  const TextStyle tick{.size = 11, .anchor = "end", .fill = kFaint};
  const int32_t rows_at = TickStep(words.num_rows, std::max(1, static_cast<int32_t>(height / 16)));
  for (int32_t layer = 0; layer < words.num_rows; layer += rows_at)
    drawing.Text(place.x - 7, place.y + (layer / grid.row_step + 0.5) * place.row_height + 4,
                 Format("{}", layer), tick);
  const int32_t columns_at = TickStep(words.num_columns, static_cast<int32_t>(place.width / 34));
  for (int32_t column = 0; column < words.num_columns; column += columns_at)
    drawing.Text(place.x + (column / grid.column_step + 0.5) * cell, place.y + height + 16,
                 Format("{}", column), {.size = 11, .anchor = "middle", .fill = kFaint});
}

// Right-aligned, on the line of the panel's heading.
void DrawLegend(Drawing& drawing, double right, double baseline, const char* (*name)(int)) {
  constexpr double kBox = 46;
  double x = right - kBox * (kNumLevels + 1);
  for (int level = 0; level <= kNumLevels; ++level, x += kBox) {
    drawing.Rect(x, baseline - 20, kBox - 2, 10, kColors[level]);
    if (level == 0) drawing.Frame(x + 0.5, baseline - 19.5, kBox - 3, 9);
    drawing.Text(x + kBox / 2 - 1, baseline + 3, name(level),
                 {.size = 10, .anchor = "middle", .fill = kFaint});
  }
}

void Heading(Drawing& drawing, const std::string& title, const std::string& what) {
  drawing.Text(kMargin, drawing.y, title, {.size = 15, .bold = true});
  drawing.Text(kMargin, drawing.y + 17, what, {.size = 12, .fill = kFaint});
}

// All labels below and left of a map: what its axes are.
void AxisNames(Drawing& drawing, const MapPlace& place, double height, const char* columns) {
  drawing.Text(place.x + place.width, place.y + height + 31, columns,
               {.size = 11, .anchor = "end", .fill = kFaint});
  drawing.Text(place.x - 7, place.y - 7, "layer", {.size = 11, .anchor = "end", .fill = kFaint});
}

std::string Hottest(const char* of, const Grid& grid) {
  std::string text;
  if (grid.column_step > 1) text += Format("{} {}", grid.column_step, of);
  if (grid.row_step > 1) text += Format("{}{} layers", text.empty() ? "" : " and ", grid.row_step);
  return text.empty() ? "" : "; a cell is the hottest of " + text;
}

void DrawExperts(Drawing& drawing, const LoadView& view) {
  const eplb::LoadTable& load = view.record.load;
  const Grid grid = ExpertGrid(load, kMaxRows, kMaxColumns);
  Heading(drawing, "What the router chooses",
          Format("load of each expert, in multiples of its layer's mean{}", Hottest("experts", grid)));
  DrawLegend(drawing, kMargin + kInner, drawing.y + 12, ExpertLevelName);
  const MapPlace place{.x = kMargin + kLabels,
                       .y = drawing.y + 44,
                       .width = kInner - kLabels,
                       .row_height = std::clamp(420.0 / grid.rows, 4.0, 20.0)};
  DrawMap(drawing, grid, place, {"expert", load.num_layers, load.num_experts}, ExpertLevel);
  const double height = place.row_height * grid.rows;
  AxisNames(drawing, place, height, "expert");
  drawing.y = place.y + height + 76;
}

void DrawRankMaps(Drawing& drawing, const LoadView& view) {
  constexpr double kGap = 36;
  const double half = (kInner - kGap) / 2;
  const int32_t num_layers = view.record.load.num_layers;
  Heading(drawing, "What the ranks carry",
          "load of each rank, in multiples of the layer's mean; a step takes as "
          "long as its fullest rank");
  DrawLegend(drawing, kMargin + kInner, drawing.y + 12, RankLevelName);
  double bottom = 0;
  for (const PlacedLoad* placed : {&*view.before, &*view.after}) {
    const Grid grid = RankGrid(*placed, kMaxRows, kMaxColumns / 2);
    const MapPlace place{.x = kMargin + kLabels + (placed == &*view.before ? 0 : half + kGap),
                         .y = drawing.y + 70,
                         .width = half - kLabels,
                         .row_height = std::clamp(300.0 / grid.rows, 3.0, 20.0)};
    drawing.Text(place.x, drawing.y + 48, (placed == &*view.before ? "before: " : "after: ") + placed->name,
                 {.size = 12, .bold = true});
    drawing.Text(place.x + place.width, drawing.y + 48, Format("balancedness {:.3f}", placed->balancedness),
                 {.size = 12, .anchor = "end", .bold = true});
    DrawMap(drawing, grid, place, {"rank", num_layers, view.layout.num_ranks}, RankLevel);
    AxisNames(drawing, place, place.row_height * grid.rows, "rank");
    bottom = place.y + place.row_height * grid.rows;
  }
  drawing.y = bottom + 76;
}

void DrawBars(Drawing& drawing, const LoadView& view) {
  const std::vector<double> before = view.before->RankShares(), after = view.after->RankShares();
  const auto shown = std::min<size_t>(before.size(), kMaxBars);
  const double most = 1.1 * std::max(*std::ranges::max_element(before), *std::ranges::max_element(after));
  Heading(drawing, "Each rank, all layers",
          shown < before.size()
              ? Format("load in multiples of the mean; the first {} of {} ranks", shown, before.size())
              : "load in multiples of the mean");
  const double x = kMargin + kLabels, width = kInner - kLabels, height = 150, top = drawing.y + 40;
  const auto at = [&](double value) { return top + height - value / most * height; };
  double legend = kMargin + kInner - 260;
  for (const auto& [color, name] : {std::pair(kBefore, "before"), {kAfter, "after"}}) {
    drawing.Rect(legend, drawing.y - 9, 22, 11, color);
    drawing.Text(legend + 28, drawing.y + 1, name, {.fill = kFaint});
    legend += 90;
  }
  drawing.Line(legend, drawing.y - 3, legend + 22, drawing.y - 3, kInk, true);
  drawing.Text(legend + 28, drawing.y + 1, "mean", {.fill = kFaint});
  drawing.Line(x, at(1), x + width, at(1), kInk, true);
  const double place = width / static_cast<double>(shown), bar = std::min(30.0, place * 0.38);
  for (size_t r = 0; r < shown; ++r) {
    const double middle = x + (static_cast<double>(r) + 0.5) * place;
    for (const auto& [value, color, left] :
         {std::tuple(before[r], kBefore, middle - bar), {after[r], kAfter, middle}}) {
      drawing.Rect(left, at(value), bar - 1, top + height - at(value), color,
                   Format("rank {} {}: {:.3f} x the mean", r, left < middle ? "before" : "after", value));
      if (place < 64) continue;
      drawing.Rect(left + bar / 2 - 13, at(value) - 14, 26, 12, "#ffffff");  // over the line of the mean
      drawing.Text(left + bar / 2, at(value) - 4, Format("{:.2f}", value),
                   {.size = 10, .anchor = "middle", .fill = kFaint});
    }
    const auto every =
        static_cast<size_t>(TickStep(static_cast<int32_t>(shown), static_cast<int32_t>(width / 30)));
    if (r % every == 0)
      drawing.Text(middle, top + height + 16, Format("{}", r),
                   {.size = 11, .anchor = "middle", .fill = kFaint});
  }
  drawing.Line(x, top + height, x + width, top + height, kFaint);
  drawing.Text(x - 7, at(1) + 4, "1", {.size = 11, .anchor = "end", .fill = kFaint});
  drawing.Text(x - 7, top + height + 4, "0", {.size = 11, .anchor = "end", .fill = kFaint});
  drawing.Text(x + width, top + height + 31, "rank", {.size = 11, .anchor = "end", .fill = kFaint});
  drawing.y = top + height + 40;
}

std::string Svg(const LoadView& view, bool tells) {
  Drawing drawing(tells);
  const eplb::LoadRecord& record = view.record;
  drawing.Text(kMargin, drawing.y + 8,
               "Expert load" + (view.before ? Format(" on {} ranks", view.layout.num_ranks) : ""),
               {.size = 24, .bold = true});
  drawing.Text(kMargin, drawing.y + 32,
               Format("{} · {} MoE layers × {} experts, {} a token{} · {} steps", Excerpt(record.model, 70),
                      record.load.num_layers, record.load.num_experts, record.top_k,
                      view.before ? Format(", {} slots a layer", view.layout.num_slots) : "", record.steps),
               {.size = 13, .fill = kFaint});
  drawing.y += 84;
  DrawExperts(drawing, view);
  if (view.before) {
    DrawRankMaps(drawing, view);
    DrawBars(drawing, view);
  } else {
    drawing.y -= 44;
  }
  return drawing.Take();
}

std::string RankTable(const LoadView& view) {
  const std::vector<double> before = view.before->RankShares(), after = view.after->RankShares();
  std::string html = Format(
      "<table><caption>Load of each rank, all layers, in multiples of the mean</caption>\n"
      "<tr><th>rank</th><th>{}</th><th>{}</th></tr>\n",
      Escaped(view.before->name), Escaped(view.after->name));
  for (size_t r = 0; r < before.size(); ++r)
    html += Format("<tr><td>{}</td><td>{:.3f}</td><td>{:.3f}</td></tr>\n", r, before[r], after[r]);
  return html + Format("<tr><th>balancedness</th><th>{:.4f}</th><th>{:.4f}</th></tr>\n</table>\n",
                       view.before->balancedness, view.after->balancedness);
}

}  // namespace

std::string LoadSvg(const LoadView& view) {
  return Svg(view, false);
}

std::string LoadHtml(const LoadView& view) {
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Expert load: " +
         Escaped(view.record.model) +
         "</title>\n<style>body{margin:0 auto;max-width:1120px;font:14px system-ui,sans-serif;color:#23211f}"
         "svg{width:100%;height:auto}rect:hover{stroke:#23211f;stroke-width:1.5}"
         "table{margin:0 44px "
         "44px;border-collapse:collapse}caption{text-align:left;font-weight:600;padding:6px 0}"
         "td,th{padding:3px 18px 3px 0;text-align:right;border-top:1px solid "
         "#e5e1da}</style></head>\n<body>\n" +
         Svg(view, true) + (view.before ? RankTable(view) : "") +
         "<p style=\"margin:0 44px 44px;color:#6f6a64\">" + Escaped(view.source) + "</p>\n</body></html>\n";
}

}  // namespace cadre::app
