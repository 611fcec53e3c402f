#include "base/metrics_merge.h"

#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "base/format.h"

namespace cadre {
namespace {

struct Family {
  std::string comments;              // # HELP and # TYPE
  std::vector<std::string> samples;  // "name{labels}", in order
};

class Merger {
 public:
  void Add(std::string_view text) {
    Family* family = nullptr;
    while (!text.empty()) {
      const size_t end = std::min(text.find('\n'), text.size());
      const std::string_view line = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      line.starts_with('#') ? Comment(line, family) : Sample(line, family);
    }
  }

  std::string Text() const {
    std::string out;
    for (const std::string& name : order_) {
      const Family& family = families_.at(name);
      out += family.comments;
      for (const std::string& sample : family.samples) {
        out += sample;
        out += ' ';
        out += Number(values_.at(sample));
        out += '\n';
      }
    }
    return out;
  }

 private:
  // "# HELP name text", "# TYPE name kind": the first opens the family.
  void Comment(std::string_view line, Family*& family) {
    constexpr size_t kName = std::string_view("# HELP ").size();
    if (!line.starts_with("# HELP ") && !line.starts_with("# TYPE ")) return;
    const std::string name(line.substr(kName, line.find(' ', kName) - kName));
    const auto [place, fresh] = families_.try_emplace(name);
    if (fresh) order_.push_back(name);
    family = &place->second;
    const bool known = family->comments.find(line.substr(0, kName)) != std::string::npos;
    if (!known) family->comments.append(line).push_back('\n');
  }

  // "name{labels} value": labels may hold blanks, values none.
  void Sample(std::string_view line, Family* family) {
    const size_t blank = line.rfind(' ');
    if (family == nullptr || blank == line.npos) return;
    const auto value = Value(line.substr(blank + 1));
    if (!value) return;
    const auto [place, fresh] = values_.try_emplace(std::string(line.substr(0, blank)), 0.0);
    if (fresh) family->samples.push_back(place->first);
    place->second += *value;
  }

  static std::optional<double> Value(std::string_view text) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
  }
  static std::string Number(double value) {
    if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
    if (std::isnan(value)) return "Nan";
    return Format("{}", value);
  }

  std::vector<std::string> order_;
  std::map<std::string, Family> families_;
  std::unordered_map<std::string, double> values_;
};

}  // namespace

std::string MergeMetrics(const std::vector<std::string>& texts) {
  Merger merger;
  for (const std::string& text : texts) merger.Add(text);
  return merger.Text();
}

}  // namespace cadre
