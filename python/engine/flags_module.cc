// The table of flags for Python: what LLM(...) takes, with the words of `cadre serve --help`.
#include <set>

#include "config/command_line.h"
#include "python/engine/llm_module.h"

namespace cadre::python {
namespace py = pybind11;
namespace {

const char* KindName(config::Kind kind) {
  switch (kind) {
    case config::Kind::kWorks:
      return "works";
    case config::Kind::kNoEffect:
      return "no effect";
    case config::Kind::kNotBuilt:
      return "not built";
  }
  return "";
}

const char* TypeName(config::Type type) {
  switch (type) {
    case config::Type::kTrue:
      return "true";
    case config::Type::kBool:
      return "bool";
    case config::Type::kInt:
    case config::Type::kHumanInt:
    case config::Type::kHumanIntOrAuto:
      return "int";
    case config::Type::kFloat:
      return "float";
    case config::Type::kString:
      return "str";
    case config::Type::kStrings:
      return "words";
    case config::Type::kAppended:
      return "appended";
    case config::Type::kJson:
    case config::Type::kJsonOrString:
      return "json";
    case config::Type::kJsonList:
      return "list";
  }
  return "";
}

// A row for each flag of an engine: those that every command with a model has.
py::list EngineFlags() {
  py::list rows;
  std::set<std::string_view> front;
  for (const config::Group& group : {config::GenerateGroup()}) {
    for (const config::Setting& setting : group.settings) front.insert(setting.name);
  }
  for (const config::Group& group : config::GroupsOf(config::Command::kGenerate)) {
    for (const config::Setting& setting : group.settings) {
      if (front.contains(setting.name)) continue;
      py::dict row;
      row["name"] = std::string(setting.name);
      row["alias"] = std::string(setting.alias);
      row["short"] = std::string(setting.short_name);
      row["type"] = TypeName(setting.type);
      row["kind"] = KindName(setting.kind);
      row["default"] = std::string(setting.fallback);
      row["text"] = std::string(setting.text);
      row["forward"] = std::string(setting.forward);
      rows.append(row);
    }
  }
  return rows;
}

}  // namespace

void BindFlags(py::module_& m) {
  m.def("engine_flags", &EngineFlags);
  m.def(
      "edit_distance",
      [](const std::string& a, const std::string& b) {
        return config::EditDistance(a.substr(0, 80), b.substr(0, 80));
      },
      py::arg("a"), py::arg("b"));
}

}  // namespace cadre::python
