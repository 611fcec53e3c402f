#include "text/tokenizer.h"

#include <algorithm>
#include <limits>

#include "base/format.h"
#include "text/sentencepiece_model.h"
#include "text/utf8.h"

namespace cadre::text {
namespace {

const Json& MemberOrNull(const Json& json, std::string_view key) {
  static const Json null;
  const Json* found = json.Find(key);
  return found == nullptr ? null : *found;
}

}  // namespace

Tokenizer::Tokenizer() = default;
Tokenizer::~Tokenizer() = default;

Result<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& folder) {
  auto tokenizer = FromFolder(folder);
  if (!tokenizer) return tokenizer;
  (*tokenizer)->Finish();
  return tokenizer;
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromFolder(const std::string& folder) {
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer());
  CADRE_ASSIGN(TokenizerConfig config, ReadTokenizerConfig(folder));
  const std::string path = folder + "/tokenizer.json";
  CADRE_ASSIGN(const auto text, ReadWholeFile(path));
  if (text) {
    auto json = Json::Parse(*text);
    if (!json) return Fail(Code::kInvalidArgument, "{}: {}", path, json.error().message);
    if (auto read = tokenizer->ReadJson(*json); !read) {
      return Fail(read.error().code, "{}: {}", path, read.error().message);
    }
  } else {
    const std::string model_path = folder + "/tokenizer.model";
    CADRE_ASSIGN(const auto model, ReadWholeFile(model_path));
    if (!model) {
      return Fail(Code::kNotFound, "no tokenizer in {}: neither tokenizer.json nor tokenizer.model is there",
                  folder);
    }
    CADRE_TRY(tokenizer->ReadSentencePiece(model_path, *model));
  }
  tokenizer->UseConfig(std::move(config));
  return tokenizer;
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view tokenizer_json) {
  CADRE_ASSIGN(const Json json, Json::Parse(tokenizer_json));
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer());
  CADRE_TRY(tokenizer->ReadJson(json));
  tokenizer->Finish();
  return tokenizer;
}

Status Tokenizer::ReadJson(const Json& json) {
  if (!json.is_object()) return Fail(Code::kInvalidArgument, "expected an object, found {}", json.TypeName());
  CADRE_ASSIGN(normalizer_, MakeNormalizer(MemberOrNull(json, "normalizer"), "normalizer"));
  if (normalizer_ != nullptr &&
      (normalizer_->growth() > kMaxGrowth || normalizer_->num_passes() > kMaxPasses)) {
    return Fail(Code::kUnsupported,
                "normalizer: {} steps that may let a text grow {}-fold; the most is {} and {}",
                normalizer_->num_passes(), normalizer_->growth(), kMaxPasses, kMaxGrowth);
  }
  CADRE_TRY(pre_tokenizers_.Read(MemberOrNull(json, "pre_tokenizer")));
  bool raw_bytes = pre_tokenizers_.ends_with_letters();
  CADRE_ASSIGN(model_, MakeModel(MemberOrNull(json, "model"), raw_bytes));
  if (raw_bytes) pre_tokenizers_.KeepRawBytes();
  CADRE_TRY(post_processor_.Read(MemberOrNull(json, "post_processor")));
  CADRE_TRY(decoder_.Read(MemberOrNull(json, "decoder")));
  return added_.Read(MemberOrNull(json, "added_tokens"), *model_);
}

Status Tokenizer::ReadSentencePiece(const std::string& path, std::string_view bytes) {
  CADRE_ASSIGN(SentencePiece piece, LoadSentencePiece(path, bytes));
  model_ = std::move(piece.model);
  decoder_ = Decoder::ForSentencePiece(piece.adds_space);
  is_special_ = std::move(piece.is_special);
  config_.bos = piece.bos;
  config_.eos = piece.eos;
  config_.add_bos = true;  // LlamaTokenizer's default, for which models come without tokenizer.json
  return {};
}

void Tokenizer::UseConfig(TokenizerConfig config) {
  const Vocab& vocab = model_->vocab();
  for (const AddedToken& token : config.added) {
    if (added_.Find(token.content) == nullptr) added_.Add(token, *model_);
  }
  for (const std::string* role : {&config.bos, &config.eos, &config.pad, &config.unk}) {
    if (role->empty() || added_.Find(*role) != nullptr || vocab.Find(*role) < 0) continue;
    AddedToken token;
    token.content = *role;
    token.special = true;
    token.normalized = false;
    added_.Add(std::move(token), *model_);
  }
  if (config.bos.empty()) config.bos = config_.bos;
  if (config.eos.empty()) config.eos = config_.eos;
  if (!config.add_bos) config.add_bos = config_.add_bos;
  config_ = std::move(config);
  if (post_processor_.adds_tokens()) return;  // tokenizer.json says it itself
  const bool adds_bos = config_.add_bos.value_or(false);
  const bool adds_eos = config_.add_eos.value_or(false);
  post_processor_.Surround(adds_bos ? bos_id().value_or(-1) : -1, adds_eos ? eos_id().value_or(-1) : -1);
}

