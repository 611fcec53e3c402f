#include "text/chat_template.h"

#include "text/jinja_ast.h"
#include "text/jinja_eval.h"

namespace cadre {

using jinja::EvalError;

ChatTemplate::ChatTemplate(std::shared_ptr<const jinja::Program> program) : program_(std::move(program)) {}

Result<ChatTemplate> ChatTemplate::Compile(std::string source) {
  constexpr size_t kMaxSourceBytes = 4u << 20;
  if (source.size() > kMaxSourceBytes) {
    return FailParam(Code::kInvalidArgument, "chat_template",
                     "the chat template has {} bytes; at most {} are read", source.size(), kMaxSourceBytes);
  }
  CADRE_ASSIGN(std::shared_ptr<const jinja::Program> program, jinja::Parse(std::move(source)));
  return ChatTemplate(std::move(program));
}

Result<std::string> ChatTemplate::Render(const Json& context, const RenderLimits& limits) const {
  if (!context.is_object()) {
    return Fail(Code::kInvalidArgument, "the context of a chat template must be an object, not {}",
                context.TypeName());
  }
  int line = 0;
  try {
    // Built inside the try: the context itself may pass a limit.
    jinja::Interpreter interpreter(*program_, context, limits, &line);
    return interpreter.Run();
  } catch (EvalError& e) {
    if (e.kind == EvalError::Kind::kRaised)
      return FailParam(Code::kInvalidArgument, "messages", "{}", e.message);
    return FailParam(Code::kInvalidArgument, "chat_template", "chat template, line {}: {}", line, e.message);
  }
}

bool ChatTemplate::Mentions(std::string_view variable) const {
  return program_->names.contains(variable);
}

const std::string& ChatTemplate::source() const {
  return program_->source;
}

}  // namespace cadre
