#pragma once
// Marks on an SVG page of a set width, drawn downwards: what the pictures of this program share.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cadre::app {

constexpr double kWidth = 1120, kMargin = 44, kInner = kWidth - 2 * kMargin;  // px
constexpr const char* kInk = "#23211f";
constexpr const char* kFaint = "#6f6a64";

std::string Escaped(std::string_view text);

struct TextStyle {
  double size = 12;
  const char* anchor = "start";
  const char* fill = kInk;
  bool bold = false;
};

/// A page; `y` is where the next thing begins.
class Drawing {
 public:
  /// `tells`: marks with a tip say it under the pointer.
  explicit Drawing(bool tells) : tells_(tells) {}

  double y = kMargin;

  void Text(double x, double at, std::string_view text, const TextStyle& style = {});
  void Rect(double x, double at, double width, double height, const char* fill, const std::string& tip = {});
  /// Cells that touch show no seam between them.
  void BeginCells(bool touch);
  void EndCells();
  void Line(double x1, double y1, double x2, double y2, const char* stroke, bool dashed = false);
  /// Through all points (x, y).
  void Polyline(const std::vector<std::pair<double, double>>& points, const char* stroke, double width);
  void Frame(double x, double at, double width, double height);
  /// The document.
  std::string Take();

 private:
  const bool tells_;
  std::string body_;
};

}  // namespace cadre::app
