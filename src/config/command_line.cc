#include "config/command_line.h"

#include <algorithm>

#include "config/value.h"

namespace cadre::config {
namespace {

bool IsBlank(std::string_view word) {
  return word.find_first_not_of(" \t\r\n") == word.npos;
}

bool LooksLikeFlag(std::string_view word) {
  if (word.size() < 2 || word[0] != '-') return false;
  return !ParseDouble(word).has_value();  // -1 is a value
}

/// Seed 001's lines as printed carry comments behind their backslashes; this is what a shell makes of them.
std::unexpected<Error> NotAWord(std::string_view word, size_t position) {
  if (word.empty()) {
    return Fail(Code::kInvalidArgument, "argument {} is empty; is a variable in the command unset?",
                position);
  }
  return Fail(Code::kInvalidArgument,
              "argument {} is {}: a backslash continues a shell line only as its very last character. A "
              "comment behind "
              "it (`--data-parallel-size 8 \\  # ...`) ends the command there, and the lines below run as "
              "commands of "
              "their own. Delete the comments behind the backslashes, then run the command again.",
              position, IsBlank(word) ? "a lone blank" : Format("the word '{}'", word.substr(0, 40)));
}

class Parser {
 public:
  Parser(Command command, std::span<const std::string> args) : command_(command), args_(args) {}

  Result<CommandLine> Run() {
    bool only_words = false;
    while (next_ < args_.size()) {
      const std::string& word = args_[next_++];
      if (!only_words && word == "--") {
        only_words = true;
      } else if (!only_words && LooksLikeFlag(word)) {
        CADRE_TRY(Flag(word));
      } else if (IsBlank(word) || word[0] == '#') {
        return NotAWord(word, next_);
      } else {
        line_.words.push_back(word);
      }
    }
    return std::move(line_);
  }

 private:
  Status Flag(std::string_view word) {
    const size_t equals = word.find('=');
    std::optional<std::string> inline_value;
    if (equals != word.npos) inline_value = std::string(word.substr(equals + 1));
    std::string_view name = word.substr(0, equals);

    if (name == "--help" || name == "-h") {
      line_.help = inline_value.value_or("");
      return {};
    }
    if (name == "--config") {
      CADRE_ASSIGN(line_.config_file, OneValue("--config", "a YAML file", std::move(inline_value)));
      return {};
    }
    const bool is_long = name.starts_with("--");
    name.remove_prefix(is_long ? 2 : 1);

    std::vector<std::string> path;
    bool append = false;
    if (const size_t dot = name.find('.'); dot != name.npos) {
      std::string_view rest = name.substr(dot + 1);
      append = rest.ends_with('+');
      if (append) rest.remove_suffix(1);
      name = name.substr(0, dot);
      while (true) {
        const size_t end = rest.find('.');
        if (rest.substr(0, end).empty()) {
          return FailParam(Code::kInvalidArgument, std::string(word), "{} has an empty member name", word);
        }
        path.emplace_back(rest.substr(0, end));
        if (end == rest.npos) break;
        rest.remove_prefix(end + 1);
      }
    }
    Match match;
    if (is_long) {
      CADRE_ASSIGN(match, ResolveName(command_, name, true));
    } else {
      CADRE_ASSIGN(match, Short(name, !path.empty(), inline_value));
    }
    match.path.insert(match.path.end(), path.begin(), path.end());
    return Take(match, append, std::move(inline_value));
  }

  /// -tp, -q, -n4, -O2, -O.mode.
  Result<Match> Short(std::string_view name, bool dotted, std::optional<std::string>& inline_value) {
    // vLLM reads -O2 as the optimisation level and -O.mode as a member of the compilation config.
    if (name == "O" && dotted) return ResolveName(command_, "compilation-config", false);
    const Setting* attached = nullptr;
    for (const Group& group : GroupsOf(command_)) {
      for (const Setting& setting : group.settings) {
        if (setting.short_name.empty()) continue;
        if (setting.short_name == name) return Match{&setting};
        if (setting.short_name.size() == 1 && name.starts_with(setting.short_name)) attached = &setting;
      }
    }
    if (attached && !inline_value && !dotted) {
      inline_value = std::string(name.substr(1));
      return Match{attached};
    }
    const auto nearest = NearestNames(command_, name);
    return FailParam(
        Code::kInvalidArgument, Format("-{}", name),
        "unknown flag -{}{}; long flags begin with two dashes; cadre {} --help=all lists the known ones",
        name, nearest.empty() ? "" : Format("; did you mean --{}?", nearest.front()), CommandName(command_));
  }

