// One input: lines before a line `--` are a TOML file, those after it words behind it. Every plan that comes
// out must be writable as files that mean the same.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "config/rl.h"
#include "config/toml_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cadre::config;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  // Other files are the machine's: some of them never end.
  if (text.find("toml_files") != text.npos || text.find('@') != text.npos) return 0;
  const size_t border = text.find("\n--\n");
  static const int file = memfd_create("rl.toml", 0);
  if (ftruncate(file, 0) != 0) return 0;
  const std::string_view toml = text.substr(0, border);
  if (pwrite(file, toml.data(), toml.size(), 0) != static_cast<ssize_t>(toml.size())) return 0;

  std::vector<std::string> words = {"@", "/proc/self/fd/" + std::to_string(file)};
  for (std::string_view rest = border == text.npos ? "" : text.substr(border + 4); !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    words.emplace_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const RlMachine machine = {.cpus = {0, 1, 2},
                             .port_is_free = [](const std::string&, int port) { return port % 7 != 0; },
                             .find_program = [](const std::string& name) { return "/bin/" + name; }};
  const auto parsed = ParseRl(words, {}, machine, false);
  if (!parsed) return 0;
  for (const RlProcess& process : parsed->options.processes) {
    if (!process.resolved.is_null()) CADRE_CHECK(ParseToml(TomlText(process.resolved)).has_value());
  }
  (void)ParseRl(words, {}, machine, true);
  return 0;
}
