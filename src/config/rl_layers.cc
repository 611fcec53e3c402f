#include "config/rl_layers.h"

#include <algorithm>
#include <filesystem>

#include "config/command_line.h"
#include "config/rl_keys.h"
#include "config/toml_file.h"
#include "config/value.h"

namespace cadre::config {
namespace {

constexpr size_t kMaxFiles = 64;
constexpr size_t kMaxDepth = 64;  // of a dotted word

bool IsFlag(std::string_view word) {
  return word.size() > 2 && word.starts_with("--");
}

std::string Snake(std::string_view word) {
  std::string text(word);
  std::replace(text.begin(), text.end(), '-', '_');
  return text;
}

class Reader {
 public:
  Reader(std::span<const std::string> args, bool inference_only)
      : args_(args), root_(inference_only ? "inference" : "") {}

  Status Read() {
    while (next_ < args_.size()) {
      const std::string& word = args_[next_++];
      if (word == "--help" || word == "-h") {
        layers_.help = true;
      } else if (word == "@") {
        CADRE_TRY(File(root_));
      } else if (word.size() > 1 && word[0] == '@') {
        CADRE_TRY(Lay(word.substr(1), root_));
      } else if (IsFlag(word)) {
        CADRE_TRY(Flag(word));
      } else {
        return Fail(Code::kInvalidArgument,
                    "unexpected word '{}'; files stand behind an @ of its own, as in cadre rl @ "
                    "configs/debug/rl_ep.toml, and settings are --section.key VALUE",
                    Excerpt(word));
      }
    }
    layers_.tree.Lay(words_);
    return {};
  }

  RlLayers Take() { return std::move(layers_); }

 private:
  std::string Rooted(const std::string& path) const {
    return root_.empty() ? path : path.empty() ? root_ : Format("{}.{}", root_, path);
  }

  Status File(const std::string& below) {
    if (!WordFollows()) return Fail(Code::kInvalidArgument, "a file's name is missing behind an @");
    return Lay(args_[next_++], below);
  }

  // Lays a file, and before it what it inherits, below a key.
  Status Lay(const std::string& path, const std::string& below) {
    const auto same = [&](const std::string& open) {
      std::error_code ignored;
      return open == path || std::filesystem::equivalent(open, path, ignored);
    };
    if (std::ranges::any_of(open_, same)) {
      std::string way;
      for (const std::string& one : open_) way += one + " -> ";
      return FailParam(Code::kInvalidArgument, "toml_files", "toml_files lead back to where they began: {}{}",
                       way, path);
    }
    if (layers_.files.size() >= kMaxFiles)
      return FailParam(Code::kInvalidArgument, "toml_files", "more than {} files", kMaxFiles);
    CADRE_ASSIGN(TomlDocument document, LoadToml(path));
    layers_.files.push_back(path);
    open_.push_back(path);
    if (const Json* bases = document.values.Find("toml_files")) {
      CADRE_TRY(LayBases(*bases, path, document.lines["toml_files"], below));
      auto& members = document.values.AsObject();
      std::erase_if(members, [](const Json::Member& member) { return member.first == "toml_files"; });
    }
    open_.pop_back();
    layers_.tree.Lay(TreeOf(document, path, below));
    return {};
  }

  Status LayBases(const Json& bases, const std::string& path, int line, const std::string& below) {
    const Json::Array one = {bases};
    for (const Json& base : bases.is_array() ? bases.AsArray() : one) {
      if (!base.is_string()) {
        return FailParam(Code::kInvalidArgument, "toml_files",
                         "{}:{}: toml_files must be a list of file names, found {}", path, line,
                         base.TypeName());
      }
      const auto file = std::filesystem::path(path).parent_path() / base.AsString();
      if (Status laid = Lay(file.string(), below); !laid) {
        if (laid.error().code == Code::kNotFound)
          laid.error().message += Format(" (inherited by {}:{})", path, line);
        return laid;
      }
    }
    return {};
  }

