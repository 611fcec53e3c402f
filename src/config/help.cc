#include "config/help.h"

#include <algorithm>

#include "config/command_line.h"
#include "config/value.h"

namespace cadre::config {
namespace {

constexpr size_t kWidth = 100, kIndent = 6;

std::string Wrapped(std::string_view text) {
  std::string out, line;
  while (!text.empty()) {
    const size_t space = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, space);
    text.remove_prefix(std::min(space + 1, text.size()));
    if (!line.empty() && kIndent + line.size() + 1 + word.size() > kWidth) {
      out += std::string(kIndent, ' ') + line + "\n";
      line.clear();
    }
    if (!line.empty()) line += ' ';
    line += word;
  }
  if (!line.empty()) out += std::string(kIndent, ' ') + line + "\n";
  return out;
}

std::string Placeholder(const Setting& setting) {
  switch (setting.type) {
    case Type::kTrue:
    case Type::kBool:
      return "";
    case Type::kInt:
    case Type::kHumanInt:
      return " N";
    case Type::kHumanIntOrAuto:
      return " N|auto";
    case Type::kFloat:
      return " X";
    case Type::kStrings:
      return " TEXT...";
    case Type::kJson:
      return " JSON";
    case Type::kJsonOrString:
      return " JSON|TEXT";
    case Type::kJsonList:
      return " LIST";
    case Type::kString:
    case Type::kAppended:
      return " TEXT";
  }
  return "";
}

std::string RowText(const Setting& setting) {
  std::string line = "  ";
  if (!setting.short_name.empty()) line += Format("-{}, ", setting.short_name);
  line += Format("--{}{}", setting.name, Placeholder(setting));
  if (!setting.alias.empty()) line += Format(", --{}", setting.alias);
  if (setting.type == Type::kBool) line += Format(", --no-{}", setting.name);
  line += "\n";

  std::string text;
  if (!setting.forward.empty()) {
    text = Format("Older spelling of --{}.", setting.forward);
  } else {
    const std::string_view mark = setting.kind == Kind::kNoEffect   ? "[no effect here] "
                                  : setting.kind == Kind::kNotBuilt ? "[not built] "
                                                                    : "";
    text = std::string(mark) + std::string(setting.text);
  }
  if (!setting.choices.empty() && setting.kind == Kind::kWorks) {
    std::string choices;
    for (auto choice : SplitComma(setting.only.empty() ? setting.choices : setting.only)) {
      if (!choices.empty()) choices += ", ";
      choices += choice;
    }
    text += Format(" One of: {}.", choices);
  }
  if (setting.kind == Kind::kWorks && !setting.fallback.empty())
    text += Format(" Default: {}.", setting.fallback);
  line += Wrapped(text);
  for (const JsonKey* key : JsonKeysOf(setting.name)) {
    line += Format("      .{}: {} Default: {}.\n", key->key, key->help,
                   key->fallback.empty() ? "unset" : key->fallback);
  }
  return line;
}

std::string GroupText(const Group& group) {
  std::string text = Format("\n{}: {}\n", group.name, group.title);
  for (const Setting& setting : group.settings) text += RowText(setting);
  return text;
}

/// The groups, the first of them in full: what most people came for.
std::string Overview(Command command) {
  const auto& groups = GroupsOf(command);
  std::string text = UsageText(command);
  text += "\nMore: --help=all, --help=GROUP, --help=FLAG, or --help=WORD for flags that contain it.\n";
  text +=
      "Flags may also stand in a file: --config FILE.yaml. `_` and `-` are the same in names.\n\nGroups:\n";
  for (const Group& group : groups) {
    const auto working = std::count_if(group.settings.begin(), group.settings.end(),
                                       [](const Setting& s) { return s.kind == Kind::kWorks; });
    text += Format("  {:<20} {} ({} flags, {} of them work here)\n", group.name, group.title,
                   group.settings.size(), working);
  }
  return text + GroupText(groups.front());
}

std::string LowerDashes(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

}  // namespace

std::string UsageText(Command command) {
  switch (command) {
    case Command::kServe:
      return "usage: cadre serve MODEL [flags]\n\nServes a model over the OpenAI HTTP API, as `vllm serve` "
             "does.\n";
    case Command::kGenerate:
      return "usage: cadre generate MODEL [--prompt TEXT] [flags]\n\nAnswers one prompt, or chats on the "
             "terminal.\n";
    case Command::kInspect:
      return "usage: cadre inspect MODEL [flags]\n       cadre inspect [MODEL] --load FILE|URL "
             "[flags]\n\nShows "
             "architecture, tensors and the memory plan without reading weights; with --load how a load lies "
             "on\n"
             "experts and ranks.\n";
    case Command::kBenchLatency:
      return "usage: cadre bench latency MODEL [flags]\n\nTimes one batch of requests from start to end.\n";
    case Command::kBenchThroughput:
      return "usage: cadre bench throughput MODEL [flags]\n\nTimes many requests at once.\n";
    case Command::kBenchServe:
      return "usage: cadre bench serve [flags]\n\nSends requests to a running server and times the "
             "answers.\n";
    case Command::kBenchA2a:
      return "usage: cadre bench a2a [flags]\n\nTimes the exchanges between ranks of this host, beside a "
             "bare "
             "copy through shared memory, MPI_Alltoallv and Gloo where these are installed.\n";
    case Command::kBenchEplb:
      return "usage: cadre bench eplb MODEL [flags]\n\nTimes many requests at once with experts chosen "
             "evenly, with some experts hot, and with balancing.\n";
    case Command::kDemo:
      return "usage: cadre demo [flags]\n\nShows one layer with expert parallelism: router, dispatch, expert "
             "computation, combine; who sends what where, and what each rank holds. Checked against one "
             "process.\n";
    case Command::kBenchStep:
      return "usage: cadre bench step MODEL [flags]\n\nTimes steps of data and expert parallel ranks beside "
             "one "
             "process with as many threads, each relative to its own floor, in turns.\n";
    case Command::kDoctor:
      return "usage: cadre doctor [--peer HOST[:PORT]]... | --listen PORT\n\nSays what this machine has, "
             "what "
             "that means for which flag, and how fast other hosts are reached. The exit status is 0 if "
             "nothing "
             "found stands in the way of serving.\n";
    case Command::kPlan:
      return "usage: cadre plan MODEL --hosts N --memory-per-host SIZE [--target WHAT] [flags]\n\nSays what "
             "a "
             "deployment would take, how to lay it out and why, and what to type on each host. MODEL may be "
             "a\nconfig.json or a folder that holds nothing else.\n";
    case Command::kRouter:
      return "usage: cadre router URL... [flags]\n       cadre router --prefill URL[,URL...] --decode "
             "URL[,URL...] [flags]\n\nPasses requests on to servers, with health checks and retries.\n";
  }
  return "";
}

Result<std::string> HelpText(Command command, std::string_view topic) {
  if (topic.empty() || topic == "listgroup" || topic == "page") return Overview(command);
  const auto& groups = GroupsOf(command);
  std::string wanted = LowerDashes(topic);
  if (wanted.starts_with("--")) wanted.erase(0, 2);
  std::string text = UsageText(command);
  if (wanted == "all") {
    for (const Group& group : groups) text += GroupText(group);
    return text;
  }
  for (const Group& group : groups) {
    if (LowerDashes(group.name) == wanted) return text + GroupText(group);
  }
  if (const Setting* setting = FindSetting(command, wanted)) return text + "\n" + RowText(*setting);
  std::string found;
  for (const Group& group : groups) {
    for (const Setting& setting : group.settings) {
      if (setting.name.find(wanted) != setting.name.npos) found += RowText(setting);
    }
  }
  if (!found.empty()) return text + "\n" + found;
  const auto nearest = NearestNames(command, wanted);
  return Fail(Code::kNotFound, "--help={}: no group or flag is called so{}; try --help=all", topic,
              nearest.empty() ? "" : Format("; did you mean --help={}?", nearest.front()));
}

}  // namespace cadre::config
