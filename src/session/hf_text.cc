#include "session/hf_text.h"

#include <algorithm>

#include "text/chat_template.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace cadre::session {
namespace {

// A missing brace tells a path from a template.
bool LooksLikeTemplate(const std::string& text) {
  return text.find('{') != std::string::npos;
}

class HfStream final : public TextStream {
 public:
  HfStream(const text::Tokenizer& tokenizer, std::span<const int32_t> prompt_tail, bool skip_special_tokens)
      : detokenizer_(tokenizer, prompt_tail, skip_special_tokens) {}
  std::string Push(int32_t token) override { return detokenizer_.Push(token); }
  std::string Flush() override { return detokenizer_.Flush(); }

 private:
  text::Detokenizer detokenizer_;
};

class HfText final : public TextModel {
 public:
  explicit HfText(std::unique_ptr<text::Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {
    for (int32_t id = 0; id < tokenizer_->vocab_size(); ++id) {
      longest_ = std::max(longest_, tokenizer_->TokenBytes(id).size());
    }
  }

  Status SetTemplates(::cadre::ChatTemplateSource source) {
    source_ = std::move(source);
    const auto compile = [&](const std::string& text, std::optional<ChatTemplate>& to) -> Status {
      if (text.empty()) return {};
      auto compiled = ChatTemplate::Compile(text);
      if (!compiled.has_value()) {
        return FailParam(compiled.error().code, "--chat-template",
                         "the chat template of {} does not work: {}", source_.origin,
                         compiled.error().message);
      }
      to = std::move(*compiled);
      return {};
    };
    CADRE_TRY(compile(source_.text, default_));
    return compile(source_.tool_use, tool_use_);
  }

  Result<std::vector<int32_t>> Encode(std::string_view text, bool add_special_tokens) const override {
    return tokenizer_->Encode(text, add_special_tokens);
  }
  std::string Decode(std::span<const int32_t> tokens, bool skip_special_tokens) const override {
    return tokenizer_->Decode(tokens, skip_special_tokens);
  }
  std::unique_ptr<TextStream> NewStream(std::span<const int32_t> prompt_tail,
                                        bool skip_special_tokens) const override {
    return std::make_unique<HfStream>(*tokenizer_, prompt_tail, skip_special_tokens);
  }
  int64_t vocab_size() const override { return tokenizer_->vocab_size(); }
  std::string TokenBytes(int32_t token) const override { return std::string(tokenizer_->TokenBytes(token)); }
  std::string TokenString(int32_t token) const override {
    return std::string(tokenizer_->IdToToken(token).value_or(std::string_view()));
  }
  std::optional<int32_t> eos() const override { return tokenizer_->eos_id(); }
  size_t longest_token_bytes() const override { return longest_; }
  const std::string& ChatTemplateSource(bool has_tools) const override { return source_.For(has_tools); }

  Result<std::string> RenderChat(const Json& context, bool has_tools,
                                 const std::string& source) const override {
    Json full = context;
    source_.AddSpecialTokens(full);
    std::optional<ChatTemplate> own;
    if (!source.empty()) {
      CADRE_ASSIGN(own, ChatTemplate::Compile(source));
    }
    const std::optional<ChatTemplate>& chosen = own ? own : has_tools && tool_use_ ? tool_use_ : default_;
    if (!chosen) return Fail(Code::kInvalidArgument, "this model has no chat template");
    auto rendered = chosen->Render(full);
    // A template that runs into its limits is this request's fault, not a sign of load.
    if (!rendered.has_value() && rendered.error().code == Code::kResourceExhausted) {
      return FailParam(Code::kInvalidArgument, "messages", "{}", rendered.error().message);
    }
    return rendered;
  }

 private:
  const std::unique_ptr<text::Tokenizer> tokenizer_;
  size_t longest_ = 1;
  ::cadre::ChatTemplateSource source_;
  std::optional<ChatTemplate> default_, tool_use_;
};

}  // namespace

Result<std::shared_ptr<const TextModel>> LoadHfText(const HfTextOptions& options) {
  CADRE_ASSIGN(auto tokenizer, text::Tokenizer::Load(options.folder));
  CADRE_ASSIGN(auto source, FindChatTemplate(options.folder));
  if (!options.chat_template.empty()) {
    source.text = options.chat_template;
    source.tool_use.clear();
    source.origin = "--chat-template";
    if (!LooksLikeTemplate(options.chat_template)) {
      CADRE_ASSIGN(const auto bytes, text::ReadWholeFile(options.chat_template));
      if (!bytes) {
        return FailParam(Code::kNotFound, "--chat-template",
                         "--chat-template '{}' is neither a file nor a template (which would hold a brace)",
                         options.chat_template);
      }
      source.text = *bytes;
      source.origin = options.chat_template;
    }
  }
  auto out = std::make_shared<HfText>(std::move(tokenizer));
  CADRE_TRY(out->SetTemplates(std::move(source)));
  return out;
}

}  // namespace cadre::session
