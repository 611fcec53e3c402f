#include "config/rl_keys.h"

#include <algorithm>

#include "config/command_line.h"
#include "config/settings.h"
#include "config/value.h"

namespace cadre::config {
namespace {

constexpr std::string_view kInferenceTables[] = {"inference.", "teacher_inference."};

std::string Dashes(std::string_view name) {
  std::string text(name);
  std::replace(text.begin(), text.end(), '_', '-');
  return text;
}

/// The rows that a path may be one of, and what of the path they are named by.
struct Place {
  std::vector<std::span<const Setting>> rows;
  std::string_view name;
};

Place PlaceOf(std::string_view path) {
  static const auto groups = RlGroups();
  for (const std::string_view table : kInferenceTables) {
    if (path.starts_with(table)) return {{groups[1].settings}, path.substr(table.size())};
  }
  return {{groups[0].settings, groups[2].settings}, path};
}

bool HoldsRows(std::string_view path) {
  if (path == "inference" || path == "teacher_inference") return true;
  const Place place = PlaceOf(path);
  for (const auto& rows : place.rows) {
    for (const Setting& row : rows) {
      if (row.name.size() > place.name.size() && row.name.starts_with(place.name) &&
          row.name[place.name.size()] == '.')
        return true;
    }
  }
  return false;
}

/// The flags of a table below [inference] whose members are flags.
bool IsOpenToFlags(std::string_view table) {
  return table == "vllm" || table == "vllm_extra" || table == "deployment.prefill_vllm_overrides" ||
         table == "deployment.decode_vllm_overrides";
}

/// Known names beside an unknown one, the nearest first, whole paths.
std::string Nearest(std::string_view path) {
  const std::string wanted(path.substr(0, 120));
  if (FindServeKey(Format("inference.{}", wanted)) != nullptr)
    return Format("; did you mean inference.{}?", wanted);
  const std::string_view above = path.substr(0, path.rfind('.') == path.npos ? 0 : path.rfind('.') + 1);
  size_t least = std::max<size_t>(3, wanted.size() / 4);
  std::string best;
  const auto consider = [&](const std::string& name) {
    const size_t distance = EditDistance(wanted, name);
    if (distance < least) {
      least = distance;
      best = name;
    }
  };
  for (const Group& group : RlGroups()) {
    for (const Setting& row : group.settings) {
      if (group.name != "Inference") consider(std::string(row.name));
      if (group.name == "Inference") {
        consider(Format("inference.{}", row.name));
        if (path.starts_with("teacher_")) consider(Format("teacher_inference.{}", row.name));
      }
    }
  }
  for (const std::string_view table : kInferenceTables) {
    if (!above.starts_with(table)) continue;
    for (const Group& group : GroupsOf(Command::kServe)) {
      for (const Setting& row : group.settings) {
        std::string name(row.name);
        std::replace(name.begin(), name.end(), '-', '_');
        consider(std::string(above) + name);
      }
    }
  }
  // A whole path may be right but for its table: where the last name is known, say where it belongs.
  if (best.empty()) {
    const std::string last = Format(".{}", path.substr(above.size()));
    for (const Group& group : RlGroups()) {
      for (const Setting& row : group.settings) {
        const std::string name = (group.name == "Inference" ? "inference." : "") + std::string(row.name);
        if (best.empty() && Format(".{}", name).ends_with(last)) best = name;
      }
    }
  }
  return best.empty() ? "; docs/reference.md lists all keys" : Format("; did you mean {}?", best);
}

std::string At(const RlTree& tree, const std::string& path) {
  const std::string source = tree.Source(path);
  return source.empty() || source.starts_with("--") ? Format("--{}", path) : Format("{}: {}", source, path);
}

class Check {
 public:
  Check(RlTree& tree, std::vector<Notice>& notices) : tree_(tree), notices_(notices) {}

  Status Run() { return Table(tree_.values, ""); }

 private:
  Status Table(Json& table, const std::string& path) {
    for (auto& [key, value] : table.AsObject())
      CADRE_TRY(Member(value, path.empty() ? key : Format("{}.{}", path, key)));
    return {};
  }

