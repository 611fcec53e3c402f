#pragma once
// What a session needs of a model's text side: tokenizer, incremental detokenizer, chat template. The
// implementation over the text room is hf_text.h; tests bring a small one of their own.
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace cadre::session {

/// Turns one sequence's tokens into text as they come; never splits a code point.
class TextStream {
 public:
  virtual ~TextStream() = default;
  virtual std::string Push(int32_t token) = 0;
  virtual std::string Flush() = 0;  ///< what is left of an unfinished code point
};

/// Immutable; any thread.
class TextModel {
 public:
  virtual ~TextModel() = default;
  virtual Result<std::vector<int32_t>> Encode(std::string_view text, bool add_special_tokens) const = 0;
  virtual std::string Decode(std::span<const int32_t> tokens, bool skip_special_tokens) const = 0;
  /// `prompt_tail`: the last ids before the text, which decide whether its first token keeps a leading space.
  virtual std::unique_ptr<TextStream> NewStream(std::span<const int32_t> prompt_tail,
                                                bool skip_special_tokens) const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual std::string TokenBytes(int32_t token) const = 0;  ///< the bytes it stands for; empty: no such token
  virtual std::string TokenString(
      int32_t token) const = 0;  ///< its name in the vocabulary, as tokenizers print it
  virtual std::optional<int32_t> eos() const = 0;
  virtual size_t longest_token_bytes() const = 0;

  /// The template for requests with or without tools; empty: the model has none.
  virtual const std::string& ChatTemplateSource(bool has_tools) const = 0;
  /// Renders the model's template, or `source` if it is not empty. kInvalidArgument carries the template's
  /// message.
  virtual Result<std::string> RenderChat(const Json& context, bool has_tools,
                                         const std::string& source) const = 0;
};

}  // namespace cadre::session
