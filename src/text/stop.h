#pragma once
// Finds stop strings in text that comes in pieces.
//
// The strings form one automaton (Aho and Corasick 1975): every byte moves it on at amortised constant cost,
// whatever the strings and the text. Its depth is the length of the longest end of the text that begins a
// stop string: just so much is held back. The match that ends first wins; of those that end together, the one
// listed first. So the answer does not depend on how the text was cut.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cadre::text {

/// A copy shares the automaton and costs little: one matcher built for a request serves all of its sequences.
class StopMatcher {
 public:
  struct Match {
    size_t index;  ///< of the stop string in the list
    size_t begin;  ///< its offset in all text pushed (bytes)
    size_t end;
  };

  /// Empty strings are left out. `keep_stop`: the stop string belongs to the text that is handed out
  /// (include_stop_str_in_output).
  StopMatcher(const std::vector<std::string>& stops, bool keep_stop);

  /// Takes the next piece (valid UTF-8) and returns the text that may be sent on. After a match nothing more
  /// comes out. `may_stop` false: matches that end in this piece do not count (min_tokens).
  std::string Push(std::string_view piece, bool may_stop = true);
  /// The text ended without a match: returns what was held back.
  std::string Flush();

  const std::optional<Match>& match() const { return match_; }

 private:
  class Automaton;

  bool keep_stop_;
  std::shared_ptr<const Automaton> automaton_;
  uint32_t state_ = 0;
  std::string held_;   // the end of the text that was not handed out
  size_t pushed_ = 0;  // bytes of text so far
  std::optional<Match> match_;
};

}  // namespace cadre::text
