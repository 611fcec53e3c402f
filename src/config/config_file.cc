#include "config/config_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "config/value.h"

namespace cadre::config {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr int kMaxDepth = 16;

struct Line {
  int number;  // from 1
  size_t indent;
  std::string text;  // without indentation and comment
};

/// Cuts a comment: a # at the start or after a blank, outside quotes.
std::string WithoutComment(std::string_view text) {
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote) {
      if (c == '\\' && quote == '"')
        ++i;
      else if (c == quote)
        quote = 0;
    } else if ((c == '"' || c == '\'') && (i == 0 || std::strchr(" \t[{,:", text[i - 1]))) {
      quote = c;
    } else if (c == '#' && (i == 0 || text[i - 1] == ' ' || text[i - 1] == '\t')) {
      return std::string(text.substr(0, i));
    }
  }
  return std::string(text);
}

class Yaml {
 public:
  Result<Json> Run(std::string_view text) {
    CADRE_TRY(Split(text));
    if (lines_.empty()) return Json(Json::Object{});
    if (lines_[0].text.starts_with("- ")) return Wrong("the file must hold `name: value` lines, not a list");
    CADRE_ASSIGN(Json top, Block(lines_[0].indent, 0));
    if (at_ < lines_.size()) return Wrong("indentation fits no line above");
    return top;
  }

 private:
  Status Split(std::string_view text) {
    int number = 0;
    while (!text.empty()) {
      const size_t end = std::min(text.find('\n'), text.size());
      std::string_view raw = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      ++number;
      const size_t indent = std::min(raw.find_first_not_of(' '), raw.size());
      if (indent < raw.size() && raw[indent] == '\t') {
        return Fail(Code::kInvalidArgument, "line {}: a tab; YAML is indented with blanks", number);
      }
      std::string body = Trim(WithoutComment(raw.substr(indent)));
      if (body.empty() || (body == "---" && lines_.empty())) continue;
      if (body == "---" || body == "...")
        return Fail(Code::kInvalidArgument, "line {}: only one document is read", number);
      lines_.push_back({number, indent, std::move(body)});
    }
    return {};
  }

  std::unexpected<Error> Wrong(std::string_view why) const {
    const int number = at_ < lines_.size() ? lines_[at_].number : lines_.empty() ? 0 : lines_.back().number;
    return Fail(Code::kInvalidArgument, "line {}: {}", number, why);
  }

  Result<Json> Block(size_t indent, int depth) {
    if (depth > kMaxDepth) return Wrong(Format("nested deeper than {} levels", kMaxDepth));
    return lines_[at_].text.starts_with("-") && (lines_[at_].text.size() == 1 || lines_[at_].text[1] == ' ')
               ? List(indent)
               : Mapping(indent, depth);
  }

  Result<Json> List(size_t indent) {
    Json::Array items;
    while (at_ < lines_.size() && lines_[at_].indent == indent && lines_[at_].text.starts_with("- ")) {
      CADRE_ASSIGN(Json item, Scalar(Trim(lines_[at_].text.substr(2))));
      items.push_back(std::move(item));
      ++at_;
    }
    if (items.empty()) return Wrong("an empty list item");
    if (at_ < lines_.size() && lines_[at_].indent > indent) return Wrong("list items must be single values");
    return Json(std::move(items));
  }

