#pragma once
// A text side without files, for tests: a token is a byte, token 256 is the special "<eos>". The "template"
// writes "role: content\n" a message, the number of tools, and "assistant:" where a generation prompt is
// asked for.
#include <functional>

#include "session/text_model.h"

namespace cadre::session {

class FakeText final : public TextModel {
 public:
  static constexpr int32_t kEos = 256;

  Result<std::vector<int32_t>> Encode(std::string_view text, bool add_special_tokens) const override {
    if (before_encode) before_encode();
    std::vector<int32_t> out;
    if (add_special_tokens && add_bos) out.push_back(kEos);
    for (const char c : text) out.push_back(static_cast<unsigned char>(c));
    return out;
  }
  std::string Decode(std::span<const int32_t> tokens, bool skip_special_tokens) const override {
    const auto stream = NewStream({}, skip_special_tokens);
    std::string out;
    for (const int32_t token : tokens) out += stream->Push(token);
    return out + stream->Flush();
  }
  std::unique_ptr<TextStream> NewStream(std::span<const int32_t>, bool skip_special_tokens) const override {
    return std::make_unique<Stream>(*this, skip_special_tokens);
  }
  int64_t vocab_size() const override { return 257; }
  std::string TokenBytes(int32_t token) const override {
    if (token == kEos) return "<eos>";
    return token >= 0 && token < 256 ? std::string(1, static_cast<char>(token)) : std::string();
  }
  std::string TokenString(int32_t token) const override { return TokenBytes(token); }
  std::optional<int32_t> eos() const override { return kEos; }
  size_t longest_token_bytes() const override { return 5; }
  const std::string& ChatTemplateSource(bool) const override { return source; }
  Result<std::string> RenderChat(const Json& context, bool has_tools,
                                 const std::string& override_source) const override {
    if (override_source == "raise")
      return FailParam(Code::kInvalidArgument, "messages", "roles must alternate");
    std::string out = override_source;
    if (has_tools) out += Format("tools={}\n", context.Find("tools")->AsArray().size());
    if (const Json* mode = context.Find("mode")) out += "mode=" + mode->Dump() + "\n";
    for (const Json& message : context.Find("messages")->AsArray()) {
      const Json& content = *message.Find("content");
      out += message.Find("role")->AsString() + ": " +
             (content.is_string() ? content.AsString() : content.Dump()) + "\n";
    }
    if (context.Find("add_generation_prompt")->AsBool()) out += "assistant:";
    return out;
  }

  bool add_bos = false;
  std::function<void()> before_encode, before_push;  ///< may throw
  std::string source = "fake";

 private:
  class Stream final : public TextStream {
   public:
    Stream(const FakeText& text, bool skip) : text_(text), skip_(skip) {}
    std::string Push(int32_t token) override {
      if (text_.before_push) text_.before_push();
      if (token == kEos) return skip_ ? Flush() : Flush() + "<eos>";
      const auto byte = static_cast<unsigned char>(token);
      if (missing_ > 0 && (byte & 0xc0) == 0x80) {
        held_ += static_cast<char>(byte);
        return --missing_ == 0 ? std::exchange(held_, {}) : std::string();
      }
      std::string out = Flush();
      missing_ = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : byte >= 0xc0 ? 1 : 0;
      if (missing_ == 0 && byte < 0x80) return out + static_cast<char>(byte);
      if (missing_ == 0) return out + "\xef\xbf\xbd";
      held_ = std::string(1, static_cast<char>(byte));
      return out;
    }
    std::string Flush() override {
      missing_ = 0;
      return std::exchange(held_, {}).empty() ? "" : "\xef\xbf\xbd";
    }

   private:
    const FakeText& text_;
    const bool skip_;
    std::string held_;
    int missing_ = 0;
  };
};

}  // namespace cadre::session
