#pragma once
// The "normalizer" of a tokenizer.json: rewrites text before it is cut into pieces.
#include <memory>
#include <string>

#include "base/error.h"
#include "base/json.h"

namespace cadre::text {

struct Normalized {
  std::string text;         // valid UTF-8
  bool lost_start = false;  // its first code points were removed: it does not begin where the text began
};

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void Apply(Normalized& text) const = 0;
};

/// Null makes null. Errors name the component; `depth` bounds nested Sequences.
Result<std::unique_ptr<Normalizer>> MakeNormalizer(const Json& json, const std::string& where, int depth = 0);

/// For MakeNormalizer: "Precompiled", SentencePiece's table of replacements.
Result<std::unique_ptr<Normalizer>> MakePrecompiled(const Json& json, const std::string& where);

}  // namespace cadre::text
