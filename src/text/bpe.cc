// Byte-pair encoding, byte-level or over code points (SentencePiece style, with byte fallback).
//
// Two things make it quick. A word that was met before comes from the cache. And where a tokenizer has no
// pre-tokenizer, the whole text is one word: it is then cut before every "▁" that follows something else, if
// no merge has a right side that begins with "▁" behind a left side that does not end with it; no merge can
// then reach over such a border, so the parts merge as the whole would.
#include <array>
#include <string>

#include "base/format.h"
#include "base/log.h"
#include "text/bpe_merges.h"
#include "text/byte_level.h"
#include "text/json_fields.h"
#include "text/model.h"
#include "text/utf8.h"

namespace cadre::text {
namespace {

constexpr std::string_view kBar = "\xE2\x96\x81";  // U+2581, SentencePiece's space

class Bpe : public Model {
 public:
  Status Read(const Json& json, bool& raw_bytes);
  void Encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const override;

 private:
  Status ReadVocab(const Json& json);
  Status ReadMerges(const Json& json);
  Status AddMerge(std::string_view left, std::string_view right, size_t index);
  Status CheckUnknown();
  bool HasAllLetters() const;

  void EncodeWord(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;
  int32_t FindWhole(std::string_view word) const;
  void Letters(std::string_view word, Scratch& scratch) const;

  BpeMerges merges_;
  std::string prefix_;  // continuing_subword_prefix
  std::string suffix_;  // end_of_word_suffix
  std::string unknown_;
  int32_t unknown_id_ = -1;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
  bool raw_bytes_ = false;
  bool cut_at_bars_ = true;
  std::vector<int32_t> byte_tokens_;     // <0x00>...; empty without byte_fallback
  std::array<int32_t, 256> byte_ids_{};  // raw bytes: the token of each byte's letter
  std::vector<int32_t> points_;          // code points below 0x3000, without prefix or suffix: token or -1
};

Status Bpe::ReadVocab(const Json& json) {
  const Json* vocab = json.Find("vocab");
  if (vocab == nullptr || !vocab->is_object()) {
    return Fail(Code::kInvalidArgument, "model.vocab: expected an object of token: id");
  }
  size_t bytes = 0;
  for (const auto& [token, id] : vocab->AsObject()) bytes += token.size();
  if (bytes > UINT32_MAX) return Fail(Code::kInvalidArgument, "model.vocab: more than 4 GiB of tokens");
  vocab_.Reserve(vocab->AsObject().size(), bytes);
  for (const auto& [token, id] : vocab->AsObject()) {
    if (!id.is_int() || id.AsInt() < 0 || id.AsInt() >= Vocab::kMaxId) {
      return Fail(Code::kInvalidArgument, "model.vocab: the id of \"{}\" must be an integer from 0 to {}",
                  token, Vocab::kMaxId - 1);
    }
    vocab_.Add(token, static_cast<int32_t>(id.AsInt()));
  }
  return {};
}

Status Bpe::AddMerge(std::string_view left, std::string_view right, size_t index) {
  std::string whole(left);
  whole += right.substr(std::min(prefix_.size(), right.size()));
  const std::array<std::string_view, 3> texts = {left, right, whole};
  std::array<int32_t, 3> ids{};
  for (size_t i = 0; i < texts.size(); ++i) {
    ids[i] = vocab_.Find(texts[i]);
    if (ids[i] < 0) {
      return Fail(Code::kInvalidArgument, "model.merges[{}]: token \"{}\" is not in model.vocab", index,
                  texts[i]);
    }
  }
  merges_.Add(ids[0], ids[1], ids[2]);
  if (right.starts_with(kBar) && !left.ends_with(kBar)) cut_at_bars_ = false;
  return {};
}

Status Bpe::ReadMerges(const Json& json) {
  CADRE_ASSIGN(const Json* merges, ArrayField(json, "merges", "model"));
  const Json::Array& list = merges->AsArray();
  merges_.Reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const Json& merge = list[i];
    if (merge.is_string()) {  // "left right"; tokens hold no space in files of this kind
      const std::string_view text = merge.AsString();
      if (text.starts_with("#version")) continue;
      const size_t space = text.find(' ');
      if (space == text.npos || text.find(' ', space + 1) != text.npos) {
        return Fail(Code::kInvalidArgument,
                    "model.merges[{}]: expected two tokens with one space between them", i);
      }
      CADRE_TRY(AddMerge(text.substr(0, space), text.substr(space + 1), i));
    } else if (merge.is_array() && merge.AsArray().size() == 2 && merge.AsArray()[0].is_string() &&
               merge.AsArray()[1].is_string()) {
      CADRE_TRY(AddMerge(merge.AsArray()[0].AsString(), merge.AsArray()[1].AsString(), i));
    } else {
      return Fail(Code::kInvalidArgument, "model.merges[{}]: expected a pair of tokens", i);
    }
  }
  return {};
}

bool Bpe::HasAllLetters() const {
  for (const char16_t letter : ByteLetters()) {
    std::string text;
    AppendUtf8(text, letter);
    if (vocab_.Find(text) < 0) return false;
  }
  return true;
}

// An unk_token that the vocabulary lacks is harmless only where nothing can be unknown.
Status Bpe::CheckUnknown() {
  if (unknown_.empty()) return {};
  unknown_id_ = vocab_.Find(unknown_);
  bool covered = HasAllLetters();
  if (!byte_tokens_.empty()) {
    covered = true;
    for (const int32_t id : byte_tokens_) covered = covered && id >= 0;
  }
  if (unknown_id_ >= 0 || covered) return {};
  return Fail(Code::kInvalidArgument, "model.unk_token \"{}\" is not in model.vocab", unknown_);
}

Status Bpe::Read(const Json& json, bool& raw_bytes) {
  CADRE_ASSIGN(unknown_, TextField(json, "unk_token", "", "model"));
  CADRE_ASSIGN(prefix_, TextField(json, "continuing_subword_prefix", "", "model"));
  CADRE_ASSIGN(suffix_, TextField(json, "end_of_word_suffix", "", "model"));
  CADRE_ASSIGN(fuse_unknown_, BoolField(json, "fuse_unk", false, "model"));
  CADRE_ASSIGN(ignore_merges_, BoolField(json, "ignore_merges", false, "model"));
  CADRE_ASSIGN(const bool byte_fallback, BoolField(json, "byte_fallback", false, "model"));
  const Json* dropout = json.Find("dropout");
  if (dropout != nullptr && dropout->is_number() && dropout->AsDouble() != 0) {
    LogWarning("tokenizer.json: model.dropout has no effect here; it is for training");
  }
  CADRE_TRY(ReadVocab(json));
  CADRE_TRY(ReadMerges(json));
  if (byte_fallback) byte_tokens_ = ByteTokenIds(vocab_);
  CADRE_TRY(CheckUnknown());
  raw_bytes = raw_bytes_ = raw_bytes && prefix_.empty() && suffix_.empty() && HasAllLetters();
  if (ignore_merges_ || !prefix_.empty() || !suffix_.empty() || vocab_.Find(kBar) < 0) cut_at_bars_ = false;
  for (size_t b = 0; b < 256 && raw_bytes_; ++b) {
    std::string text;
    AppendUtf8(text, ByteLetters()[b]);
    byte_ids_[b] = vocab_.Find(text);
  }
  if (!raw_bytes_ && prefix_.empty() && suffix_.empty()) {
    points_.resize(0x3000);
    for (char32_t cp = 0; cp < points_.size(); ++cp) {
      std::string text;
      AppendUtf8(text, cp);
      points_[cp] = vocab_.Find(text);
    }
  }
  return {};
}

void Bpe::Encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const {
  if (!cut_at_bars_ || raw_bytes_) return EncodeWord(piece, scratch, out);
  size_t begin = 0;
  bool after_bar = true;
  for (size_t pos = 0; pos < piece.size();) {
    const size_t bar = piece.find(kBar[0], pos);
    if (bar == piece.npos) break;
    const bool is_bar = piece.substr(bar).starts_with(kBar);
    if (is_bar && bar > begin && !(after_bar && bar == pos)) {
      EncodeWord(piece.substr(begin, bar - begin), scratch, out);
      begin = bar;
    }
    pos = bar + Utf8Length(piece[bar]);
    after_bar = is_bar;
  }
  if (begin < piece.size()) EncodeWord(piece.substr(begin), scratch, out);
}

void Bpe::EncodeWord(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const {
  bool hit = false;
  WordCache::Slot* slot = scratch.cache.Find(word, hit);
  if (hit) {
    out.insert(out.end(), slot->ids, slot->ids + slot->num_ids);
    return;
  }
  std::vector<int32_t>& ids = scratch.ids;
  ids.clear();
  const int32_t whole = ignore_merges_ ? FindWhole(word) : -1;
  if (whole >= 0) {
    ids.push_back(whole);
  } else if (raw_bytes_) {
    for (const char b : word) ids.push_back(byte_ids_[static_cast<unsigned char>(b)]);
    merges_.Merge(scratch);
  } else {
    Letters(word, scratch);
    merges_.Merge(scratch);
  }
  if (slot != nullptr) scratch.cache.Store(*slot, word, ids);
  out.insert(out.end(), ids.begin(), ids.end());
}

int32_t Bpe::FindWhole(std::string_view word) const {
  return raw_bytes_ ? vocab_.Find(BytesToLetters(word)) : vocab_.Find(word);
}

// The code points of `word` as tokens, with bytes or the unknown token for those that the vocabulary lacks.
// An unknown one is held back until the next known one, and bytes do not count as known: so their order can
// change. That is what the reference library does.
void Bpe::Letters(std::string_view word, Scratch& scratch) const {
  std::vector<int32_t>& ids = scratch.ids;
  bool pending = false;
  for (size_t pos = 0; pos < word.size();) {
    const size_t start = pos;
    const char32_t cp = NextCodePoint(word, pos);
    std::string_view text = word.substr(start, pos - start);
    int32_t id = -1;
    if (cp < points_.size()) {
      id = points_[cp];
    } else {
      if (!prefix_.empty() || !suffix_.empty()) {
        scratch.text.clear();
        if (start > 0) scratch.text += prefix_;
        scratch.text += text;
        if (pos == word.size()) scratch.text += suffix_;
        text = scratch.text;
      }
      id = vocab_.Find(text);
    }
    if (id >= 0) {
      if (pending) ids.push_back(unknown_id_);
      pending = false;
      ids.push_back(id);
      continue;
    }
    bool has_bytes = !byte_tokens_.empty();
    for (const char b : text) has_bytes = has_bytes && byte_tokens_[static_cast<unsigned char>(b)] >= 0;
    if (has_bytes) {
      for (const char b : text) ids.push_back(byte_tokens_[static_cast<unsigned char>(b)]);
    } else if (unknown_id_ >= 0) {
      if (pending && !fuse_unknown_) ids.push_back(unknown_id_);
      pending = true;
    }
  }
  if (pending) ids.push_back(unknown_id_);
}

}  // namespace

Result<std::unique_ptr<Model>> MakeBpe(const Json& json, bool& raw_bytes) {
  auto bpe = std::make_unique<Bpe>();
  CADRE_TRY(bpe->Read(json, raw_bytes));
  return bpe;
}

}  // namespace cadre::text
