#pragma once
// Token ids of one sequence -> text, piece by piece as they are sampled.
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "text/tokenizer.h"

namespace cadre::text {

/// Not thread safe; one for each sequence. The tokenizer must outlive it.
///
/// The text of all pushes and the flush together is what Decode gives for all ids, with one exception: a run
/// of more than kMaxHeldBytes byte tokens (<0x41>) is let go while it is valid, though it may turn out
/// damaged later.
class Detokenizer {
 public:
  static constexpr size_t kMaxHeldBytes = 64;

  /// A sequence from its start: the first token may lose a leading space, as in Decode.
  Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens);
  /// A sequence behind a prompt, whose last ids are given (some four to eight are enough): no text of theirs
  /// comes out, but the first push knows that it does not begin the text, and may complete a code point that
  /// the prompt left unfinished.
  Detokenizer(const Tokenizer& tokenizer, std::span<const int32_t> prompt_tail, bool skip_special_tokens);

  /// Takes the next id; returns the text that is now certain: whole code points, perhaps none. Unknown ids
  /// are nothing. Cost: the token's length, amortised.
  std::string Push(int32_t id);
  /// Returns what was held back, damaged bytes as U+FFFD. No Push may follow.
  std::string Flush();

 private:
  std::string LessPrompt(std::string text);

  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  std::unique_ptr<DecodeStream> stream_;
  std::string prompt_held_;  // text of the prompt that was still held when it ended
};

}  // namespace cadre::text
