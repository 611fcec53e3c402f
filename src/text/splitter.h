#pragma once
// Cuts pieces at matches, in one of the five ways that tokenizer.json names.
#include <string>
#include <string_view>
#include <vector>

#include "text/pre_tokenizer.h"
#include "text/regex.h"

namespace cadre::text {

enum class SplitBehavior {
  kRemoved,             ///< matches are left out
  kIsolated,            ///< matches are pieces of their own
  kMergedWithPrevious,  ///< a match ends the piece before it
  kMergedWithNext,      ///< a match begins the piece behind it
  kContiguous,          ///< as isolated, but neighbouring matches stay together
};

Result<SplitBehavior> ParseSplitBehavior(std::string_view name, std::string_view where);

class Splitter {
 public:
  /// `invert`: what lies between the matches counts as match.
  Splitter(SplitBehavior behavior, bool invert) : behavior_(behavior), invert_(invert) {}

  /// Replaces every piece by its parts. find(text) returns the matches in a piece, ascending, not
  /// overlapping.
  template <typename Find>
  void Split(PieceList& list, Find&& find) const {
    std::vector<Piece> parts;
    parts.reserve(list.pieces.size() * 2 + 16);
    for (const Piece& piece : list.pieces) SplitPiece(piece, find(piece.text), parts);
    list.pieces = std::move(parts);
  }

 private:
  void SplitPiece(const Piece& piece, const std::vector<Span>& matches, std::vector<Piece>& out) const;

  SplitBehavior behavior_;
  bool invert_;
};

}  // namespace cadre::text
