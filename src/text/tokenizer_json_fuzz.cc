// Bytes of a tokenizer.json, a line of 0xFF, and a text: the file must load or give an error, and what loads
// must encode and decode the text, stream as it decodes, and give valid UTF-8. Without a 0xFF the text is a
// fixed one.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/log.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  cadre::ConfigureLog(cadre::LogLevel::kOff, "", false);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cadre::text;
  std::string_view json(reinterpret_cast<const char*>(data), size);
  std::string_view text = "Hello  w\xC3\xB6rld! <s> 123\n\xF0\x9F\x98\x80 \xE2\x96\x81 a\xFF";
  if (const size_t mark = json.find('\xFF'); mark != json.npos) {
    text = json.substr(mark + 1).substr(0, 4096);
    json = json.substr(0, mark);
  }
  const auto tokenizer = Tokenizer::FromJson(json);
  if (!tokenizer) return 0;
  const auto ids = (*tokenizer)->Encode(text, true);
  const std::string decoded = (*tokenizer)->Decode(ids, false);
  CADRE_CHECK(ValidUtf8Prefix(decoded) == decoded.size());
  Detokenizer detokenizer(**tokenizer, false);
  std::string streamed;
  for (const int32_t id : ids) {
    const std::string piece = detokenizer.Push(id);
    CADRE_CHECK(ValidUtf8Prefix(piece) == piece.size());
    streamed += piece;
  }
  streamed += detokenizer.Flush();
  CADRE_CHECK(ids.size() > Detokenizer::kMaxHeldBytes || streamed == decoded);
  for (const int32_t id : ids) (*tokenizer)->TokenBytes(id);
  return 0;
}