  Status Member(Json& value, const std::string& path) {
    const Setting* row = FindRlKey(path);
    const bool table = HoldsRows(path);
    if (table && (value.is_object() || value.is_null()))
      return value.is_null() ? Status() : Table(value, path);
    if (row == nullptr) row = FindServeKey(path);
    if (row == nullptr && table) {
      return FailParam(Code::kInvalidArgument, path, "{} must be a table, found {}", At(tree_, path),
                       value.TypeName());
    }
    if (row == nullptr) return Unknown(value, path);
    if (value.is_null()) return {};
    CADRE_ASSIGN(value, Converted(*row, value, At(tree_, path)));
    if (value.is_object() && IsOpenToFlags(PlaceOf(path).name)) CADRE_TRY(Flags(value, path));
    return Judge(*row, value, path);
  }

  // Of an unknown table the first key is named: its place is where the person wrote.
  Status Unknown(const Json& value, std::string path) const {
    for (const Json* at = &value; at->is_object() && !at->AsObject().empty(); at = &at->AsObject()[0].second)
      path += Format(".{}", at->AsObject()[0].first);
    return FailParam(Code::kInvalidArgument, path, "{}: unknown key{}", At(tree_, path), Nearest(path));
  }

  Status Flags(Json& table, const std::string& path) {
    for (auto& [key, value] : table.AsObject()) {
      const std::string member = Format("{}.{}", path, key);
      const Setting* row = FindServeKey(member);
      if (row == nullptr)
        return FailParam(Code::kInvalidArgument, member, "{}: unknown key{}", At(tree_, member),
                         Nearest(member));
      CADRE_ASSIGN(value, Converted(*row, value, At(tree_, member)));
    }
    return {};
  }

  // Lists may also be typed "0,1".
  static Result<Json> Converted(const Setting& row, const Json& value, const std::string& what) {
    if (row.type != Type::kJsonList || value.is_array()) return ConvertValue(row, value, what);
    Json::Array items;
    if (value.is_int()) items.push_back(value);
    if (value.is_string()) {
      for (const std::string_view item : SplitComma(value.AsString()))
        items.push_back(MemberValue(Trim(item)));
    }
    if (items.empty())
      return FailParam(Code::kInvalidArgument, what, "{} must be a list, found {}", what, value.TypeName());
    return Json(std::move(items));
  }

  Status Judge(const Setting& row, const Json& value, const std::string& path) {
    if (FindServeKey(path) == &row) return {};  // cadre serve judges its own
    const bool usual =
        value == FallbackValue(row) || (value.is_bool() && !value.AsBool() && row.fallback.empty());
    if (usual) return {};
    const bool unbuilt_value =
        !row.only.empty() && value.is_string() && !Contains(row.only, value.AsString());
    if (row.kind == Kind::kNotBuilt || unbuilt_value) {
      return FailParam(Code::kUnsupported, path, "{}{}: {}", At(tree_, path),
                       unbuilt_value ? Format(" = {}", value.Dump()) : "",
                       unbuilt_value ? row.only_reason : row.text);
    }
    if (row.kind == Kind::kNoEffect)
      notices_.push_back({false, Format("{}: no effect here. {}", At(tree_, path), row.text)});
    return {};
  }

  static bool Contains(std::string_view list, std::string_view item) {
    return std::ranges::any_of(SplitComma(list), [&](std::string_view part) { return part == item; });
  }

  RlTree& tree_;
  std::vector<Notice>& notices_;
};

}  // namespace

const Setting* FindRlKey(std::string_view path) {
  const Place place = PlaceOf(path);
  const Setting* open = nullptr;
  for (const auto& rows : place.rows) {
    for (const Setting& row : rows) {
      if (row.name == place.name) return &row;
      // An open table holds anything; the longest name wins.
      const bool inside =
          row.type == Type::kJson && place.name.starts_with(row.name) && place.name[row.name.size()] == '.';
      if (inside && (open == nullptr || row.name.size() > open->name.size())) open = &row;
    }
  }
  return open;
}

bool IsRlTable(std::string_view name) {
  const Setting* row = FindRlKey(name);
  return HoldsRows(name) || (row != nullptr && row->type == Type::kJson);
}

const Setting* FindServeKey(std::string_view path) {
  for (const std::string_view table : kInferenceTables) {
    if (!path.starts_with(table)) continue;
    std::string_view name = path.substr(table.size());
    const size_t dot = name.rfind('.');
    if (dot != name.npos) {
      if (!IsOpenToFlags(name.substr(0, dot))) return nullptr;
      name.remove_prefix(dot + 1);
    }
    return FindSetting(Command::kServe, Dashes(name));
  }
  return nullptr;
}

Status CheckRlKeys(RlTree& tree, std::vector<Notice>& notices) {
  return Check(tree, notices).Run();
}

}  // namespace cadre::config
