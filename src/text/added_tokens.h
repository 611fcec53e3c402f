#pragma once
// Tokens that stand beside the model: control tokens and others that are found in the text before anything
// else happens to it. Those that are not "normalized" are looked for in the text as it came; the others, in
// normal form, in what is left of it after the normalizer. Longest first, from left to right.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/trie.h"

namespace cadre::text {

struct AddedToken {
  std::string content;
  std::string shown;  ///< what its id stands for: the content, in normal form if `normalized`
  int32_t id = -1;
  bool single_word = false;  ///< found only where no word goes on at either side
  bool lstrip = false;       ///< takes the whitespace before it along
  bool rstrip = false;       ///< takes the whitespace behind it along
  bool normalized = true;    ///< looked for in normalized text
  bool special = false;      ///< left out of decoded text on demand
};

class AddedTokens {
 public:
  /// A part of a text: a token, or text between tokens (id -1).
  struct Part {
    std::string_view text;
    int32_t id = -1;
  };

  /// Reads "added_tokens". Ids come from the vocabulary where it has the content, else they count on from its
  /// end: so does the reference library, whatever the file says.
  Status Read(const Json& json, const Model& model);
  /// Adds one more, or gives the flags of `token` to the one with its content.
  void Add(AddedToken token, const Model& model);
  /// To be called once after all Add: prepares Split. `normalizer` may be null.
  void Prepare(const Normalizer* normalizer);

  /// Cuts text that is not normalized yet (or, `normalized`, that is) at the tokens in it. Parts are not
  /// empty.
  void Split(std::string_view text, bool normalized, std::vector<Part>& parts) const;
  bool has_normalized() const { return !normalized_.empty(); }

  const AddedToken* Find(std::string_view content) const;
  const AddedToken* Find(int32_t id) const;
  /// One more than the greatest id; 0 if there are none.
  int32_t id_end() const;
  const std::vector<AddedToken>& list() const { return list_; }

 private:
  std::vector<AddedToken> list_;
  std::unordered_map<std::string, size_t> by_content_;
  std::unordered_map<int32_t, size_t> by_id_;
  int32_t greatest_id_ = -1;
  Trie plain_;
  Trie normalized_;
};

/// Reads one token: {"content": ..., flags} (`what` names it in messages).
Result<AddedToken> ReadAddedToken(const Json& json, const std::string& what);

}  // namespace cadre::text
