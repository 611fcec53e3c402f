#pragma once
// What lies beside tokenizer.json: tokenizer_config.json (and special_tokens_map.json of older models) name
// the tokens with a role and add some that tokenizer.json may lack.
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "text/added_tokens.h"

namespace cadre::text {

struct TokenizerConfig {
  std::string bos, eos, pad, unk;  // contents; empty: none
  std::optional<bool> add_bos, add_eos;
  std::string tokenizer_class;
  std::vector<AddedToken> added;  // "added_tokens_decoder", by id; the ids in the file are not used
};

/// Reads the two files of a folder; one that is not there is not missed. Errors name the file.
Result<TokenizerConfig> ReadTokenizerConfig(const std::string& folder);

/// The bytes of a file of at most 1 GiB; nullopt if there is no such file.
Result<std::optional<std::string>> ReadWholeFile(const std::string& path);

}  // namespace cadre::text
