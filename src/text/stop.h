#pragma once
// Finds stop strings in text that comes in pieces.
//
// The strings form one automaton (Aho and Corasick 1975): every byte moves it on at amortised constant cost,
// whatever the strings and the text. Its depth is the length of the longest end of the text that begins a
// stop string: just so much is held back. The match that ends first wins; of those that end together, the one
// listed first. So the answer does not depend on how the text was cut.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cadre::text {

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
  struct State {
    uint32_t fail = 0;
    uint32_t depth = 0;
    uint32_t first_edge = 0;
    uint32_t num_edges = 0;
    int32_t stop = -1;  // listed first among those that end here
  };
  struct Edge {
    unsigned char label;
    uint32_t target;
  };

  void Link(const std::vector<std::vector<Edge>>& children);
  uint32_t Child(uint32_t state, unsigned char label) const;
  uint32_t Next(uint32_t state, unsigned char label) const;
  void Build(const std::vector<std::string>& stops);

  bool keep_stop_;
  std::vector<size_t> lengths_;
  std::vector<State> states_;
  std::vector<Edge> edges_;
  uint32_t state_ = 0;
  std::string held_;   // the end of the text that was not handed out
  size_t pushed_ = 0;  // bytes of text so far
  std::optional<Match> match_;
};

}  // namespace cadre::text