  static RlTree TreeOf(const TomlDocument& document, const std::string& path, const std::string& below) {
    RlTree tree;
    const std::string prefix = below.empty() ? std::string() : Format("{}.", below);
    if (below.empty()) {
      tree.values = document.values;
    } else {
      tree.Set(below, document.values, path);
    }
    for (const auto& [key, line] : document.lines) tree.sources[prefix + key] = Format("{}:{}", path, line);
    return tree;
  }

  Status Flag(std::string_view word) {
    const size_t equals = word.find('=');
    std::optional<std::string> value;
    if (equals != word.npos) value = std::string(word.substr(equals + 1));
    const std::string name(word.substr(0, equals));
    std::string path = Snake(name.substr(2));
    const auto parts = SplitPath(path);
    if (parts.size() > kMaxDepth || std::ranges::any_of(parts, &std::string::empty))
      return FailParam(Code::kInvalidArgument, name, "{} has an empty name in it", Excerpt(name));
    const Setting* row = FindRlKey(Rooted(path));
    if (const Setting* flag = FindServeKey(Rooted(path)); flag != nullptr) row = flag;
    const bool is_switch = row != nullptr && (row->type == Type::kBool || row->type == Type::kTrue);
    if (!value && !is_switch && next_ < args_.size() && args_[next_] == "@") {
      ++next_;
      return File(Rooted(path));
    }
    if (const std::string yes = WithoutNo(path); !value && row == nullptr && !yes.empty()) {
      words_.Set(Rooted(yes), Json(false), name);
      return {};
    }
    // Of an open table's member nobody knows whether it is a switch.
    if (!value && row != nullptr && !is_switch && row->type != Type::kJson && !WordFollows())
      return FailParam(Code::kInvalidArgument, name, "{} wants a value", Excerpt(name));
    RlTree said;
    said.Set(Rooted(path), value ? MemberValue(*value) : is_switch ? Switch() : Words(), name);
    words_.Lay(said);  // a table joins what earlier words have said of its members
    return {};
  }

  // --no-x.y and, as pydantic writes it, --x.no-y; "" for other words.
  static std::string WithoutNo(const std::string& path) {
    if (path.starts_with("no_")) return path.substr(3);
    const size_t last = path.rfind('.');
    if (last == path.npos || !path.substr(last + 1).starts_with("no_")) return "";
    return Format("{}.{}", path.substr(0, last), path.substr(last + 4));
  }

  Json Switch() {
    const bool said = next_ < args_.size() && (args_[next_] == "true" || args_[next_] == "false" ||
                                               args_[next_] == "True" || args_[next_] == "False");
    return said ? Json(args_[next_++]) : Json(true);
  }

  bool WordFollows() const {
    return next_ < args_.size() && !IsFlag(args_[next_]) && !args_[next_].starts_with('@');
  }

  // No word: a switch. Several: a list.
  Json Words() {
    Json::Array words;
    while (WordFollows()) words.push_back(MemberValue(args_[next_++]));
    if (words.empty()) return Json(true);
    return words.size() == 1 ? words.front() : Json(std::move(words));
  }

