#include "config/completion.h"

#include "config/settings.h"
#include "config/value.h"

namespace cadre::config {
namespace {

constexpr std::string_view kPlain[] = {"completion", "config-reference", "help", "inference", "man",
                                       "rl",         "version"};
constexpr std::string_view kShells = "bash fish zsh";

/// What a person may want to type: what is built, and vLLM's flags without effect, which lines from elsewhere
/// carry.
bool IsOffered(const Setting& setting) {
  return setting.kind != Kind::kNotBuilt && setting.forward.empty();
}

bool IsSwitch(const Setting& setting) {
  return setting.type == Type::kTrue || setting.type == Type::kBool;
}

std::string Choices(const Setting& setting) {
  std::string words;
  for (auto choice : SplitComma(setting.only.empty() ? setting.choices : setting.only))
    if (!choice.empty()) words += Format("{}{}", words.empty() ? "" : " ", choice);
  return words;
}

/// The first sentence, without what shells would read as their own.
std::string Short(const Setting& setting) {
  std::string text;
  for (const char c : setting.text) {
    if (text.ends_with('.') && c == ' ') break;
    if (std::string_view("'\"`\\$[]:").find(c) == std::string_view::npos) text += c;
  }
  return setting.kind == Kind::kNoEffect ? "(no effect here) " + text : text;
}

std::string FirstWord(std::string_view command) {
  return std::string(command.substr(0, command.find(' ')));
}

/// "serve generate inspect bench ...", each once.
std::string CommandWords() {
  std::string words;
  for (Command command : kAllCommands) {
    const std::string word = FirstWord(CommandName(command));
    if ((" " + words + " ").find(" " + word + " ") == words.npos) words += (words.empty() ? "" : " ") + word;
  }
  for (auto word : kPlain) words += Format(" {}", word);
  return words;
}

std::string BenchWords() {
  std::string words;
  for (Command command : kAllCommands) {
    const std::string_view name = CommandName(command);
    if (name.starts_with("bench ")) words += Format("{}{}", words.empty() ? "" : " ", name.substr(6));
  }
  return words;
}

template <typename Use>
void EachFlag(Command command, Use use) {
  for (const Group& group : GroupsOf(command)) {
    for (const Setting& setting : group.settings) {
      if (IsOffered(setting)) use(setting);
    }
  }
}

std::string Bash() {
  std::string text = Format(R"(# bash completion for cadre; written by: cadre completion bash
_cadre() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}} flags='' values=''
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 ]]; then
    mapfile -t COMPREPLY < <(compgen -W '{}' -- "$cur")
    return
  fi
  if [[ $command == bench ]]; then
    if [[ $COMP_CWORD -eq 2 ]]; then
      mapfile -t COMPREPLY < <(compgen -W '{}' -- "$cur")
      return
    fi
    command="bench ${{COMP_WORDS[2]}}"
  fi
  case $command in
)",
                            CommandWords(), BenchWords());
  for (Command command : kAllCommands) {
    std::string flags = "--help --config", values;
    EachFlag(command, [&](const Setting& setting) {
      flags += Format(" --{}", setting.name);
      if (setting.type == Type::kBool) flags += Format(" --no-{}", setting.name);
      const std::string choices = Choices(setting);
      if (!choices.empty()) values += Format("        --{}) values='{}' ;;\n", setting.name, choices);
    });
    text += Format("    '{}')\n      flags='{}'\n", CommandName(command), flags);
    if (!values.empty()) text += "      case $prev in\n" + values + "      esac\n";
    text += "      ;;\n";
  }
  text += Format("    completion) values='{}' ;;\n  esac\n", kShells);
  return text + R"(  if [[ -n $values && $cur != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$values" -- "$cur")
  elif [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
  fi
}
complete -o filenames -F _cadre cadre
)";
}

std::string Zsh() {
  std::string text = Format(R"(#compdef cadre
# zsh completion for cadre; written by: cadre completion zsh
_cadre() {{
  local command=$words[2]
  if (( CURRENT == 2 )); then
    compadd -- {}
    return
  fi
  if [[ $command == bench ]]; then
    if (( CURRENT == 3 )); then
      compadd -- {}
      return
    fi
    command="bench $words[3]"
  fi
  case $command in
)",
                            CommandWords(), BenchWords());
  for (Command command : kAllCommands) {
    text += Format("    '{}')\n      _arguments '--help[what it does]' '--config[flags in YAML]:file:_files'",
                   CommandName(command));
    EachFlag(command, [&](const Setting& setting) {
      const std::string what = Short(setting), choices = Choices(setting);
      text += Format(" \\\n        '--{}[{}]{}'", setting.name, what,
                     IsSwitch(setting) ? ""
                     : choices.empty() ? ":value:_files"
                                       : ":value:(" + choices + ")");
      if (setting.type == Type::kBool) text += Format(" \\\n        '--no-{}[not so]'", setting.name);
    });
    text += " \\\n        '*:model:_files'\n      ;;\n";
  }
  text += Format("    completion) compadd -- {} ;;\n  esac\n}}\n_cadre \"$@\"\n", kShells);
  return text;
}

std::string FishCondition(std::string_view name) {
  const std::string first = FirstWord(name);
  if (first.size() == name.size()) return Format("__fish_seen_subcommand_from {}", first);
  return Format("__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from {}",
                name.substr(first.size() + 1));
}

std::string Fish() {
  std::string text = Format(
      "# fish completion for cadre; written by: cadre completion fish\n"
      "complete -c cadre -n __fish_use_subcommand -xa '{}'\n"
      "complete -c cadre -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from {}' -xa "
      "'{}'\n"
      "complete -c cadre -n '__fish_seen_subcommand_from completion' -xa '{}'\n",
      CommandWords(), BenchWords(), BenchWords(), kShells);
  for (Command command : kAllCommands) {
    // `bench serve` is not `serve`.
    std::string condition = FishCondition(CommandName(command));
    if (CommandName(command) == "serve") condition += "; and not __fish_seen_subcommand_from bench";
    EachFlag(command, [&](const Setting& setting) {
      const std::string choices = Choices(setting);
      text += Format("complete -c cadre -n '{}' -l {} -d '{}'", condition, setting.name, Short(setting));
      if (!choices.empty()) text += Format(" -xa '{}'", choices);
      if (choices.empty() && !IsSwitch(setting)) text += " -r";
      text += "\n";
      if (setting.type == Type::kBool)
        text += Format("complete -c cadre -n '{}' -l no-{}\n", condition, setting.name);
    });
  }
  return text;
}

}  // namespace

std::span<const std::string_view> PlainCommands() {
  return kPlain;
}

Result<std::string> CompletionText(std::string_view shell) {
  if (shell == "bash") return Bash();
  if (shell == "zsh") return Zsh();
  if (shell == "fish") return Fish();
  return Fail(Code::kInvalidArgument, "cadre completion wants bash, zsh or fish, not '{}'",
              Excerpt(shell, 40));
}

}  // namespace cadre::config
