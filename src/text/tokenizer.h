#pragma once
// Text <-> token ids, as the model's own tokenizer.json (or SentencePiece's tokenizer.model) says.
//
//   text -> valid UTF-8 -> added tokens cut out -> normalizer -> pre-tokenizer -> model -> post-processor ->
//   ids ids -> tokens -> decoder -> text
//
// "truncation" and "padding" of the file have no effect: they are for training batches, and transformers,
// through which others load these files, resets them as well.
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "text/added_tokens.h"
#include "text/decoder.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer_config.h"

namespace cadre::text {

/// Immutable once made; every method may be called from any thread.
class Tokenizer {
 public:
  /// Reads tokenizer.json of a model's folder, or tokenizer.model if there is none, and tokenizer_config.json
  /// for the tokens with a role. Errors: kNotFound (neither is there), kUnsupported (a component that is not
  /// known, by name), kInvalidArgument (a damaged file). Cost: about 15 ms a MiB of tokenizer.json.
  static Result<std::unique_ptr<Tokenizer>> Load(const std::string& folder);
  /// The same from the bytes of a tokenizer.json alone.
  static Result<std::unique_ptr<Tokenizer>> FromJson(std::string_view tokenizer_json);
  ~Tokenizer();

  /// Ids of `text`; bytes that are no UTF-8 count as U+FFFD. `add_special_tokens` lets the post-processor put
  /// its tokens around (special tokens *in* the text are always found). Cost: n log n at worst, some 10 MB/s.
  std::vector<int32_t> Encode(std::string_view text, bool add_special_tokens) const;

  /// Text of `ids`, valid UTF-8. Unknown ids count as nothing; special tokens too if `skip_special_tokens`.
  std::string Decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  /// One more than the greatest id (of the model and the added tokens).
  int32_t vocab_size() const { return vocab_size_; }
  std::optional<int32_t> TokenToId(std::string_view token) const;
  /// The token as the vocabulary writes it.
  std::optional<std::string_view> IdToToken(int32_t id) const;
  bool IsSpecial(int32_t id) const;
  /// The raw bytes that a token stands for in the middle of a text (not always UTF-8); empty for an unknown
  /// id.
  std::string_view TokenBytes(int32_t id) const;

  std::optional<int32_t> bos_id() const { return TokenToId(config_.bos); }
  std::optional<int32_t> eos_id() const { return TokenToId(config_.eos); }
  std::optional<int32_t> pad_id() const { return TokenToId(config_.pad); }
  /// Their contents, for chat templates; empty: none.
  const std::string& bos_token() const { return config_.bos; }
  const std::string& eos_token() const { return config_.eos; }

  /// For Detokenizer: a decoding of one sequence, which this tokenizer must outlive.
  std::unique_ptr<DecodeStream> StartDecoding(size_t max_held_bytes) const {
    return decoder_.Start(max_held_bytes);
  }
  /// Feeds one id to it.
  void Feed(DecodeStream& stream, int32_t id, bool skip_special_tokens, std::string& out) const;

 private:
  Tokenizer();
  static Result<std::unique_ptr<Tokenizer>> FromFolder(const std::string& folder);
  Status ReadJson(const Json& json);
  Status ReadSentencePiece(const std::string& path, std::string_view bytes);
  void UseConfig(TokenizerConfig config);
  void Finish();
  void EncodePart(std::string_view text, bool at_start, Scratch& scratch, std::vector<int32_t>& ids) const;
  void EncodePieces(Piece whole, Scratch& scratch, std::vector<int32_t>& ids) const;
  std::unique_ptr<Scratch> TakeScratch() const;
  void PutBack(std::unique_ptr<Scratch> scratch) const;

  AddedTokens added_;
  std::unique_ptr<Normalizer> normalizer_;
  PreTokenizers pre_tokenizers_;
  std::unique_ptr<Model> model_;
  PostProcessor post_processor_;
  Decoder decoder_;
  TokenizerConfig config_;
  int32_t vocab_size_ = 0;
  std::vector<bool> is_special_;       // by id
  std::string token_bytes_;            // of all ids, one behind the other
  std::vector<uint32_t> bytes_begin_;  // by id, and the end

  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> idle_;  // guarded by mutex_
};

}  // namespace cadre::text
