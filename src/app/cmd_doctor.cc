// cadre doctor: what this machine and its network can do, and what stands in the way of serving.
#include <algorithm>
#include <cstdio>

#include "app/doctor.h"
#include "app/run.h"

namespace cadre::app {
namespace {

Json FindingJson(const Finding& f) {
  return Json::Object{{"section", f.section}, {"name", f.name},       {"level", LevelName(f.level)},
                      {"value", f.value},     {"meaning", f.meaning}, {"flags", f.flags},
                      {"data", f.data}};
}

// Lines of at most this many columns, so that a terminal need not break them.
constexpr size_t kColumns = 110;

std::string Wrapped(const std::string& text, const std::string& indent) {
  std::string out, line = indent;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    if (line.size() > indent.size() && line.size() + end - at > kColumns) {
      out += line;
      out += '\n';
      line = indent;
    }
    if (line.size() > indent.size()) line += ' ';
    line.append(text, at, end - at);
    at = end + 1;
  }
  out += line;
  out += '\n';
  return out;
}

Status Run(const config::DoctorOptions& options) {
  if (options.listen) return ListenForDoctors(options);
  Findings findings;
  ExamineMachine(options, "", findings);
  ExamineDevices(options, "", findings);
  for (const std::string& peer : options.peers) ExaminePeer(options, peer, findings);
  const std::string text = options.json ? FindingsJson(findings).DumpPretty() + "\n" : FindingsText(findings);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
  std::string blocking;
  for (const Finding& f : findings) {
    if (f.level == Level::kBlocks)
      blocking += Format("{}{} {}", blocking.empty() ? "" : ", ", f.section, f.name);
  }
  if (!blocking.empty())
    return Fail(Code::kUnavailable, "something stands in the way of serving: {}", blocking);
  return {};
}

}  // namespace

const char* LevelName(Level level) {
  constexpr const char* kNames[] = {"fine", "info", "warning", "blocks"};
  return kNames[static_cast<size_t>(level)];
}

std::string FindingsText(const Findings& findings) {
  constexpr const char* kMarks[] = {"  ", "  ", "! ", "X "};
  std::string text, section;
  for (const Finding& f : findings) {
    if (f.section != section) text += Format("{}{}\n", section.empty() ? "" : "\n", f.section);
    section = f.section;
    text += Format("{}{:<18} {}\n", kMarks[static_cast<size_t>(f.level)], f.name, f.value);
    std::string meaning = f.meaning;
    if (!f.flags.empty()) meaning += Format("{}[{}]", meaning.empty() ? "" : " ", f.flags);
    if (!meaning.empty()) text += Wrapped(meaning, std::string(21, ' '));
  }
  const auto count = [&](Level level) { return std::ranges::count(findings, level, &Finding::level); };
  return text + Format("\n{} {} in the way of serving (X), {} {} (!)\n", count(Level::kBlocks),
                       count(Level::kBlocks) == 1 ? "thing stands" : "things stand", count(Level::kWarning),
                       count(Level::kWarning) == 1 ? "warning" : "warnings");
}

Json FindingsJson(const Findings& findings) {
  Json list = Json::Array();
  bool blocks = false;
  for (const Finding& f : findings) {
    list.Push(FindingJson(f));
    blocks |= f.level == Level::kBlocks;
  }
  return Json::Object{{"blocks", blocks}, {"findings", std::move(list)}};
}

int Doctor(Args args, const config::Environment& env) {
  return RunParsed(config::ParseDoctor, args, env, Run);
}

}  // namespace cadre::app
