#include "deploy/own_words.h"

#include <algorithm>

#include "sys/files.h"

namespace cadre::deploy {

Result<std::vector<std::string>> OwnWords() {
  CADRE_ASSIGN(const std::string all, sys::ReadFile("/proc/self/cmdline", 1 << 20));
  std::vector<std::string> words;
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = std::min(all.find('\0', begin), all.size());
    words.push_back(all.substr(begin, end - begin));
    begin = end + 1;
  }
  if (!words.empty()) words.erase(words.begin());
  return words;
}

}  // namespace cadre::deploy
