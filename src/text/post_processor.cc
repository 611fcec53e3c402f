#include "text/post_processor.h"

#include "base/format.h"
#include "text/json_fields.h"
#include "text/vocab.h"

namespace cadre::text {
namespace {

constexpr int kMaxDepth = 16;
constexpr size_t kMaxSteps = 16;
constexpr size_t kMaxItems = 64;

bool IsTokenId(const Json& json) {
  return json.is_int() && json.AsInt() >= 0 && json.AsInt() < Vocab::kMaxId;
}

}  // namespace

Status PostProcessor::Add(const Json& json, const std::string& where, int depth) {
  if (depth > kMaxDepth) return Fail(Code::kInvalidArgument, "{}: nested too deep", where);
  if (steps_.size() > kMaxSteps) return Fail(Code::kInvalidArgument, "{}: too many processors", where);
  CADRE_ASSIGN(const std::string type, TypeOf(json, where));
  if (type == "Sequence") {
    CADRE_ASSIGN(const Json* parts, ArrayField(json, "processors", where));
    for (size_t i = 0; i < parts->AsArray().size(); ++i) {
      CADRE_TRY(Add(parts->AsArray()[i], fmt::format("{}.processors[{}]", where, i), depth + 1));
    }
    return {};
  }
  if (type == "ByteLevel") return {};  // moves offsets only
  if (type == "TemplateProcessing") return AddTemplate(json, where);
  if (type == "BertProcessing" || type == "RobertaProcessing") return AddPair(json, where);
  return Fail(
      Code::kUnsupported,
      "{}.type \"{}\" is not known; Cadre knows Sequence, ByteLevel, TemplateProcessing, BertProcessing and "
      "RobertaProcessing",
      where, type);
}

Status PostProcessor::AddTemplate(const Json& json, const std::string& where) {
  CADRE_ASSIGN(const Json* single, ArrayField(json, "single", where));
  const Json* specials = json.Find("special_tokens");
  Step step;
  size_t num_texts = 0;
  for (const Json& item : single->AsArray()) {
    if (item.Find("Sequence") != nullptr) {
      step.items.push_back(kText);
      ++num_texts;
      continue;
    }
    const Json* special = item.Find("SpecialToken");
    const Json* name = special == nullptr ? nullptr : special->Find("id");
    if (name == nullptr || !name->is_string()) {
      return Fail(Code::kInvalidArgument, "{}.single: expected \"SpecialToken\" or \"Sequence\" objects",
                  where);
    }
    const Json* token = specials == nullptr ? nullptr : specials->Find(name->AsString());
    const Json* ids = token == nullptr ? nullptr : token->Find("ids");
    if (ids == nullptr || !ids->is_array()) {
      return Fail(Code::kInvalidArgument, "{}.special_tokens has no ids for \"{}\"", where, name->AsString());
    }
    for (const Json& id : ids->AsArray()) {
      if (!IsTokenId(id)) return Fail(Code::kInvalidArgument, "{}.special_tokens: a bad token id", where);
      step.items.push_back(static_cast<int32_t>(id.AsInt()));
    }
  }
  if (step.items.size() > kMaxItems ||
      num_texts > 1) {  // a text said twice, in a row of templates, grows without end
    return Fail(Code::kUnsupported, "{}.single: more than {} tokens, or the text more than once", where,
                kMaxItems);
  }
  steps_.push_back(std::move(step));
  return {};
}

// "cls" before and "sep" behind the text, each a pair of content and id.
Status PostProcessor::AddPair(const Json& json, const std::string& where) {
  Step step;
  step.only_with_special = true;
  for (const char* key : {"cls", "sep"}) {
    const Json* pair = json.Find(key);
    if (pair == nullptr || !pair->is_array() || pair->AsArray().size() != 2 ||
        !IsTokenId(pair->AsArray()[1])) {
      return Fail(Code::kInvalidArgument, "{}.{}: expected a token and its id", where, key);
    }
    step.items.push_back(static_cast<int32_t>(pair->AsArray()[1].AsInt()));
  }
  step.items.insert(step.items.begin() + 1, kText);
  steps_.push_back(std::move(step));
  return {};
}

void PostProcessor::Surround(int32_t first, int32_t last) {
  Step step;
  step.only_with_special = true;
  if (first >= 0) step.items.push_back(first);
  step.items.push_back(kText);
  if (last >= 0) step.items.push_back(last);
  if (step.items.size() > 1) steps_.push_back(std::move(step));
}

void PostProcessor::Apply(std::vector<int32_t>& ids, bool add_special_tokens) const {
  for (const Step& step : steps_) {
    if (step.only_with_special && !add_special_tokens) continue;
    std::vector<int32_t> out;
    out.reserve(ids.size() + step.items.size());
    for (const int32_t item : step.items) {
      if (item == kText) {
        out.insert(out.end(), ids.begin(), ids.end());
      } else if (add_special_tokens) {
        out.push_back(item);
      }
    }
    ids = std::move(out);
  }
}

}  // namespace cadre::text
