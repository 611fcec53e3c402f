#pragma once
// The "pre_tokenizer" of a tokenizer.json: cuts text into the pieces that the model may not merge across.
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace cadre::text {

struct Piece {
  std::string_view text;  // valid UTF-8; raw bytes behind a final ByteLevel that was left out
  bool at_start = false;  // it begins where the whole text begins (Metaspace's "first" asks)
};

/// Pieces on their way through the pre-tokenizers. Text that had to be rewritten lies in `rewritten`.
struct PieceList {
  std::vector<Piece> pieces;
  std::deque<std::string> rewritten;
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void Apply(PieceList& list) const = 0;
  /// See Normalizer.
  virtual double growth() const { return 1; }
};

/// A whole "pre_tokenizer", sequences flattened.
class PreTokenizers {
 public:
  /// Errors name the component that is not known.
  Status Read(const Json& json);
  /// True if the only use of ByteLevel's letters is the last step.
  bool ends_with_letters() const { return ends_with_letters_; }
  /// Leaves that last step out: pieces stay raw bytes.
  void KeepRawBytes();
  void Apply(PieceList& list) const;

 private:
  Status Add(const Json& json, const std::string& where, int depth);

  std::vector<std::unique_ptr<PreTokenizer>> steps_;
  bool ends_with_letters_ = false;
  size_t num_letter_steps_ = 0;
};

}  // namespace cadre::text
