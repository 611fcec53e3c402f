#pragma once
// The "decoder" of a tokenizer.json: tokens -> text.
//
// Every step is written as a small machine that takes tokens as they come and lets go of text as soon as
// nothing that follows can change it. Decoding all ids at once and streaming them one by one are the same
// code, so their results are the same by construction, and a token costs its own length, not the length of
// what came before.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "text/regex.h"

namespace cadre::text {

struct DecoderStep {
  enum class Kind { kByteLevel, kByteFallback, kFuse, kReplace, kStrip, kMetaspace, kBpe, kWordPiece, kJoin };
  Kind kind;
  Pattern pattern;  // Replace
  std::string
      text;  // Replace: content; Strip: the character; Metaspace: its mark; Bpe: suffix; WordPiece: prefix
  size_t start = 0;   // Strip: at most so many at the beginning of a piece
  size_t stop = 0;    // and at its end
  bool flag = false;  // Metaspace: drop the marks of the first piece; WordPiece: cleanup
};

/// One running decoding. Not thread safe; the Decoder must outlive it.
class DecodeStream {
 public:
  virtual ~DecodeStream() = default;
  /// Takes the next token (its text in the vocabulary) and appends the text that is now certain: valid UTF-8.
  virtual void Push(std::string_view token, std::string& out) = 0;
  /// Takes the raw bytes of a ByteLevel token in its place; only if Decoder::takes_bytes().
  virtual void PushBytes(std::string_view bytes, std::string& out) = 0;
  /// Appends what was held back. Nothing may follow.
  virtual void Finish(std::string& out) = 0;
};

class Decoder {
 public:
  /// `json` may be null: tokens are then joined by spaces. Errors name the component that is not known.
  Status Read(const Json& json);
  /// The decoder of SentencePiece models.
  static Decoder ForSentencePiece(bool strips_first_space);

  /// `max_held_bytes`: ByteFallback lets go of whole code points after so many byte tokens in a row. Until a
  /// run ends it can still turn out damaged, and then every byte of it becomes U+FFFD: exact decoding sets no
  /// limit.
  std::unique_ptr<DecodeStream> Start(size_t max_held_bytes) const;
  bool takes_bytes() const;

  /// The bytes that a token stands for in the middle of a text.
  std::string BytesOf(std::string_view token) const;

 private:
  Status Add(const Json& json, const std::string& where, int depth);

  std::vector<DecoderStep> steps_;
};

}  // namespace cadre::text
