#pragma once
// Stop strings over text that arrives in pieces. One Knuth-Morris-Pratt automaton a string: linear in the
// text whatever the strings are, and its state says how much of the end could still become a stop and must be
// held back.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cadre::session {

class StopStrings {
 public:
  /// `include`: the stop string itself stays in the text.
  StopStrings(std::vector<std::string> strings, bool include);

  bool empty() const { return stops_.empty(); }

  /// Takes the next piece and appends to `out` what may be shown by now. Returns the index of the stop string
  /// whose end came first; nothing after it is shown, and Push must not be called again.
  std::optional<size_t> Push(std::string_view piece, std::string& out);
  /// Text in which no stop string is looked for (before min_tokens); also forgets what had matched so far.
  void Pass(std::string_view piece, std::string& out);
  /// No more text: appends what was held back.
  void Flush(std::string& out);

 private:
  struct Stop {
    std::string text;
    std::vector<uint32_t> fallback;  // [i]: length of the longest border of text[0..i]
    size_t matched = 0;
  };
  std::vector<Stop> stops_;
  bool include_;
  std::string held_;
};

}  // namespace cadre::session
