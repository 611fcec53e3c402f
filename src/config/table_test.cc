// The table against lists that we did not make: names, defaults and choices of vLLM 0.32 as its own parser
// prints them (testdata/).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "config/command_line.h"
#include "config/environment.h"
#include "config/settings.h"
#include "config/value.h"

namespace cadre::config {
namespace {

std::vector<std::string> TestLines(const std::string& name) {
  std::ifstream file(std::string(CADRE_SOURCE_DIR) + "/src/config/testdata/" + name);
  EXPECT_TRUE(file.is_open()) << name;
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty() && line[0] != '#') lines.push_back(line);
  }
  return lines;
}

std::vector<std::string> Fields(const std::string& line) {
  std::vector<std::string> fields;
  std::string rest = line;
  while (true) {
    const size_t bar = rest.find(" | ");
    fields.push_back(Trim(rest.substr(0, bar)));
    if (bar == rest.npos) return fields;
    rest = rest.substr(bar + 3);
  }
}

/// A default as Python prints it, in our spelling.
std::string OurSpelling(std::string text) {
  if (text == "None" || text == "''" || text == "'==SUPPRESS=='" || text == "'==SUPPRESS==") return "";
  if (text == "True") return "true";
  if (text == "False") return "false";
  if (text == "set()") return "[]";
  if (text.size() >= 2 && text[0] == '\'' && text.back() == '\'') return text.substr(1, text.size() - 2);
  for (char& c : text) {
    if (c == '\'') c = '"';
  }
  return text;
}

/// Defaults that are Cadre's own on purpose, each with its reason.
const std::map<std::string, std::string> kOwnDefaults = {
    {"model", "the model is always named"},
    {"shutdown-timeout", "running requests may finish after SIGTERM"},
    {"enable-prompt-tokens-details", "prefix hits are always in usage, as in OpenAI's own API"},
    {"block-size", "vLLM resolves unset to 16"},
    {"enable-prefix-caching", "vLLM resolves unset to true"},
    {"enable-chunked-prefill", "vLLM resolves unset to true"},
    {"max-num-batched-tokens", "vLLM resolves unset to 2048"},
    {"max-num-seqs", "vLLM resolves unset to 128"},
    {"mamba-backend", "printed as an enum"},
    {"optimization-level", "printed as an enum"},
};

TEST(Table, HasEveryServeFlagOfVllm) {
  size_t checked = 0;
  for (const std::string& line : TestLines("vllm_0_32_serve_flags.txt")) {
    const auto fields = Fields(line);
    std::istringstream names(fields[0]);
    const Setting* row = nullptr;
    for (std::string name; names >> name;) {
      if (name == "--config") break;  // read before the table
      if (name.starts_with("--")) {
        auto match = ResolveName(Command::kServe, name.substr(2), false);
        ASSERT_TRUE(match.has_value()) << name;
        ASSERT_TRUE(row == nullptr || row == match->setting) << name;
        row = match->setting;
        EXPECT_EQ(match->negated, name.starts_with("--no-")) << name;
      } else {
        ASSERT_NE(row, nullptr) << line;
        EXPECT_EQ(name.substr(1), row->short_name) << line;
      }
    }
    if (!row) continue;
    ++checked;
    const std::string name(row->name);
    if (fields[1] == "BooleanOptionalAction") {
      EXPECT_EQ(row->type, Type::kBool) << name;
    }
    if (fields[1] == "StoreTrueAction") {
      EXPECT_EQ(row->type, Type::kTrue) << name;
    }
    const std::string expected = OurSpelling(fields[2]);
    // Whole config objects and cut lines are not comparable as text.
    const bool comparable = expected.find('(') == expected.npos && expected.find("\": ") == expected.npos;
    if (comparable && !kOwnDefaults.contains(name)) {
      EXPECT_EQ(row->fallback, expected) << name;
    }
    if (fields.size() > 3 && !row->choices.empty()) {
      for (std::string_view choice : SplitComma(fields[3])) {
        if (choice == "None") continue;
        const auto ours = SplitComma(row->choices);
        EXPECT_NE(std::find(ours.begin(), ours.end(), choice), ours.end()) << name << " " << choice;
      }
    }
  }
  EXPECT_GT(checked, 300u);
}

TEST(Table, HasEveryBenchFlagOfVllm) {
  const std::map<std::string, Command> commands = {{"bench latency", Command::kBenchLatency},
                                                   {"bench throughput", Command::kBenchThroughput},
                                                   {"bench serve", Command::kBenchServe}};
  // sharegpt needs a file that is not shipped; the id's prefix is random; the dictionaries print as Python.
  const std::set<std::string> own_defaults = {"dataset-name", "request-id-prefix",
                                              "random-mm-limit-mm-per-prompt", "random-mm-bucket-config"};
  size_t checked = 0;
  for (const std::string& line : TestLines("vllm_0_32_bench_flags.txt")) {
    const auto fields = Fields(line);
    const std::string flag = fields[1].substr(0, fields[1].find_first_of(" ="));
    const std::string fallback = OurSpelling(fields[1].substr(fields[1].find('=') + 1));
    auto match = ResolveName(commands.at(fields[0]), flag.substr(2), false);
    ASSERT_TRUE(match.has_value()) << line;
    ++checked;
    const std::string name(match->setting->name);
    if (!own_defaults.contains(name)) {
      EXPECT_EQ(match->setting->fallback, fallback) << line;
    }
  }
  EXPECT_GT(checked, 140u);
}

TEST(Table, KnowsEveryVariableOfVllm) {
  for (const std::string& name : TestLines("vllm_0_32_env.txt"))
    EXPECT_NE(FindVariable(name), nullptr) << name;
  EXPECT_EQ(FindVariable("VLLM_NOT_THERE"), nullptr);
  EXPECT_NE(FindVariable("NCCL_ANYTHING"), nullptr);
}

TEST(Table, RowsAreWhole) {
  for (Command command : kAllCommands) {
    std::set<std::string> names, shorts;
    for (const Group& group : GroupsOf(command)) {
      for (const Setting& row : group.settings) {
        const std::string name(row.name);
        EXPECT_TRUE(names.insert(name).second) << CommandName(command) << " " << name;
        if (row.type == Type::kBool) {
          EXPECT_TRUE(names.insert("no-" + name).second) << name;
        }
        if (!row.alias.empty()) {
          EXPECT_TRUE(names.insert(std::string(row.alias)).second) << name;
        }
        if (!row.short_name.empty()) {
          EXPECT_TRUE(shorts.insert(std::string(row.short_name)).second) << name;
        }
        EXPECT_TRUE(row.text.ends_with('.')) << name << ": texts are sentences";
        FallbackValue(row);  // checks that the default is a legal value
        // A working row without a field has only one value that works, and says so.
        if (row.kind == Kind::kWorks && row.forward.empty()) {
          EXPECT_TRUE(row.set || !row.only.empty()) << name;
        }
        EXPECT_EQ(row.only.empty(), row.only_reason.empty()) << name;
        if (row.kind == Kind::kNoEffect) {
          EXPECT_TRUE(row.only.empty()) << name;
        }
        if (!row.forward.empty()) {
          EXPECT_NE(FindSetting(command, row.forward.substr(0, row.forward.find('.'))), nullptr) << name;
        }
      }
    }
  }
  for (const JsonKey& key : JsonKeys())
    EXPECT_NE(FindSetting(Command::kServe, key.option), nullptr) << key.option;
}

}  // namespace
}  // namespace cadre::config
