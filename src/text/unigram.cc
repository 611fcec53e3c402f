// Unigram: of all ways to cut a piece into tokens, the one whose log probabilities sum to the most (Kudo
// 2018). One pass from left to right keeps the best way to reach every border; what is in no token costs the
// least score of the vocabulary less ten, code point by code point. Of equal sums the first found stays, as
// in the reference library.
#include <algorithm>
#include <limits>

#include "text/json_fields.h"
#include "text/model.h"
#include "text/trie.h"
#include "text/utf8.h"

namespace cadre::text {
namespace {

constexpr double kUnknownPenalty = 10.0;
constexpr size_t kMaxTokenBytes =
    1024;  // bounds the walk at every byte of a text; real ones have some dozens

class Unigram : public Model {
 public:
  Status Read(const Json& json);
  void Encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const override;
  size_t size() const override { return scores_.size(); }  // tokens that occur twice count twice

 private:
  void FindBest(std::string_view piece, Scratch& scratch) const;
  void Emit(std::string_view part, std::vector<int32_t>& reversed) const;

  Trie trie_;
  std::vector<double> scores_;
  double unknown_score_ = 0;
  int32_t unknown_id_ = -1;
  std::vector<int32_t> byte_tokens_;  // empty without byte_fallback
};

Status Unigram::Read(const Json& json) {
  CADRE_ASSIGN(const Json* vocab, ArrayField(json, "vocab", "model"));
  CADRE_ASSIGN(const bool byte_fallback, BoolField(json, "byte_fallback", false, "model"));
  CADRE_ASSIGN(const int64_t unknown, IntField(json, "unk_id", -1, "model"));
  const Json::Array& list = vocab->AsArray();
  if (list.size() >= Vocab::kMaxId) return Fail(Code::kInvalidArgument, "model.vocab: too many tokens");
  if (unknown < 0 || unknown >= static_cast<int64_t>(list.size())) {
    return Fail(Code::kInvalidArgument, "model.unk_id must be the index of a token in model.vocab");
  }
  unknown_id_ = static_cast<int32_t>(unknown);
  double least = std::numeric_limits<double>::infinity();
  std::vector<std::pair<std::string_view, int32_t>> keys;
  for (size_t i = 0; i < list.size(); ++i) {
    if (!list[i].is_array() || list[i].AsArray().size() != 2 || !list[i].AsArray()[0].is_string() ||
        !list[i].AsArray()[1].is_number()) {
      return Fail(Code::kInvalidArgument, "model.vocab[{}]: expected a token and its score", i);
    }
    const std::string& token = list[i].AsArray()[0].AsString();
    if (token.size() > kMaxTokenBytes) {
      return Fail(Code::kInvalidArgument, "model.vocab[{}]: a token of {} bytes; the most is {}", i,
                  token.size(), kMaxTokenBytes);
    }
    scores_.push_back(list[i].AsArray()[1].AsDouble());
    least = std::min(least, scores_.back());
    vocab_.Add(token, static_cast<int32_t>(i));
    if (!token.empty()) keys.emplace_back(token, static_cast<int32_t>(i));
  }
  trie_.Build(keys);
  unknown_score_ = least - kUnknownPenalty;
  if (byte_fallback) byte_tokens_ = ByteTokenIds(vocab_);
  return {};
}

// nodes[i]: the best way to cover the first i bytes, by the token that ends there.
void Unigram::FindBest(std::string_view piece, Scratch& scratch) const {
  constexpr uint32_t kUnreached = UINT32_MAX;
  auto& nodes = scratch.nodes;
  nodes.assign(piece.size() + 1, {0.0, -1, kUnreached});
  for (size_t start = 0; start < piece.size();) {
    const double so_far = nodes[start].score;
    const size_t length = Utf8Length(piece[start]);
    bool has_single = false;
    const auto offer = [&](size_t size, int32_t id, double score) {
      auto& node = nodes[start + size];
      if (node.start == kUnreached || so_far + score > node.score) {
        node = {so_far + score, id, static_cast<uint32_t>(start)};
      }
    };
    trie_.ForEachPrefix(piece.substr(start), [&](size_t size, int32_t id) {
      offer(size, id, scores_[static_cast<size_t>(id)]);
      has_single = has_single || size == length;
    });
    if (!has_single) offer(length, unknown_id_, unknown_score_);
    start += length;
  }
}

// A part as ids, last one first.
void Unigram::Emit(std::string_view part, std::vector<int32_t>& reversed) const {
  const int32_t id = vocab_.Find(part);
  if (id >= 0) {
    reversed.push_back(id);
    return;
  }
  bool has_bytes = !byte_tokens_.empty();
  for (const char b : part) has_bytes = has_bytes && byte_tokens_[static_cast<unsigned char>(b)] >= 0;
  if (!has_bytes) {
    reversed.push_back(unknown_id_);
    return;
  }
  for (auto b = part.rbegin(); b != part.rend(); ++b)
    reversed.push_back(byte_tokens_[static_cast<unsigned char>(*b)]);
}

void Unigram::Encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const {
  bool hit = false;
  WordCache::Slot* slot = scratch.cache.Find(piece, hit);
  if (hit) {
    out.insert(out.end(), slot->ids, slot->ids + slot->num_ids);
    return;
  }
  FindBest(piece, scratch);
  std::vector<int32_t>& ids = scratch.ids;
  ids.clear();
  for (size_t end = piece.size(); end > 0;) {
    size_t start = scratch.nodes[end].start;
    if (scratch.nodes[end].id == unknown_id_) {  // neighbours in no token become one
      while (start > 0 && scratch.nodes[start].id == unknown_id_) start = scratch.nodes[start].start;
    }
    Emit(piece.substr(start, end - start), ids);
    end = start;
  }
  std::reverse(ids.begin(), ids.end());
  if (slot != nullptr) scratch.cache.Store(*slot, piece, ids);
  out.insert(out.end(), ids.begin(), ids.end());
}

}  // namespace

Result<std::unique_ptr<Model>> MakeUnigram(const Json& json) {
  auto unigram = std::make_unique<Unigram>();
  CADRE_TRY(unigram->Read(json));
  return unigram;
}

}  // namespace cadre::text
