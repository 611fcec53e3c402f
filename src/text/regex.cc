#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <atomic>

#include "base/check.h"
#include "base/log.h"
#include "text/onig_syntax.h"
#include "text/unicode_additions.h"
#include "text/utf8.h"

namespace cadre::text {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
// Steps of backtracking for one match: room for walking back over a whole text some times, which published
// patterns do (a megabyte of spaces), not for its square.
uint32_t MatchLimit(size_t text_bytes) {
  return static_cast<uint32_t>(std::min<size_t>(1'000'000 + 16 * text_bytes, UINT32_MAX));
}
constexpr size_t kJitStackBytes = 1 << 20;

// What a match needs and no two threads may share. One pair of offsets: only the whole match is asked for.
struct MatchState {
  MatchState()
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(1 << 15, kJitStackBytes, nullptr)) {
    CADRE_CHECK(data != nullptr && context != nullptr && stack != nullptr);
    pcre2_set_heap_limit(context, 16 * 1024);  // KiB; for where there is no JIT
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchState() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;

  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

MatchState& ThisThread() {
  thread_local MatchState state;
  return state;
}

// A compiled pattern.
class Program {
 public:
  Program() = default;
  ~Program() { pcre2_code_free(code); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  Status Compile(std::string_view pattern, const std::string& translated);

  pcre2_code* code = nullptr;
  bool has_jit = false;
};

Status Program::Compile(std::string_view pattern, const std::string& translated) {
  int error = 0;
  size_t offset = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  CADRE_CHECK(context != nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                       PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                       context);
  pcre2_compile_context_free(context);
  if (code == nullptr) {
    PCRE2_UCHAR message[160];
    pcre2_get_error_message(error, message, sizeof(message));
    return Fail(Code::kInvalidArgument, "regular expression '{}' does not compile: {} (at byte {} of '{}')",
                pattern, reinterpret_cast<const char*>(message), offset, translated);
  }
  has_jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
  return {};
}

}  // namespace

struct Regex::Impl {
  std::string pattern;
  Program plain;
  Program extended;  // knows the newest code points, and is slower for it; no code if it would be the same
  mutable std::atomic<bool> complained = false;
};

Regex::Regex(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

Result<Regex> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return Fail(Code::kInvalidArgument, "a regular expression of {} bytes; the most is {}", pattern.size(),
                kMaxPatternBytes);
  }
  if (ValidUtf8Prefix(pattern) != pattern.size())
    return Fail(Code::kInvalidArgument, "a regular expression that is not UTF-8");
  CADRE_ASSIGN(const std::string plain, OnigToPcre2(pattern, false));
  CADRE_ASSIGN(const std::string extended, OnigToPcre2(pattern, true));
  auto impl = std::make_unique<Impl>();
  impl->pattern = pattern;
  CADRE_TRY(impl->plain.Compile(pattern, plain));
  if (extended != plain) CADRE_TRY(impl->extended.Compile(pattern, extended));
  return Regex(std::move(impl));
}

void Regex::FindAll(std::string_view text, std::vector<Span>& matches) const {
  if (text.empty()) return;  // not even an empty match
  MatchState& state = ThisThread();
  pcre2_set_match_limit(state.context, MatchLimit(text.size()));
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const size_t* found = pcre2_get_ovector_pointer(state.data);
  const bool extends = impl_->extended.code != nullptr && HasAddedPoint(text);
  const Program& program = extends ? impl_->extended : impl_->plain;
  const auto match = program.has_jit ? &pcre2_jit_match : &pcre2_match;
  const uint32_t options = program.has_jit ? 0 : PCRE2_NO_UTF_CHECK;
  size_t from = 0;
  size_t last_end = text.size() + 1;
  while (from <= text.size()) {
    const int rc = match(program.code, subject, text.size(), from, options, state.data, state.context);
    if (rc == PCRE2_ERROR_NOMATCH) return;
    if (rc < 0) {
      if (!impl_->complained.exchange(true)) {
        LogWarning(
            "tokenizer: regular expression '{}' needs too many steps on a text; the rest is taken whole",
            impl_->pattern);
      }
      return;
    }
    const Span span{found[0], found[1]};
    if (span.end < from || span.begin > span.end || span.end > text.size())
      return;  // \K inside a look-around
    if (span.begin == span.end && span.end == last_end) {
      from += from < text.size() ? Utf8Length(text[from]) : 1;
      continue;
    }
    if (span.begin < from) return;
    matches.push_back(span);
    from = last_end = span.end;
  }
}

Result<Pattern> Pattern::FromJson(const Json& json, std::string_view where) {
  const Json* literal = json.Find("String");
  const Json* regex = json.Find("Regex");
  const Json* text = literal != nullptr ? literal : regex;
  if (text == nullptr || !text->is_string()) {
    return Fail(Code::kInvalidArgument, "{}: expected {{\"String\": text}} or {{\"Regex\": text}}", where);
  }
  Pattern pattern;
  if (literal != nullptr && !text->AsString().empty()) {
    pattern.literal_ = text->AsString();
    return pattern;
  }
  auto compiled = Regex::Compile(text->AsString());
  if (!compiled) {
    compiled.error().message = fmt::format("{}: {}", where, compiled.error().message);
    return std::unexpected(std::move(compiled).error());
  }
  pattern.regex_ = std::make_shared<const Regex>(std::move(*compiled));
  return pattern;
}

double GrowthOfReplace(const Pattern& pattern, std::string_view content) {
  const auto size = static_cast<double>(content.size());
  if (content.empty()) return 1;
  if (pattern.literal().empty()) return 1 + size;  // an expression may match nothing, before every character
  return std::max(1.0, size / static_cast<double>(pattern.literal().size()));
}

void Pattern::FindAll(std::string_view text, std::vector<Span>& matches) const {
  if (regex_ != nullptr) return regex_->FindAll(text, matches);
  for (size_t at = text.find(literal_); at != text.npos; at = text.find(literal_, at + literal_.size())) {
    matches.push_back({at, at + literal_.size()});
  }
}

}  // namespace cadre::text
