#include "model/quantization.h"

#include <algorithm>
#include <cctype>

namespace cadre::model {
namespace {

using checkpoint::ConfigReader;

constexpr const char* kKey = "quantization_config";
constexpr size_t kMaxSkips = 1 << 16;
constexpr size_t kMaxPattern = 512;

// One character class and how often it may come.
struct Item {
  bool members[256] = {};
  bool many = false, optional = false;
};

struct Pattern {
  std::vector<Item> items;
  bool to_end = false;
};

void AddClass(char name, Item& item) {
  for (int c = 0; c < 128; ++c) {
    const bool in = name == 'd'   ? std::isdigit(c) != 0
                    : name == 's' ? std::isspace(c) != 0
                                  : std::isalnum(c) != 0 || c == '_';
    item.members[c] |= in;
  }
}

Error NotUnderstood(std::string_view pattern, std::string_view what) {
  return {
      Code::kUnsupported,
      Format("config.json: {}: the pattern '{}' has {}, which is not understood; write names, or patterns of "
             "characters, sets, '.', '*', '+', '?'",
             kKey, pattern, what),
      kKey};
}

// [abc], [a-z], [^.]
Result<Item> ParseSet(std::string_view pattern, size_t& at) {
  Item item;
  const bool inverted = at < pattern.size() && pattern[at] == '^';
  if (inverted) ++at;
  for (bool first = true;; first = false) {
    if (at >= pattern.size()) return std::unexpected(NotUnderstood(pattern, "a set without an end"));
    char c = pattern[at++];
    if (c == ']' && !first) break;
    if (c == '\\' && at < pattern.size()) {
      c = pattern[at++];
      if (c == 'd' || c == 'w' || c == 's') {
        AddClass(c, item);
        continue;
      }
    }
    const auto low = static_cast<unsigned char>(c);
    unsigned char high = low;
    if (at + 1 < pattern.size() && pattern[at] == '-' && pattern[at + 1] != ']') {
      high = static_cast<unsigned char>(pattern[at + 1]);
      at += 2;
    }
    for (int i = low; i <= high; ++i) item.members[i] = true;
  }
  if (inverted) {
    for (bool& member : item.members) member = !member;
  }
  return item;
}

Result<Item> ParseItem(std::string_view pattern, size_t& at) {
  Item item;
  const char c = pattern[at++];
  if (c == '[') return ParseSet(pattern, at);
  if (c == '.') {
    std::fill(std::begin(item.members), std::end(item.members), true);
  } else if (c == '\\') {
    if (at >= pattern.size()) return std::unexpected(NotUnderstood(pattern, "a lone backslash"));
    const char next = pattern[at++];
    if (next == 'd' || next == 'w' || next == 's') {
      AddClass(next, item);
    } else if (std::isalnum(static_cast<unsigned char>(next))) {
      return std::unexpected(NotUnderstood(pattern, Format("\\{}", next)));
    } else {
      item.members[static_cast<unsigned char>(next)] = true;
    }
  } else if (std::string_view("(){}*+?^$").find(c) != std::string_view::npos) {
    return std::unexpected(NotUnderstood(pattern, Format("'{}' there", c)));
  } else {
    item.members[static_cast<unsigned char>(c)] = true;
  }
  return item;
}

Result<Pattern> ParsePattern(std::string_view pattern) {
  Pattern parsed;
  size_t at = pattern.starts_with('^') ? 1 : 0;
  while (at < pattern.size()) {
    if (pattern[at] == '$' && at + 1 == pattern.size()) {
      parsed.to_end = true;
      break;
    }
    CADRE_ASSIGN(Item item, ParseItem(pattern, at));
    if (at < pattern.size() && std::string_view("*+?").find(pattern[at]) != std::string_view::npos) {
      item.optional = pattern[at] != '+';
      item.many = pattern[at] != '?';
      ++at;
      if (at < pattern.size() && pattern[at] == '?')
        ++at;  // the shortest match: whether there is one is the same
    }
    parsed.items.push_back(item);
  }
  return parsed;
}

// All positions of the pattern at once: state i stands before item i.
bool Matches(const Pattern& pattern, std::string_view text) {
  const size_t end = pattern.items.size();
  std::vector<bool> now(end + 1), next(end + 1);
  const auto skip_optional = [&](std::vector<bool>& states) {
    for (size_t i = 0; i < end; ++i) {
      if (states[i] && pattern.items[i].optional) states[i + 1] = true;
    }
  };
  now[0] = true;
  skip_optional(now);
  for (const char c : text) {
    if (now[end] && !pattern.to_end) return true;
    std::fill(next.begin(), next.end(), false);
    for (size_t i = 0; i < end; ++i) {
      if (!now[i] || !pattern.items[i].members[static_cast<unsigned char>(c)]) continue;
      next[i + 1] = true;
      if (pattern.items[i].many) next[i] = true;  // may come again; past it is set above
    }
    skip_optional(next);
    now.swap(next);
  }
  return now[end];
}

// `name` stands in `layer` as a run of whole words between points.
bool HasWords(std::string_view layer, std::string_view name) {
  for (size_t at = layer.find(name); at != std::string_view::npos; at = layer.find(name, at + 1)) {
    const bool begins = at == 0 || layer[at - 1] == '.';
    const size_t end = at + name.size();
    if (begins && (end == layer.size() || layer[end] == '.')) return true;
  }
  return false;
}

void ReadSkips(ConfigReader& config, ConfigReader& quant, std::string_view key, QuantSpec& spec) {
  const auto names = quant.Strings(key);
  if (!names) return;
  if (names->size() > kMaxSkips)
    return config.Refuse(kKey, Format("at most {} entries of {}", kMaxSkips, key));
  for (const std::string& name : *names) {
    if (name.empty()) continue;
    if (name.starts_with("re:")) {
      const auto known = MatchesPattern(std::string_view(name).substr(3), "");
      if (!known) return config.Fail(known.error());
    }
    spec.skip.push_back(name);
  }
}

void ReadBlock(ConfigReader& config, ConfigReader& quant, std::string_view key, QuantSpec& spec) {
  const std::vector<int64_t> block = quant.Ints(key, 1, 1 << 20);
  if (block.empty()) return;
  if (block.size() != 2 || block[1] % 4 != 0) {
    return config.Refuse(kKey, Format("{} of [rows, columns], columns a multiple of 4", key));
  }
  spec.block_rows = static_cast<int32_t>(block[0]);
  spec.block_cols = static_cast<int32_t>(block[1]);
}

void ReadFp8(ConfigReader& config, ConfigReader& quant, QuantSpec& spec) {
  if (quant.StringOr("fmt", "e4m3") != "e4m3") return config.Refuse(kKey, "fmt \"e4m3\"");
  const std::string scheme = quant.StringOr("activation_scheme", "dynamic");
  if (scheme != "dynamic" && scheme != "static")
    return config.Refuse(kKey, "activation_scheme \"dynamic\" or \"static\"");
  spec.static_activations = scheme == "static";
  ReadBlock(config, quant, "weight_block_size", spec);
  ReadSkips(config, quant, "modules_to_not_convert", spec);
  ReadSkips(config, quant, "ignored_layers", spec);
}

// One of config_groups; all must say the same.
void ReadGroup(ConfigReader& config, const Json& group, bool first, QuantSpec& spec) {
  ConfigReader reader(group, "config.json: quantization_config.config_groups");
  const auto targets = reader.Strings("targets");
  if (targets && (targets->size() != 1 || targets->front() != "Linear"))
    return config.Refuse(kKey, "groups whose targets are [\"Linear\"]");
  const Json* weights = reader.Find("weights");
  if (weights == nullptr || !weights->is_object()) return config.Refuse(kKey, "groups with weights");
  ConfigReader scheme(*weights, "config.json: quantization_config.config_groups.weights");
  const std::string strategy = scheme.StringOr("strategy", "tensor");
  const bool known = strategy == "tensor" || strategy == "channel" || strategy == "block";
  if (scheme.IntOr("num_bits", 8, 0, 64) != 8 || scheme.StringOr("type", "int") != "float" ||
      !scheme.BoolOr("symmetric", true) || !known) {
    return config.Refuse(kKey, "weights of 8 bits of type \"float\", symmetric, by tensor, channel or block");
  }
  QuantSpec found;
  if (strategy == "block") {
    ReadBlock(config, scheme, "block_structure", found);
    if (found.block_rows == 0) return config.Refuse(kKey, "block_structure beside the strategy \"block\"");
  }
  if (!first && (found.block_rows != spec.block_rows || found.block_cols != spec.block_cols))
    return config.Refuse(kKey, "groups that are alike");
  spec.block_rows = found.block_rows;
  spec.block_cols = found.block_cols;
  if (const Json* activations = reader.Find("input_activations");
      activations != nullptr && activations->is_object()) {
    ConfigReader input(*activations, "config.json: quantization_config.config_groups.input_activations");
    const Json* dynamic = input.Find("dynamic");
    spec.static_activations |= dynamic == nullptr || *dynamic == Json(false);
  }
  if (!scheme.status()) config.Fail(scheme.status().error());
  if (!reader.status()) config.Fail(reader.status().error());
}

void ReadCompressedTensors(ConfigReader& config, ConfigReader& quant, QuantSpec& spec) {
  const Json* groups = quant.Find("config_groups");
  if (groups == nullptr || !groups->is_object() || groups->AsObject().empty())
    return config.Refuse(kKey, "config_groups with at least one group");
  bool first = true;
  for (const auto& [name, group] : groups->AsObject()) {
    ReadGroup(config, group, first, spec);
    first = false;
  }
  if (const Json* sparsity = quant.Find("sparsity_config"); sparsity != nullptr) {
    const Json* format = sparsity->Find("format");
    if (format != nullptr && *format != Json("dense")) return config.Refuse(kKey, "dense weights");
  }
  ReadSkips(config, quant, "ignore", spec);
}

}  // namespace

bool QuantSpec::Quantizes(std::string_view layer) const {
  return std::none_of(skip.begin(), skip.end(), [&](const std::string& name) {
    if (!name.starts_with("re:")) return HasWords(layer, name);
    return MatchesPattern(std::string_view(name).substr(3), layer).value_or(false);
  });
}

void ReadQuantization(ConfigReader& config, QuantSpec& quant) {
  const std::string_view key = config.AnyOf({kKey, "compression_config"});
  const Json* object = config.Find(key);
  if (object == nullptr) return;
  if (!object->is_object()) return config.Refuse(key, "an object");
  ConfigReader reader(*object, Format("{}: {}", config.where(), key));
  const std::string method = reader.StringOr("quant_method", "");
  if (method == "fp8") {
    ReadFp8(config, reader, quant);
  } else if (method == "compressed-tensors") {
    ReadCompressedTensors(config, reader, quant);
  } else {
    return config.Refuse(key,
                         "quant_method \"fp8\" and \"compressed-tensors\" (8-bit float weights), or none");
  }
  if (!reader.status()) config.Fail(reader.status().error());
  quant.method = method;
}

Result<bool> MatchesPattern(std::string_view pattern, std::string_view text) {
  if (pattern.size() > kMaxPattern)
    return std::unexpected(NotUnderstood(pattern.substr(0, 40), Format("{} characters", pattern.size())));
  bool matches = false;
  for (size_t begin = 0;
       begin <= pattern.size();) {  // '|' inside a set would be cut too: then the set has no end
    const size_t end = std::min(pattern.size(), pattern.find('|', begin));
    CADRE_ASSIGN(const Pattern parsed, ParsePattern(pattern.substr(begin, end - begin)));
    matches = matches || Matches(parsed, text);
    begin = end + 1;
  }
  return matches;
}

}  // namespace cadre::model
