#pragma once
// docs/from-vllm.md, made from the tables of settings: what becomes of each flag of `vllm serve`. A test
// compares the file in the tree with this.
#include <span>
#include <string>
#include <string_view>

namespace cadre::config {

/// A flag of vLLM that does more here, or a default that is another on purpose.
struct Difference {
  std::string_view flag;  ///< without dashes in front; a row of `cadre serve` that works
  std::string_view text;  ///< sentences
};

/// In the order of the page.
std::span<const Difference> BetterFlags();
std::span<const Difference> OtherDefaults();

/// The whole page.
std::string FromVllmText();

}  // namespace cadre::config
