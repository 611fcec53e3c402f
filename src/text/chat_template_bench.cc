// A chat of 20 messages through published templates: what a request pays before its first token is encoded.
#include <benchmark/benchmark.h>

#include <fstream>
#include <iterator>

#include "text/chat_template.h"

namespace cadre {
namespace {

std::string Source(const char* name) {
  std::ifstream in(std::string(CADRE_SOURCE_DIR "/src/text/testdata/") + name + ".jinja");
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

Json Chat(int num_messages, bool tools) {
  Json context((Json::Object()));
  Json messages((Json::Array()));
  for (int i = 0; i < num_messages; ++i) {
    Json message((Json::Object()));
    message.Set("role", i == 0 ? "system" : i % 2 == 1 ? "user" : "assistant");
    message.Set("content", std::string(400, static_cast<char>('a' + i)) + "\n<b>text</b> \"quoted\"");
    messages.Push(std::move(message));
  }
  context.Set("messages", std::move(messages));
  context.Set("add_generation_prompt", true);
  if (tools) {
    context.Set(
        "tools",
        Json::Parse(R"([{"type": "function", "function": {"name": "weather", "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Where"},
        "days": {"type": "integer"}, "unit": {"type": "string", "enum": ["c", "f"]}}, "required": ["city"]}}}])")
            .value());
  }
  return context;
}

void BM_Render(benchmark::State& state, const char* name, bool tools) {
  const ChatTemplate compiled = ChatTemplate::Compile(Source(name)).value();
  const Json context = Chat(20, tools);
  size_t bytes = 0;
  for (auto _ : state) bytes += compiled.Render(context).value().size();
  state.SetBytesProcessed(static_cast<int64_t>(bytes));
}
BENCHMARK_CAPTURE(BM_Render, qwen3, "Qwen-Qwen3-0.6B", false);
BENCHMARK_CAPTURE(BM_Render, qwen3_tools, "Qwen-Qwen3-0.6B", true);
BENCHMARK_CAPTURE(BM_Render, glm, "GLM-4.7-Flash", false);
BENCHMARK_CAPTURE(BM_Render, gpt_oss, "openai-gpt-oss-120b", false);
BENCHMARK_CAPTURE(BM_Render, gpt_oss_tools, "openai-gpt-oss-120b", true);

void BM_Compile(benchmark::State& state) {
  const std::string source = Source("openai-gpt-oss-120b");
  for (auto _ : state) benchmark::DoNotOptimize(ChatTemplate::Compile(source));
}
BENCHMARK(BM_Compile);

}  // namespace
}  // namespace cadre