  Status Take(const Match& match, bool append, std::optional<std::string> inline_value) {
    const Setting& setting = *match.setting;
    Given given{.setting = &setting,
                .path = match.path,
                .append = append,
                .older = match.older,
                .source = Format("--{}", setting.name)};
    for (const std::string& key : match.path) given.source += Format(".{}", key);

    if (!match.path.empty()) {
      if (setting.type != Type::kJson && setting.type != Type::kJsonOrString) {
        return FailParam(Code::kInvalidArgument, given.source,
                         "--{} takes {}; it has no members such as '{}'", setting.name,
                         TypeText(setting.type), match.path.front());
      }
      if (match.negated) {
        given.value = Json(false);
      } else if (match.is_switch && !inline_value) {
        given.value = Json(true);
      } else {
        CADRE_ASSIGN(const std::string text, OneValue(given.source, "a value", std::move(inline_value)));
        given.value = append ? AppendedValue(text) : MemberValue(text);
      }
    } else if (setting.type == Type::kTrue || setting.type == Type::kBool) {
      if (match.negated && inline_value) {
        return FailParam(Code::kInvalidArgument, given.source, "--no-{} takes no value", setting.name);
      }
      CADRE_ASSIGN(given.value, ParseValue(setting, match.negated ? "false" : inline_value.value_or("true"),
                                           given.source));
    } else if (setting.type == Type::kStrings) {
      CADRE_ASSIGN(given.value, Words(setting, given.source, std::move(inline_value)));
    } else {
      CADRE_ASSIGN(const std::string text,
                   OneValue(given.source, TypeText(setting.type), std::move(inline_value)));
      CADRE_ASSIGN(given.value, ParseValue(setting, text, given.source));
    }
    line_.given.push_back(std::move(given));
    return {};
  }

  bool HasValue() const { return next_ < args_.size() && !LooksLikeFlag(args_[next_]); }

  Result<std::string> OneValue(std::string_view flag, std::string_view wanted,
                               std::optional<std::string> inline_value) {
    if (inline_value) return *std::move(inline_value);
    if (!HasValue()) {
      return FailParam(Code::kInvalidArgument, std::string(flag), "{} expects one argument: {}", flag,
                       wanted);
    }
    return args_[next_++];
  }

  Result<Json> Words(const Setting& setting, std::string_view flag, std::optional<std::string> inline_value) {
    Json::Array words;
    if (inline_value) {
      words.emplace_back(*std::move(inline_value));
      return Json(std::move(words));
    }
    while (HasValue()) {
      const std::string& word = args_[next_++];
      if (IsBlank(word) || word[0] == '#') return NotAWord(word, next_);
      words.emplace_back(word);
    }
    if (words.empty()) {
      return FailParam(Code::kInvalidArgument, std::string(flag), "--{} expects at least one argument",
                       setting.name);
    }
    return Json(std::move(words));
  }

  /// --x.list+ a,b adds a and b.
  static Json AppendedValue(std::string_view text) {
    Json value = MemberValue(text);
    if (value.is_array()) return value;
    if (!value.is_string()) return Json(Json::Array{value});
    Json::Array items;
    for (std::string_view item : SplitComma(text)) items.push_back(MemberValue(item));
    return Json(std::move(items));
  }

  Command command_;
  std::span<const std::string> args_;
  size_t next_ = 0;
  CommandLine line_;
};

}  // namespace

Json MemberValue(std::string_view text) {
  if (auto json = Json::Parse(text)) return *json;
  return Json(std::string(text));
}

Result<CommandLine> ParseCommandLine(Command command, std::span<const std::string> args) {
  return Parser(command, args).Run();
}

}  // namespace cadre::config