// The tables by id, once all tokens are known.
void Tokenizer::Finish() {
  added_.Prepare(normalizer_.get());
  vocab_size_ = std::max(model_->vocab().id_end(), added_.id_end());
  is_special_.resize(static_cast<size_t>(vocab_size_), false);
  bytes_begin_.reserve(static_cast<size_t>(vocab_size_) + 1);
  for (int32_t id = 0; id < vocab_size_; ++id) {
    bytes_begin_.push_back(static_cast<uint32_t>(token_bytes_.size()));
    const auto token = IdToToken(id);
    if (!token) continue;
    token_bytes_ += decoder_.BytesOf(*token);
    // By content: a vocabulary may hold it twice. One whose normal form differs is not special to the
    // reference library either.
    const AddedToken* added = added_.Find(*token);
    if (added != nullptr && added->special) is_special_[static_cast<size_t>(id)] = true;
  }
  bytes_begin_.push_back(static_cast<uint32_t>(token_bytes_.size()));
}

std::optional<int32_t> Tokenizer::TokenToId(std::string_view token) const {
  if (token.empty()) return std::nullopt;
  if (const AddedToken* added = added_.Find(token)) return added->id;
  const int32_t id = model_->vocab().Find(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::optional<std::string_view> Tokenizer::IdToToken(int32_t id) const {
  if (const AddedToken* added = added_.Find(id)) return added->shown;
  if (!model_->vocab().Has(id)) return std::nullopt;
  return model_->vocab().Text(id);
}

bool Tokenizer::IsSpecial(int32_t id) const {
  return id >= 0 && id < vocab_size_ && is_special_[static_cast<size_t>(id)];
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  if (id < 0 || id >= vocab_size_) return {};
  const auto at = static_cast<size_t>(id);
  return std::string_view(token_bytes_).substr(bytes_begin_[at], bytes_begin_[at + 1] - bytes_begin_[at]);
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, bool add_special_tokens) const {
  std::string repaired;
  if (ValidUtf8Prefix(text) != text.size()) {
    repaired = RepairUtf8(text);
    text = repaired;
  }
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  std::vector<AddedTokens::Part> parts;
  added_.Split(text, false, parts);
  std::unique_ptr<Scratch> scratch = TakeScratch();
  for (const auto& part : parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      EncodePart(part.text, part.text.data() == text.data(), *scratch, ids);
    }
  }
  PutBack(std::move(scratch));
  post_processor_.Apply(ids, add_special_tokens);
  return ids;
}

void Tokenizer::EncodePart(std::string_view text, bool at_start, Scratch& scratch,
                           std::vector<int32_t>& ids) const {
  Normalized normalized;
  if (normalizer_ != nullptr) {
    normalized.text = text;
    normalizer_->Apply(normalized);
    text = normalized.text;
    at_start = at_start && !normalized.lost_start;
  }
  if (!added_.has_normalized()) return EncodePieces({text, at_start}, scratch, ids);
  std::vector<AddedTokens::Part> parts;
  added_.Split(text, true, parts);
  for (const auto& part : parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      EncodePieces({part.text, at_start && part.text.data() == text.data()}, scratch, ids);
    }
  }
}

void Tokenizer::EncodePieces(Piece whole, Scratch& scratch, std::vector<int32_t>& ids) const {
  if (whole.text.empty()) return;
  PieceList list;
  list.pieces.push_back(whole);
  pre_tokenizers_.Apply(list);
  for (const Piece& piece : list.pieces) {
    if (!piece.text.empty()) model_->Encode(piece.text, scratch, ids);
  }
}

std::unique_ptr<Scratch> Tokenizer::TakeScratch() const {
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) return std::make_unique<Scratch>();
  std::unique_ptr<Scratch> scratch = std::move(idle_.back());
  idle_.pop_back();
  return scratch;
}

void Tokenizer::PutBack(std::unique_ptr<Scratch> scratch) const {
  constexpr size_t kMaxIdle = 16;  // of about 2 MiB each
  scratch->Trim();
  const std::lock_guard lock(mutex_);
  if (idle_.size() < kMaxIdle) idle_.push_back(std::move(scratch));
}

void Tokenizer::Feed(DecodeStream& stream, int32_t id, bool skip_special_tokens, std::string& out) const {
  if (skip_special_tokens && IsSpecial(id)) return;
  if (decoder_.takes_bytes()) {
    stream.PushBytes(TokenBytes(id), out);
  } else if (const auto token = IdToToken(id)) {
    stream.Push(*token, out);
  }
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string out;
  const auto stream = StartDecoding(std::numeric_limits<size_t>::max());
  for (const int32_t id : ids) Feed(*stream, id, skip_special_tokens, out);
  stream->Finish(out);
  return out;
}

}  // namespace cadre::text
