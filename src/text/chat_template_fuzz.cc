// Any text as a template, with a context that has one of everything.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using cadre::ChatTemplate;
  using cadre::Json;
  static const Json* const kContext = new Json(Json::Parse(R"({
    "s": "Hello, W\u00f6rld \u65e5\u672c", "n": 7, "f": -2.5, "yes": true, "nil": null, "xs": [3, 1, 2, 2],
    "d": {"b": 1, "a": [1, {"c": "deep"}], "items": 5}, "bos_token": "<s>", "eos_token": "</s>",
    "add_generation_prompt": true, "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "messages": [{"role": "system", "content": " a\nb "}, {"role": "user", "content": "<x>"},
      {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1.5]}}}]}]
  })")
                                                   .value());
  cadre::RenderLimits limits;
  limits.max_steps = 100'000;
  limits.max_output_bytes = limits.max_value_bytes = 1 << 20;
  limits.max_live_bytes = 8 << 20;
  limits.now.emplace();
  const auto compiled = ChatTemplate::Compile(std::string(reinterpret_cast<const char*>(data), size));
  if (!compiled.has_value()) return 0;
  const auto first = compiled->Render(*kContext, limits);
  // The same template and context give the same text.
  const auto second = compiled->Render(*kContext, limits);
  CADRE_CHECK(first.has_value() == second.has_value());
  CADRE_CHECK(!first.has_value() || *first == *second);
  return 0;
}
