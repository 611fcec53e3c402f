#include "app/svg.h"

#include "base/format.h"

namespace cadre::app {

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

void Drawing::Text(double x, double at, std::string_view text, const TextStyle& style) {
  body_ += Format(R"(<text x="{:.1f}" y="{:.1f}" font-size="{:.0f}" text-anchor="{}" fill="{}"{}>{}</text>)",
                  x, at, style.size, style.anchor, style.fill, style.bold ? R"( font-weight="600")" : "",
                  Escaped(text));
  body_ += "\n";
}

void Drawing::Rect(double x, double at, double width, double height, const char* fill,
                   const std::string& tip) {
  body_ += Format(R"(<rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}" fill="{}")", x, at, width,
                  height, fill);
  body_ += tells_ && !tip.empty() ? "><title>" + Escaped(tip) + "</title></rect>\n" : "/>\n";
}

void Drawing::BeginCells(bool touch) {
  body_ += touch ? "<g shape-rendering=\"crispEdges\">\n" : "<g>\n";
}
void Drawing::EndCells() {
  body_ += "</g>\n";
}
void Drawing::Line(double x1, double y1, double x2, double y2, const char* stroke, bool dashed) {
  body_ += Format(R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="{}"{}/>)", x1, y1, x2, y2,
                  stroke, dashed ? R"( stroke-dasharray="4 3")" : "");
  body_ += "\n";
}

void Drawing::Frame(double x, double at, double width, double height) {
  body_ += Format(R"(<rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}" fill="none" stroke="{}"/>)",
                  x, at, width, height, kFaint);
  body_ += "\n";
}

std::string Drawing::Take() {
  return Format(
             R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:.0f} {1:.0f}" width="{0:.0f}" height="{1:.0f}" font-family="system-ui, 'DejaVu Sans', sans-serif">)",
             kWidth, y + kMargin) +
         "\n" + Format(R"(<rect width="{:.0f}" height="{:.0f}" fill="#ffffff"/>)", kWidth, y + kMargin) +
         "\n" + body_ + "</svg>\n";
}

void Drawing::Polyline(const std::vector<std::pair<double, double>>& points, const char* stroke,
                       double width) {
  body_ += Format(R"(<polyline fill="none" stroke="{}" stroke-width="{:.1f}" points=")", stroke, width);
  for (const auto& [x, at] : points) body_ += Format("{:.1f},{:.1f} ", x, at);
  body_ += "\"/>\n";
}

}  // namespace cadre::app
