#include "text/detokenizer.h"

#include "text/utf8.h"

namespace cadre::text {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer),
      skip_special_tokens_(skip_special_tokens),
      stream_(tokenizer.StartDecoding(kMaxHeldBytes)) {}

Detokenizer::Detokenizer(const Tokenizer& tokenizer, std::span<const int32_t> prompt_tail,
                         bool skip_special_tokens)
    : Detokenizer(tokenizer, skip_special_tokens) {
  std::string ignored;
  const auto twin = tokenizer.StartDecoding(kMaxHeldBytes);  // is finished here, to learn what is held
  for (const int32_t id : prompt_tail) {
    tokenizer_.Feed(*stream_, id, skip_special_tokens_, ignored);
    tokenizer_.Feed(*twin, id, skip_special_tokens_, ignored);
  }
  twin->Finish(prompt_held_);
}

std::string Detokenizer::Push(int32_t id) {
  std::string out;
  tokenizer_.Feed(*stream_, id, skip_special_tokens_, out);
  return LessPrompt(std::move(out));
}

std::string Detokenizer::Flush() {
  std::string out;
  stream_->Finish(out);
  return LessPrompt(std::move(out));
}

// Takes away, once, the text that was the prompt's. Where the new tokens changed it (they completed a code
// point) it counts as theirs from there on.
std::string Detokenizer::LessPrompt(std::string text) {
  if (prompt_held_.empty() || text.empty()) return text;
  size_t same = 0;
  while (same < text.size() && same < prompt_held_.size() && text[same] == prompt_held_[same]) ++same;
  while (same > 0 && same < text.size() && IsUtf8Tail(text[same])) --same;
  if (same < text.size() && same < prompt_held_.size()) {
    prompt_held_.clear();
  } else {
    prompt_held_.erase(0, same);
  }
  return text.substr(same);
}

}  // namespace cadre::text
