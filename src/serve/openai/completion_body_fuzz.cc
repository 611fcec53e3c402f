// Bytes -> the body of /v1/completions -> schema, request, session and answer, on an engine without a model.
#include "serve/body_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return cadre::serve::FuzzBody(cadre::serve::Completions, {reinterpret_cast<const char*>(data), size});
}
