#include "config/man_page.h"

#include <set>

#include "base/format.h"
#include "config/completion.h"
#include "config/environment.h"
#include "config/help.h"
#include "config/settings.h"
#include "config/value.h"

namespace cadre::config {
namespace {

/// Text that troff prints as it is: a dash is a minus sign, a point at the start of a line is no request.
std::string Plain(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if (c == '\n') {
      out += ' ';
    } else {
      if (out.empty() && (c == '.' || c == '\'')) out += "\\&";
      out += c;
    }
  }
  return out;
}

std::string ItemOf(const Setting& setting) {
  std::string names = "\\fB\\-\\-" + Plain(setting.name) + "\\fR";
  if (!setting.short_name.empty()) names += ", \\fB\\-" + Plain(setting.short_name) + "\\fR";
  if (!setting.alias.empty()) names += ", \\fB\\-\\-" + Plain(setting.alias) + "\\fR";
  if (setting.type == Type::kBool) names += ", \\fB\\-\\-no\\-" + Plain(setting.name) + "\\fR";
  std::string text = setting.forward.empty() ? std::string(setting.text)
                                             : Format("Older spelling of --{}.", setting.forward);
  if (setting.kind == Kind::kNoEffect) text = "(no effect here) " + text;
  if (setting.kind == Kind::kNotBuilt) text = "(not built) " + text;
  if (!setting.choices.empty() && setting.kind == Kind::kWorks) {
    std::string choices;
    for (auto choice : SplitComma(setting.only.empty() ? setting.choices : setting.only))
      choices += Format("{}{}", choices.empty() ? "" : ", ", choice);
    text += Format(" One of: {}.", choices);
  }
  if (setting.kind == Kind::kWorks && !setting.fallback.empty())
    text += Format(" Default: {}.", setting.fallback);
  return Format(".TP\n{}\n{}\n", names, Plain(text));
}

/// "usage: ..." lines and what the command does, as one paragraph each.
std::string CommandItem(Command command) {
  const std::string usage = UsageText(command);
  const size_t gap = usage.find("\n\n");
  std::string what = usage.substr(gap + 2);
  while (what.ends_with('\n')) what.pop_back();
  return Format(".TP\n\\fBcadre {}\\fR\n{}\n", Plain(CommandName(command)), Plain(what));
}

}  // namespace

std::string ManPageText(const std::string& version) {
  std::string text = Format(
      ".TH CADRE 1 \"\" \"cadre {}\" \"User Commands\"\n"
      ".SH NAME\ncadre \\- serve Mixture\\-of\\-Experts language models on CPUs\n"
      ".SH SYNOPSIS\n.B cadre serve\n.I MODEL\n[\\fIflags\\fR]\n.br\n.B cadre\n.I COMMAND\n\\&...\n"
      ".SH DESCRIPTION\n"
      "Serves a model over the OpenAI HTTP API, in one process or expert\\-parallel over many, with the "
      "flags "
      "of vllm serve. MODEL is a folder or a hub name found in the local Hugging Face cache.\n"
      ".SH COMMANDS\n",
      Plain(version));
  for (Command command : kAllCommands) text += CommandItem(command);
  text +=
      ".TP\n\\fBcadre completion\\fR bash|zsh|fish\nThe shell's completions for cadre.\n"
      ".TP\n\\fBcadre config\\-reference\\fR\nEvery flag and variable, as Markdown.\n"
      ".TP\n\\fBcadre rl @ FILE.toml\\fR, \\fBcadre inference @ FILE.toml\\fR\nWhat prime-rl's TOML asks "
      "for; "
      "\\fBcadre rl \\-\\-help\\fR lists its keys.\n"
      ".TP\n\\fBcadre man\\fR\nThis page.\n.TP\n\\fBcadre version\\fR\nThe version.\n";
  std::set<std::string_view> shown;
  for (Command command : kAllCommands) {
    std::string groups;
    for (const Group& group : GroupsOf(command)) {
      if (!shown.insert(group.name).second) continue;
      groups += Format(".SS \"{}\"\n", Plain(group.title));
      for (const Setting& setting : group.settings) groups += ItemOf(setting);
    }
    if (!groups.empty()) text += Format(".SH \"FLAGS OF CADRE {}\"\n{}", Plain(CommandName(command)), groups);
  }
  text += ".SH ENVIRONMENT\n";
  for (const Setting& row : EnvironmentGroups().front().settings) {
    std::string what(row.text);
    if (!row.forward.empty()) what += Format(" Default of --{}.", row.forward);
    text += Format(".TP\n.B {}\n{}\n", Plain(row.name), Plain(what));
  }
  return text +
         ".SH EXIT STATUS\n0, or the kind of failure: 2 a wrong flag, 3 not found, 5 not built, 6 out of "
         "memory, 7 a peer is gone, 8 a deadline.\n";
}

}  // namespace cadre::config
