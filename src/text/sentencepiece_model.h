#pragma once
// Models that ship tokenizer.model and no tokenizer.json run on the SentencePiece library itself.
// sentencepiece_model.cc is the only file that sees it.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/model.h"

namespace cadre::text {

struct SentencePiece {
  std::unique_ptr<Model> model;
  std::vector<bool> is_special;  // by id: control tokens and the unknown one
  std::string bos, eos;          // empty: none
  bool adds_space = false;       // it puts a space before the text, which decoding takes away
};

/// `bytes` of a serialized model; `path` is for messages.
Result<SentencePiece> LoadSentencePiece(const std::string& path, std::string_view bytes);

}  // namespace cadre::text
