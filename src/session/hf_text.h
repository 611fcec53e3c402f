#pragma once
// The text side of a model folder: its tokenizer and chat template, from the text room.
#include "session/text_model.h"

namespace cadre::session {

struct HfTextOptions {
  std::string folder;         ///< with tokenizer.json or tokenizer.model
  std::string chat_template;  ///< --chat-template: a file's path, or the template itself; empty: the folder's
};

/// Loads both. A folder without a chat template is no error (chats are refused later). Errors: those of
/// text::Tokenizer::Load, FindChatTemplate and ChatTemplate::Compile, with the file.
Result<std::shared_ptr<const TextModel>> LoadHfText(const HfTextOptions& options);

}  // namespace cadre::session
