// Published templates, with any JSON object as the request.
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "text/chat_template.h"

namespace {

std::vector<cadre::ChatTemplate> LoadTemplates() {
  std::vector<cadre::ChatTemplate> templates;
  for (const char* name : {"Qwen-Qwen3-0.6B", "GLM-4.7-Flash", "openai-gpt-oss-120b"}) {
    std::ifstream in(std::string(CADRE_SOURCE_DIR "/src/text/testdata/") + name + ".jinja");
    auto compiled =
        cadre::ChatTemplate::Compile({std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()});
    CADRE_CHECK(compiled.has_value() && !compiled->source().empty());
    templates.push_back(std::move(*compiled));
  }
  return templates;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const kTemplates = new std::vector<cadre::ChatTemplate>(LoadTemplates());
  const auto context = cadre::Json::Parse({reinterpret_cast<const char*>(data), size});
  if (!context.has_value() || !context->is_object()) return 0;
  cadre::RenderLimits limits;
  limits.max_steps = 200'000;
  limits.max_output_bytes = limits.max_value_bytes = 1 << 20;
  limits.max_live_bytes = 16 << 20;
  limits.now.emplace();
  for (const cadre::ChatTemplate& compiled : *kTemplates) {
    const auto got = compiled.Render(*context, limits);
    CADRE_CHECK(got.has_value() || !got.error().param.empty());
  }
  return 0;
}
