#pragma once
// From OpenAI's messages to the context that a chat template is rendered with.
#include "base/error.h"
#include "base/json.h"
#include "session/request.h"
#include "session/text_model.h"

namespace cadre::session {

/// How a template wants message contents: one string, or OpenAI's list of parts.
enum class ContentFormat { kAuto, kString, kParts };

/// kParts if the template loops over a message's content, else kString. (kAuto is never returned.)
ContentFormat DetectContentFormat(std::string_view template_source);

/// Checks messages and brings contents into the format: text parts become lines of one string or stay a list,
/// tool call arguments become objects. Errors: kInvalidArgument / kUnsupported with the path
/// ("messages[1].content[0]").
Result<Json> NormalizeMessages(const Json& messages, ContentFormat format);

/// Renders a chat to the prompt's text.
Result<std::string> RenderPrompt(const ChatPrompt& chat, const TextModel& text, ContentFormat format);

}  // namespace cadre::session