  Result<Json> Mapping(size_t indent, int depth) {
    Json::Object members;
    while (at_ < lines_.size() && lines_[at_].indent == indent) {
      const std::string line = lines_[at_].text;
      size_t colon = line.find(": ");
      if (colon == line.npos && line.ends_with(':')) colon = line.size() - 1;
      if (colon == line.npos || line.starts_with("- "))
        return Wrong(Format("expected `name: value`, found '{}'", line.substr(0, 60)));
      std::string key = Trim(line.substr(0, colon));
      if (key.size() >= 2 && (key[0] == '"' || key[0] == '\'') && key.back() == key[0])
        key = key.substr(1, key.size() - 2);
      if (key.empty()) return Wrong("an empty name");
      for (const auto& [name, value] : members) {
        if (name == key) return Wrong(Format("'{}' is given twice", key));
      }
      const std::string rest = Trim(line.substr(colon + 1));
      Json value;
      if (rest.empty()) {
        const size_t next = at_ + 1;
        // A list may stand at the indentation of its key.
        const bool below =
            next < lines_.size() && (lines_[next].indent > indent ||
                                     (lines_[next].indent == indent && lines_[next].text.starts_with("- ")));
        ++at_;
        if (below) {
          CADRE_ASSIGN(value, Block(lines_[at_].indent, depth + 1));
        }
      } else {
        CADRE_ASSIGN(value, Scalar(rest));
        ++at_;
      }
      members.emplace_back(std::move(key), std::move(value));
    }
    if (at_ < lines_.size() && lines_[at_].indent > indent) return Wrong("indentation fits no line above");
    return Json(std::move(members));
  }

  Result<Json> Scalar(const std::string& text) const {
    if (text.empty() || text == "~" || text == "null" || text == "None") return Json();
    switch (text[0]) {
      case '&':
      case '*':
      case '!':
        return Wrong(
            Format("anchors, aliases and tags ('{}') are not read; write the value out", text.substr(0, 30)));
      case '|':
      case '>':
        return Wrong("text over several lines is not read; quote it on one line");
      case '{':
        return JsonText(text);
      case '[':
        return FlowList(text);
      case '"':
        return JsonText(text);
      case '\'':
        return SingleQuoted(text);
      default:
        break;
    }
    if (text == "true" || text == "True" || text == "yes" || text == "on") return Json(true);
    if (text == "false" || text == "False" || text == "no" || text == "off") return Json(false);
    if (auto number = ParseInt(text)) return Json(*number);
    if (auto number = ParseDouble(text)) return Json(*number);
    return Json(text);
  }

  Result<Json> JsonText(const std::string& text) const {
    auto value = Json::Parse(text);
    if (!value) return Wrong(Format("'{}' is not JSON: {}", text.substr(0, 60), value.error().message));
    return *value;
  }

  Result<Json> SingleQuoted(const std::string& text) const {
    std::string out;
    for (size_t i = 1; i < text.size(); ++i) {
      if (text[i] != '\'') {
        out += text[i];
      } else if (i + 1 < text.size() && text[i + 1] == '\'') {
        out += '\'';
        ++i;
      } else if (i + 1 == text.size()) {
        return Json(std::move(out));
      } else {
        break;
      }
    }
    return Wrong(Format("the quote in {} does not end at the line's end", text.substr(0, 60)));
  }

  /// [a, b] with plain or quoted items; anything deeper must be JSON.
  Result<Json> FlowList(const std::string& text) const {
    if (auto json = Json::Parse(text)) return *json;
    if (!text.ends_with(']') || text.find_first_of("[{", 1) != text.npos) {
      return Wrong(Format("'{}' is neither JSON nor a flat list in one line", text.substr(0, 60)));
    }
    Json::Array items;
    for (std::string_view item : SplitComma(std::string_view(text).substr(1, text.size() - 2))) {
      CADRE_ASSIGN(Json value, Scalar(Trim(item)));
      items.push_back(std::move(value));
    }
    return Json(std::move(items));
  }

  std::vector<Line> lines_;
  size_t at_ = 0;
};

}  // namespace

Result<Json> ParseYaml(std::string_view text) {
  if (text.size() > kMaxBytes) return Fail(Code::kInvalidArgument, "longer than {} bytes", kMaxBytes);
  return Yaml().Run(text);
}

Result<Json> LoadConfigFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxBytes + 1, '\0');
  if (file) file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.is_open() || file.bad() || (!file && file.gcount() == 0 && !file.eof())) {
    return FailParam(Code::kNotFound, "--config", "--config: cannot read '{}': {}", path,
                     std::strerror(errno));
  }
  text.resize(static_cast<size_t>(file.gcount()));
  auto parsed = ParseYaml(text);
  if (!parsed)
    return FailParam(Code::kInvalidArgument, "--config", "--config {}: {}", path, parsed.error().message);
  return parsed;
}

}  // namespace cadre::config
