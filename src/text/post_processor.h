#pragma once
// The "post_processor" of a tokenizer.json: special tokens around the ids of a text.
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace cadre::text {

class PostProcessor {
 public:
  Status Read(const Json& json) { return json.is_null() ? Status() : Add(json, "post_processor", 0); }
  /// Puts single tokens around the text (-1: none), as add_bos_token and add_eos_token ask.
  void Surround(int32_t first, int32_t last);
  /// True if it can add tokens.
  bool adds_tokens() const { return !steps_.empty(); }

  void Apply(std::vector<int32_t>& ids, bool add_special_tokens) const;

 private:
  // One template: ids to put down, or kText for those of the text so far.
  struct Step {
    std::vector<int32_t> items;
    bool only_with_special = false;  // does nothing at all where no special tokens are wanted
  };
  static constexpr int32_t kText = -1;

  Status Add(const Json& json, const std::string& where, int depth);
  Status AddTemplate(const Json& json, const std::string& where);
  Status AddPair(const Json& json, const std::string& where);

  std::vector<Step> steps_;
};

}  // namespace cadre::text