  std::span<const std::string> args_;
  std::string root_;
  size_t next_ = 0;
  std::vector<std::string> open_;  // files whose bases are being laid
  RlTree words_;
  RlLayers layers_;
};

// PRIME_INFERENCE__PARALLEL__TP. What lies in one of our tables is ours, right or wrong; others of this
// beginning belong to other programs.
void TakeVariables(const Environment& env, RlTree& tree) {
  for (const auto& [name, text] : env) {
    if (!name.starts_with("PRIME_") || text.empty()) continue;
    std::string path = name.substr(6);
    std::ranges::transform(path, path.begin(), [](unsigned char c) { return std::tolower(c); });
    for (size_t at; (at = path.find("__")) != path.npos;) {
      path[at] = '.';
      path.erase(at + 1, 1);
    }
    const size_t dot = path.find('.');
    const bool in_a_table = dot != path.npos && IsRlTable(std::string_view(path).substr(0, dot));
    const auto parts = SplitPath(path);
    if (parts.size() > kMaxDepth || std::ranges::any_of(parts, &std::string::empty)) continue;
    if (in_a_table || FindRlKey(path) != nullptr) tree.Set(path, MemberValue(text), name);
  }
}

// "None" in a word or variable, as in a file.
void NoneToNull(Json& value) {
  if (value.is_string() && value.AsString() == "None") value = Json();
}

}  // namespace

std::vector<std::string> SplitPath(std::string_view path) {
  std::vector<std::string> parts;
  while (true) {
    const size_t dot = path.find('.');
    parts.emplace_back(path.substr(0, dot));
    if (dot == path.npos) return parts;
    path.remove_prefix(dot + 1);
  }
}

const Json* RlTree::Find(std::string_view path) const {
  const Json* at = &values;
  for (const std::string& key : SplitPath(path)) {
    if (!at->is_object()) return nullptr;
    at = at->Find(key);
    if (at == nullptr) return nullptr;
  }
  return at->is_null() ? nullptr : at;
}

void RlTree::Set(std::string_view path, Json value, std::string source) {
  NoneToNull(value);
  Json* at = &values;
  for (const std::string& key : SplitPath(path)) {
    if (!at->is_object()) *at = Json(Json::Object{});
    if (at->Find(key) == nullptr) at->Set(key, Json());
    at = at->Find(key);
  }
  *at = std::move(value);
  sources[std::string(path)] = std::move(source);
}

void RlTree::Merge(Json& into, const Json& over) {
  for (const auto& [key, value] : over.AsObject()) {
    Json* place = into.Find(key);
    if (place == nullptr) {
      into.Set(key, value);
    } else if (place->is_object() && value.is_object()) {
      Merge(*place, value);
    } else if (place->is_array() && value.is_object() && !value.AsObject().empty()) {
      // --orchestrator.env.0.id: a member of a list's item. What is no number replaces the list.
      Json list = *place;
      bool all = true;
      for (const auto& [number, item] : value.AsObject()) {
        const auto index = ParseInt(number);
        all = all && index && *index >= 0 && *index <= static_cast<int64_t>(list.AsArray().size());
        if (!all) break;
        const auto at = static_cast<size_t>(*index);
        if (at == list.AsArray().size()) list.Push(Json());
        Json& old = list.AsArray()[at];
        if (old.is_object() && item.is_object()) {
          Merge(old, item);
        } else {
          old = item;
        }
      }
      *place = all ? list : value;
    } else {
      *place = value;
    }
  }
}

void RlTree::Lay(const RlTree& over) {
  Merge(values, over.values);
  for (const auto& [path, source] : over.sources) sources[path] = source;
}

std::string RlTree::Source(std::string_view path) const {
  for (std::string_view at = path; !at.empty(); at = at.substr(0, at.find_last_of('.'))) {
    if (const auto found = sources.find(at); found != sources.end()) return found->second;
    if (at.find('.') == at.npos) break;
  }
  return "";
}

bool RlTree::Bool(std::string_view path, bool fallback) const {
  const Json* value = Find(path);
  return value && value->is_bool() ? value->AsBool() : fallback;
}
int64_t RlTree::Int(std::string_view path, int64_t fallback) const {
  const Json* value = Find(path);
  return value && value->is_int() ? value->AsInt() : fallback;
}
std::string RlTree::Text(std::string_view path, std::string_view fallback) const {
  const Json* value = Find(path);
  return value && value->is_string() ? value->AsString() : std::string(fallback);
}

Result<RlLayers> ReadRlLayers(std::span<const std::string> args, const Environment& env,
                              bool inference_only) {
  Reader reader(args, inference_only);
  CADRE_TRY(reader.Read());
  RlLayers layers = reader.Take();
  RlTree all;
  TakeVariables(env, all);
  all.Lay(layers.tree);
  layers.tree = std::move(all);
  return layers;
}

}  // namespace cadre::config
