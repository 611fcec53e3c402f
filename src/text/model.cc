#include "text/model.h"

#include "base/format.h"
#include "text/json_fields.h"

namespace cadre::text {

void Scratch::Trim() {
  constexpr size_t kKeep = 1 << 16;  // elements; a few MiB in all
  const auto trim = [](auto& buffer) {
    if (buffer.capacity() > kKeep) buffer = {};
  };
  trim(symbols);
  trim(heap);
  trim(ids);
  trim(ranks);
  trim(text);
  trim(nodes);
  trim(pieces);
}

std::vector<int32_t> ByteTokenIds(const Vocab& vocab) {
  std::vector<int32_t> ids(256);
  for (int b = 0; b < 256; ++b) ids[static_cast<size_t>(b)] = vocab.Find(fmt::format("<0x{:02X}>", b));
  return ids;
}

Result<std::unique_ptr<Model>> MakeModel(const Json& json, bool& raw_bytes) {
  if (!json.is_object()) {
    return Fail(Code::kInvalidArgument, "model: expected an object, found {}", json.TypeName());
  }
  const Json* vocab = json.Find("vocab");
  std::string type;
  if (json.Find("type") != nullptr) {
    CADRE_ASSIGN(type, TypeOf(json, "model"));
  } else {  // files of old versions have no type
    type = json.Find("merges") != nullptr          ? "BPE"
           : vocab != nullptr && vocab->is_array() ? "Unigram"
                                                   : "WordPiece";
  }
  if (type == "BPE") return MakeBpe(json, raw_bytes);
  raw_bytes = false;
  if (type == "Unigram") return MakeUnigram(json);
  return Fail(Code::kUnsupported, "model.type \"{}\" is not supported; Cadre knows BPE and Unigram", type);
}

}  // namespace cadre::text
