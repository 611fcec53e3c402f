// A --config file and a command line made of one input: lines before a line `--` are the file, those after it
// words.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "config/config_file.h"
#include "config/parse.h"
#include "config/settle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cadre::config;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t border = text.find("\n--\n");
  if (auto file = ParseYaml(text.substr(0, border))) {
    Settlement settled(Command::kServe);
    if (settled.TakeFile(*file, "fuzz.yaml")) {
      ServeOptions options;
      Targets targets{};
      std::get<ModelOptions*>(targets) = &options.engine.model;
      std::get<ParallelOptions*>(targets) = &options.engine.parallel;
      std::get<EplbOptions*>(targets) = &options.engine.parallel.eplb;
      std::get<HttpOptions*>(targets) = &options.http;
      if (settled.Fill(targets)) (void)settled.Refuse();
    }
  }
  if (border == text.npos) return 0;
  std::vector<std::string> words;
  for (std::string_view rest = text.substr(border + 4); !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view word = rest.substr(0, end);
    if (!word.starts_with("--config") && !word.starts_with("--conf")) words.emplace_back(word);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  (void)ParseServe(words, {{"VLLM_CPU_OMP_THREADS_BIND", words.empty() ? "auto" : words[0]}});
  (void)ParseBenchServe(words, {});
  return 0;
}
