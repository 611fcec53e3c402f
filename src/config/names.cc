// Which row a name means.
#include <algorithm>
#include <set>

#include "config/command_line.h"
#include "config/value.h"

namespace cadre::config {
namespace {

std::string Dashes(std::string_view name) {
  std::string text(name);
  std::replace(text.begin(), text.end(), '_', '-');
  return text;
}

/// Every spelling of every row: name, alias and --no- form.
struct Spelling {
  std::string text;
  Match match;
};

std::vector<Spelling> MakeSpellings(Command command) {
  std::vector<Spelling> all;
  for (const Group& group : GroupsOf(command)) {
    for (const Setting& setting : group.settings) {
      for (std::string_view name : {setting.name, setting.alias}) {
        if (name.empty()) continue;
        all.push_back({std::string(name), {&setting}});
        if (setting.type == Type::kBool)
          all.push_back({Format("no-{}", name), {.setting = &setting, .negated = true}});
      }
    }
  }
  return all;
}

const std::vector<Spelling>& Spellings(Command command) {
  static const auto all = [] {
    std::vector<std::vector<Spelling>> made;
    for (Command each : kAllCommands) made.push_back(MakeSpellings(each));
    return made;
  }();
  return all[static_cast<size_t>(command)];
}

/// An older spelling leads to the flag that replaced it.
Match Follow(Command command, Match match) {
  if (match.setting->forward.empty()) return match;
  const std::string_view target = match.setting->forward;
  const size_t dot = target.find('.');
  Match followed{FindSetting(command, target.substr(0, dot)),
                 match.negated,
                 {},
                 match.setting->type == Type::kBool,
                 match.setting->name};
  if (dot != target.npos) followed.path = {std::string(target.substr(dot + 1))};
  return followed;
}

std::string JoinDashed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += Format("{}--{}", text.empty() ? "" : ", ", name);
  return text;
}

/// Flags of other commands are known too, so that the answer can say whose they are.
std::string OwnersText(Command command, std::string_view name) {
  std::string owners;
  for (Command other : kAllCommands) {
    if (other == command || !FindSetting(other, name)) continue;
    owners += Format("{}cadre {}", owners.empty() ? "" : ", ", CommandName(other));
  }
  return owners;
}

}  // namespace

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::vector<std::string> NearestNames(Command command, std::string_view name) {
  const std::string wanted = Dashes(name.substr(0, 80));  // longer than any flag; bounds the work below
  std::vector<std::pair<size_t, std::string>> near;
  for (const Spelling& spelling : Spellings(command)) {
    size_t distance = EditDistance(wanted, spelling.text);
    const bool inside = wanted.size() >= 4 && spelling.text.find(wanted) != std::string::npos;
    if (inside) distance = std::min<size_t>(distance, 1);
    if (distance <= std::max<size_t>(2, wanted.size() / 3)) near.emplace_back(distance, spelling.text);
  }
  std::sort(near.begin(), near.end());
  std::vector<std::string> names;
  for (const auto& [distance, text] : near) {
    if (names.size() < 3) names.push_back(text);
  }
  return names;
}

Result<Match> ResolveName(Command command, std::string_view name, bool prefixes) {
  const std::string wanted = Dashes(name);
  std::vector<Spelling> begins;
  for (const Spelling& spelling : Spellings(command)) {
    if (spelling.text == wanted) return Follow(command, spelling.match);
    if (prefixes && !wanted.empty() && spelling.text.starts_with(wanted)) begins.push_back(spelling);
  }
  std::set<std::pair<const Setting*, bool>> distinct;
  for (const Spelling& spelling : begins) distinct.emplace(spelling.match.setting, spelling.match.negated);
  if (distinct.size() == 1) return Follow(command, begins.front().match);

  const std::string flag = Format("--{}", wanted);
  if (distinct.size() > 1) {
    std::vector<std::string> names;
    for (const Spelling& spelling : begins) names.push_back(spelling.text);
    return FailParam(Code::kInvalidArgument, flag, "ambiguous option: {} could match {}", flag,
                     JoinDashed(names));
  }
  if (const std::string owners = OwnersText(command, wanted); !owners.empty()) {
    return FailParam(Code::kInvalidArgument, flag, "{} is not a flag of cadre {}; it belongs to {}", flag,
                     CommandName(command), owners);
  }
  const auto nearest = NearestNames(command, wanted);
  return FailParam(
      Code::kInvalidArgument, flag, "unknown flag {}{}; cadre {} --help=all lists the known ones", flag,
      nearest.empty() ? "" : "; did you mean " + JoinDashed(nearest) + "?", CommandName(command));
}

}  // namespace cadre::config
