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
  /// How often longer the result can be than the text (bytes), at most; and how many passes over it are made.
  /// The tokenizer refuses files that let text grow without measure: forty times "a" -> "aa" would fill any
  /// memory.
  virtual double growth() const = 0;
  virtual size_t num_passes() const { return 1; }
};

/// Most that normalizer, pre-tokenizer or decoder may let a text grow; published ones stay below a few
/// hundred.
inline constexpr double kMaxGrowth = 1 << 14;
inline constexpr size_t kMaxPasses = 256;

/// Null makes null. Errors name the component; `depth` bounds nested Sequences.
Result<std::unique_ptr<Normalizer>> MakeNormalizer(const Json& json, const std::string& where, int depth = 0);

/// For MakeNormalizer: "Precompiled", SentencePiece's table of replacements.
Result<std::unique_ptr<Normalizer>> MakePrecompiled(const Json& json, const std::string& where);

}  // namespace cadre::text
