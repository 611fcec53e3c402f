#pragma once
// The chat template of a model: the Jinja2 that published templates are written in, with the settings that
// the transformers library gives it (trim_blocks, lstrip_blocks, loop controls, `generation`, an immutable
// sandbox). Template and messages are both hostile: every render is bounded in steps, memory, depth and
// output.
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace cadre {

/// What one Render may use. The defaults fit chats of millions of tokens and end a runaway template within a
/// second.
struct RenderLimits {
  int64_t max_steps = 20'000'000;       ///< nodes evaluated + items visited + bytes moved / 64
  size_t max_output_bytes = 64u << 20;  ///< of the rendered text, and of any captured block
  size_t max_value_bytes = 64u << 20;   ///< of one string or list
  size_t max_live_bytes = 256u << 20;   ///< of all values that exist at one time
  int max_depth = 1000;                 ///< nested evaluations: expressions, macros, values inside values
  size_t max_stack_bytes = 384u << 10;  ///< of the calling thread's stack
  std::optional<std::tm> now;           ///< what strftime_now sees (local time); absent: the system's clock
};

namespace jinja {
struct Program;
}

/// A compiled template. Immutable: one object may be rendered by many threads at once.
class ChatTemplate {
 public:
  /// Parses `source`. Errors: kInvalidArgument with the line for what is no Jinja, kUnsupported for what
  /// needs other template files (include, import, extends). Needs up to 512 KiB of stack, as Render does.
  static Result<ChatTemplate> Compile(std::string source);

  /// Renders with the members of the JSON object `context` as variables (messages, tools, documents,
  /// add_generation_prompt, bos_token, ... and any keyword argument of the request). `context` is only read.
  /// Errors: kInvalidArgument. When the template itself called raise_exception, `message` is exactly its
  /// message and `param` is "messages"; for everything else, limits included, `message` names the template's
  /// line and `param` is "chat_template". Cost: about 50 ns per expression; 20 messages take 15 to 50 us.
  Result<std::string> Render(const Json& context, const RenderLimits& limits = {}) const;

  /// True if the template reads a variable of this name somewhere ("tools", "enable_thinking", ...).
  bool Mentions(std::string_view variable) const;

  const std::string& source() const;

 private:
  explicit ChatTemplate(std::shared_ptr<const jinja::Program> program);
  std::shared_ptr<const jinja::Program> program_;
};

/// The templates of a model folder and the special tokens that belong into their context.
struct ChatTemplateSource {
  std::string text;      ///< the default template; empty if the folder has none
  std::string tool_use;  ///< the one for requests with tools; empty: use `text`
  std::string origin;    ///< the file that `text` is from, for messages
  Json special_tokens =
      Json::Object();  ///< "bos_token", "eos_token", ... -> text; "additional_special_tokens" -> list

  const std::string& For(bool has_tools) const { return has_tools && !tool_use.empty() ? tool_use : text; }
  /// Adds the special tokens to a context, where it has no member of that name yet: arguments of the request
  /// win.
  void AddSpecialTokens(Json& context) const;
};

/// Finds the chat template of a model folder as the transformers library does: `chat_template.jinja` (with
/// `additional_chat_templates/tool_use.jinja`), else `chat_template` in `tokenizer_config.json` (a string, or
/// a list of {name, template}: "default" and "tool_use"), else `chat_template.json`. Special tokens come from
/// `tokenizer_config.json` and, where it lacks them, from `special_tokens_map.json`; as strings or as
/// AddedToken objects. A folder without any template is no error: `text` is empty then. Errors: kNotFound (no
/// such folder), kDataLoss (a file that cannot be read or has the wrong shape; the file is named).
Result<ChatTemplateSource> FindChatTemplate(const std::string& folder);

}  // namespace cadre
