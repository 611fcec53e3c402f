#pragma once
// The model of a tokenizer: pieces of text -> token ids. Immutable; what a running Encode needs lies in
// Scratch.
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "text/vocab.h"
#include "text/word_cache.h"

namespace cadre::text {

/// Working memory of one Encode at a time; kept between calls by the tokenizer.
struct Scratch {
  WordCache cache;
  // Bpe
  struct Symbol {
    int32_t id;
    int32_t prev, next;  // index or -1
    uint32_t rank;       // of the merge with the next symbol; kNoRank if there is none
  };
  std::vector<Symbol> symbols;
  std::vector<uint64_t> heap;
  std::vector<int32_t> ids;
  std::vector<uint32_t> ranks;
  std::string text;
  // Unigram
  struct Node {
    double score;
    int32_t id;
    uint32_t start;
  };
  std::vector<Node> nodes;
  // SentencePiece
  std::vector<int> pieces;

  /// Gives back what an unusually long text needed.
  void Trim();
};

class Model {
 public:
  virtual ~Model() = default;
  /// Appends the ids of `piece` (valid UTF-8; raw bytes of it if bytes_in()) to `out`.
  virtual void Encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const = 0;
  const Vocab& vocab() const { return vocab_; }
  /// Number of tokens as the reference library counts: added tokens get the ids behind it.
  virtual size_t size() const { return vocab_.size(); }

 protected:
  Vocab vocab_;
};

/// Reads the "model" of a tokenizer.json. `raw_bytes` asks that pieces arrive as raw bytes instead of
/// ByteLevel's letters for them; it is set to false if this model cannot. Errors: kUnsupported for other
/// types, by name.
Result<std::unique_ptr<Model>> MakeModel(const Json& json, bool& raw_bytes);

// For MakeModel.
Result<std::unique_ptr<Model>> MakeBpe(const Json& json, bool& raw_bytes);
Result<std::unique_ptr<Model>> MakeUnigram(const Json& json);

/// Ids of the byte tokens <0x00> ... <0xFF>, -1 where the vocabulary has none.
std::vector<int32_t> ByteTokenIds(const Vocab& vocab);

}  // namespace cadre::text
