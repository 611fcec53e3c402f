#pragma once
// Regular expressions as tokenizer.json writes them: for Oniguruma, in its Ruby syntax. They run on PCRE2's
// JIT, which is several times faster; onig_syntax.h rewrites what the two understand differently. regex.cc is
// the only file that sees PCRE2.
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace cadre::text {

struct Span {
  size_t begin = 0;
  size_t end = 0;
};

class Regex {
 public:
  /// Compiles a pattern in Oniguruma's Ruby syntax. Errors: kInvalidArgument (does not compile), kUnsupported
  /// (a construct that is not translated), each with the pattern and the place.
  static Result<Regex> Compile(std::string_view pattern);
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  /// Appends the matches in `text` (valid UTF-8) from left to right; they do not overlap. An empty match
  /// right behind the match before it is skipped, as Oniguruma's iterators do. Effort at one place is
  /// bounded: a pattern that explodes stops matching for the rest of `text`, and says so in the log once.
  /// Thread safe.
  void FindAll(std::string_view text, std::vector<Span>& matches) const;

 private:
  struct Impl;
  explicit Regex(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// {"String": "..."} or {"Regex": "..."} in tokenizer.json.
class Pattern {
 public:
  /// `where` names the place in messages.
  static Result<Pattern> FromJson(const Json& json, std::string_view where);
  void FindAll(std::string_view text, std::vector<Span>& matches) const;
  /// The literal that is looked for; empty if it is a regular expression.
  const std::string& literal() const { return literal_; }

 private:
  std::string literal_;
  std::shared_ptr<const Regex> regex_;  // shared: a pattern may be copied into running decoders
};

/// How often longer a text can become, at most, if `content` stands for every match.
double GrowthOfReplace(const Pattern& pattern, std::string_view content);

}  // namespace cadre::text
