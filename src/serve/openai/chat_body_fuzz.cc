// Bytes -> the body of /v1/chat/completions -> schema, messages, session and answer, on an engine without a
// model.
#include "serve/body_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return cadre::serve::FuzzBody(cadre::serve::ChatCompletions, {reinterpret_cast<const char*>(data), size});
}
