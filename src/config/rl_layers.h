#pragma once
// prime-rl's configuration as one tree: files (`@ a.toml @ b.toml`), what they inherit (`toml_files`),
// dotted words (`--inference.parallel.tp 2`) and PRIME_ variables.
//
// Precedence, lowest first: variables, inherited files, the file itself, later files, words. Tables are
// merged member by member, everything else is replaced. So a file's own key always wins over what it
// inherits.
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "config/environment.h"

namespace cadre::config {

class RlTree {
 public:
  /// The value at a dotted path; nullptr if there is none or it is null.
  const Json* Find(std::string_view path) const;
  /// Sets a value, with tables above it made where there are none.
  void Set(std::string_view path, Json value, std::string source);
  /// Lays another tree over this one.
  void Lay(const RlTree& over);
  /// Who said it: "configs/debug/rl_ep.toml:12", "--inference.parallel.tp"; "" if nobody.
  std::string Source(std::string_view path) const;

  // What CheckRlKeys has converted; unset gives the fallback.
  bool Bool(std::string_view path, bool fallback) const;
  int64_t Int(std::string_view path, int64_t fallback) const;
  std::string Text(std::string_view path, std::string_view fallback) const;

  Json values = Json(Json::Object{});
  std::map<std::string, std::string, std::less<>> sources;  ///< dotted path -> who said it

 private:
  static void Merge(Json& into, const Json& over);
};

struct RlLayers {
  RlTree tree;
  std::vector<std::string> files;  ///< in the order in which they were laid
  bool help = false;
};

/// Reads the words after `cadre rl`, or after `cadre inference`: then files and words speak of [inference]
/// alone, and the tree has them below "inference". Errors: kNotFound, kInvalidArgument with file and line; an
/// inheritance that leads back to itself is named.
Result<RlLayers> ReadRlLayers(std::span<const std::string> args, const Environment& env, bool inference_only);

/// The parts of "a.b.c".
std::vector<std::string> SplitPath(std::string_view path);

}  // namespace cadre::config
