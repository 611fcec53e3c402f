#include "text/decoder.h"

#include "base/format.h"
#include "text/byte_level.h"
#include "text/decode_stages.h"
#include "text/json_fields.h"
#include "text/normalizer.h"
#include "text/utf8.h"

namespace cadre::text {
namespace {

constexpr int kMaxDepth = 16;
constexpr size_t kMaxSteps = 64;
using Kind = DecoderStep::Kind;

Result<DecoderStep> ReadStrip(const Json& json, const std::string& where) {
  DecoderStep step{Kind::kStrip, {}, {}};
  CADRE_ASSIGN(step.text, TextField(json, "content", " ", where));
  CADRE_ASSIGN(const int64_t start, IntField(json, "start", 0, where));
  CADRE_ASSIGN(const int64_t stop, IntField(json, "stop", 0, where));
  if (!IsOnePoint(step.text)) {
    return Fail(Code::kInvalidArgument, "{}.content must be one character", where);
  }
  if (start < 0 || stop < 0)
    return Fail(Code::kInvalidArgument, "{}: start and stop must not be negative", where);
  step.start = static_cast<size_t>(start);
  step.stop = static_cast<size_t>(stop);
  return step;
}

Result<DecoderStep> ReadMetaspace(const Json& json, const std::string& where) {
  DecoderStep step{Kind::kMetaspace, {}, {}};
  CADRE_ASSIGN(step.text, TextField(json, "replacement", "\xE2\x96\x81", where));
  CADRE_ASSIGN(const std::string scheme, TextField(json, "prepend_scheme", "always", where));
  CADRE_ASSIGN(const bool prefix, BoolField(json, "add_prefix_space", true, where));
  if (!IsOnePoint(step.text)) {
    return Fail(Code::kInvalidArgument, "{}.replacement must be one character", where);
  }
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return Fail(Code::kInvalidArgument, "{}.prepend_scheme \"{}\" must be first, always or never", where,
                scheme);
  }
  step.flag = prefix && scheme != "never";
  return step;
}

Result<DecoderStep> ReadStep(const std::string& type, const Json& json, const std::string& where) {
  if (type == "ByteLevel") return DecoderStep{Kind::kByteLevel, {}, {}};
  if (type == "ByteFallback") return DecoderStep{Kind::kByteFallback, {}, {}};
  if (type == "Fuse") return DecoderStep{Kind::kFuse, {}, {}};
  if (type == "Strip") return ReadStrip(json, where);
  if (type == "Metaspace") return ReadMetaspace(json, where);
  if (type == "Replace") {
    DecoderStep step{Kind::kReplace, {}, {}};
    const Json* pattern = json.Find("pattern");
    CADRE_ASSIGN(step.pattern, Pattern::FromJson(pattern != nullptr ? *pattern : Json(), where + ".pattern"));
    CADRE_ASSIGN(step.text, TextField(json, "content", "", where));
    return step;
  }
  if (type == "BPEDecoder") {
    DecoderStep step{Kind::kBpe, {}, {}};
    CADRE_ASSIGN(step.text, TextField(json, "suffix", "</w>", where));
    if (step.text.empty()) return Fail(Code::kInvalidArgument, "{}.suffix must not be empty", where);
    return step;
  }
  if (type == "WordPiece") {
    DecoderStep step{Kind::kWordPiece, {}, {}};
    CADRE_ASSIGN(step.text, TextField(json, "prefix", "##", where));
    CADRE_ASSIGN(step.flag, BoolField(json, "cleanup", true, where));
    return step;
  }
  return Fail(
      Code::kUnsupported,
      "{}.type \"{}\" is not known; Cadre knows Sequence, ByteLevel, ByteFallback, Fuse, Replace, Strip, "
      "Metaspace, BPEDecoder and WordPiece",
      where, type);
}

std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t done = 0;
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, done)) {
    out += text.substr(done, at - done);
    out += to;
    done = at + from.size();
  }
  out += text.substr(done);
  return out;
}

}  // namespace

Status Decoder::Read(const Json& json) {
  steps_.clear();
  if (json.is_null()) {
    steps_.push_back({Kind::kJoin, {}, {}});
    return {};
  }
  CADRE_TRY(Add(json, "decoder", 0));
  double growth = 1;
  for (const DecoderStep& step : steps_) {
    if (step.kind == Kind::kReplace) growth *= GrowthOfReplace(step.pattern, step.text);
    if (step.kind == Kind::kByteLevel) growth *= static_cast<double>(kReplacementText.size());
  }
  if (growth <= kMaxGrowth) return {};
  return Fail(Code::kUnsupported, "decoder: may let a text grow {}-fold; the most is {}", growth, kMaxGrowth);
}

Status Decoder::Add(const Json& json, const std::string& where, int depth) {
  if (depth > kMaxDepth) return Fail(Code::kInvalidArgument, "{}: nested too deep", where);
  if (steps_.size() > kMaxSteps) return Fail(Code::kInvalidArgument, "{}: too many decoders", where);
  CADRE_ASSIGN(const std::string type, TypeOf(json, where));
  if (type == "Sequence") {
    CADRE_ASSIGN(const Json* parts, ArrayField(json, "decoders", where));
    for (size_t i = 0; i < parts->AsArray().size(); ++i) {
      CADRE_TRY(Add(parts->AsArray()[i], fmt::format("{}.decoders[{}]", where, i), depth + 1));
    }
    return {};
  }
  CADRE_ASSIGN(DecoderStep step, ReadStep(type, json, where));
  steps_.push_back(std::move(step));
  return {};
}

Decoder Decoder::ForSentencePiece(bool strips_first_space) {
  Decoder decoder;
  DecoderStep spaces{Kind::kReplace, {}, " "};
  spaces.pattern = *Pattern::FromJson(Json(Json::Object{{"String", Json("\xE2\x96\x81")}}), "built in");
  decoder.steps_.push_back(std::move(spaces));
  decoder.steps_.push_back({Kind::kByteFallback, {}, {}});
  decoder.steps_.push_back({Kind::kFuse, {}, {}});
  if (strips_first_space) decoder.steps_.push_back({Kind::kStrip, {}, " ", 1});
  return decoder;
}

bool Decoder::takes_bytes() const {
  return !steps_.empty() && steps_.front().kind == Kind::kByteLevel;
}

std::unique_ptr<DecodeStream> Decoder::Start(size_t max_held_bytes) const {
  return StartStages(steps_, max_held_bytes);
}

std::string Decoder::BytesOf(std::string_view token) const {
  std::string text(token);
  for (const DecoderStep& step : steps_) {
    std::string bytes;
    switch (step.kind) {
      case Kind::kByteLevel:
        return LettersToBytes(text, bytes) ? bytes : text;
      case Kind::kByteFallback:
        if (const int byte = ByteOfToken(text); byte >= 0) return std::string(1, static_cast<char>(byte));
        break;
      case Kind::kReplace:
        ReplaceMatches(step.pattern, step.text, text, bytes);
        text = std::move(bytes);
        break;
      case Kind::kMetaspace:
        text = ReplaceAll(text, step.text, " ");
        break;
      case Kind::kBpe:
        text = ReplaceAll(text, step.text, " ");
        break;
      case Kind::kWordPiece:
        text = text.starts_with(step.text) ? text.substr(step.text.size()) : " " + text;
        break;
      case Kind::kFuse:
        return text;  // what follows sees the whole text, not this token
      case Kind::kStrip:
      case Kind::kJoin:
        break;
    }
  }
  return text;
}

}  // namespace cadre::text
