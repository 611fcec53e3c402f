#include "text/splitter.h"

namespace cadre::text {
namespace {

struct Part {
  Span span;
  bool is_match;
};

// Matches and what lies between them, in order.
void FillGaps(size_t size, const std::vector<Span>& matches, bool invert, std::vector<Part>& parts) {
  size_t done = 0;
  for (const Span& match : matches) {
    if (match.begin > done) parts.push_back({{done, match.begin}, invert});
    parts.push_back({match, !invert});
    done = match.end;
  }
  if (done < size) parts.push_back({{done, size}, invert});
}

// A match goes to the part before it, unless that one is a match.
void MergeBackward(const std::vector<Part>& parts, std::vector<Span>& spans) {
  bool after_match = false;
  for (const Part& part : parts) {
    if (part.is_match && !after_match && !spans.empty()) {
      spans.back().end = part.span.end;
    } else {
      spans.push_back(part.span);
    }
    after_match = part.is_match;
  }
}

// A match goes to the part behind it, unless that one is a match.
void MergeForward(const std::vector<Part>& parts, std::vector<Span>& spans) {
  for (size_t i = 0; i < parts.size(); ++i) {
    spans.push_back(parts[i].span);
    if (!parts[i].is_match || i + 1 == parts.size() || parts[i + 1].is_match) continue;
    spans.back().end = parts[++i].span.end;
  }
}

void MergeAlike(const std::vector<Part>& parts, std::vector<Span>& spans) {
  bool after_match = false;
  for (const Part& part : parts) {
    if (part.is_match == after_match && !spans.empty()) {
      spans.back().end = part.span.end;
    } else {
      spans.push_back(part.span);
    }
    after_match = part.is_match;
  }
}

}  // namespace

Result<SplitBehavior> ParseSplitBehavior(std::string_view name, std::string_view where) {
  if (name == "Removed" || name == "removed") return SplitBehavior::kRemoved;
  if (name == "Isolated" || name == "isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious" || name == "merged_with_previous")
    return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext" || name == "merged_with_next") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous" || name == "contiguous") return SplitBehavior::kContiguous;
  return Fail(
      Code::kInvalidArgument,
      "{}.behavior \"{}\" must be Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous", where,
      name);
}

void Splitter::SplitPiece(const Piece& piece, const std::vector<Span>& matches,
                          std::vector<Piece>& out) const {
  const auto emit = [&](const Span& span) {
    if (span.begin >= span.end) return;
    out.push_back({piece.text.substr(span.begin, span.end - span.begin), piece.at_start && span.begin == 0});
  };
  if (behavior_ == SplitBehavior::kIsolated) {  // the usual case needs no list
    size_t done = 0;
    for (const Span& match : matches) {
      emit({done, match.begin});
      emit(match);
      done = match.end;
    }
    emit({done, piece.text.size()});
    return;
  }
  std::vector<Part> parts;
  FillGaps(piece.text.size(), matches, invert_, parts);
  std::vector<Span> spans;
  switch (behavior_) {
    case SplitBehavior::kMergedWithPrevious:
      MergeBackward(parts, spans);
      break;
    case SplitBehavior::kMergedWithNext:
      MergeForward(parts, spans);
      break;
    case SplitBehavior::kContiguous:
      MergeAlike(parts, spans);
      break;
    default:
      for (const Part& part : parts) {
        if (!part.is_match) spans.push_back(part.span);
      }
  }
  for (const Span& span : spans) emit(span);
}

}  // namespace cadre::text
