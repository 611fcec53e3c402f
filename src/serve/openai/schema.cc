#include "serve/openai/schema.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace cadre::serve {
namespace {

using enum FieldType;
using enum FieldUse;

constexpr std::string_view kNoGrammar =
    "it needs a grammar or a parser for the answer, which is not built yet";
constexpr std::string_view kNoMedia = "it concerns images, audio and video, and only text is served";
constexpr double kMaxInt = 9.3e18;

// What both bodies have in common, in the order of vLLM's classes.
#define CADRE_COMMON_FIELDS                                                                                  \
  {.name = "model", .type = kString}, {.name = "frequency_penalty", .type = kNumber},                        \
      {.name = "logit_bias", .type = kObject}, {.name = "max_tokens", .type = kInt},                         \
      {.name = "n", .type = kInt}, {.name = "presence_penalty", .type = kNumber},                            \
      {.name = "seed", .type = kInt}, {.name = "stop", .type = kStringOrList},                               \
      {.name = "stream", .type = kBool}, {.name = "stream_options", .type = kObject},                        \
      {.name = "temperature", .type = kNumber}, {.name = "top_p", .type = kNumber},                          \
      {.name = "user", .type = kString, .use = kNoEffect, .note = "a name for the provider's statistics"},   \
      {.name = "use_beam_search",                                                                            \
       .type = kBool,                                                                                        \
       .use = kRefused,                                                                                      \
       .note = "beam search is not built",                                                                   \
       .neutral = "false"},                                                                                  \
      {.name = "top_k", .type = kInt}, {.name = "min_p", .type = kNumber},                                   \
      {.name = "repetition_penalty", .type = kNumber},                                                       \
      {.name = "watermarking",                                                                               \
       .type = kBool,                                                                                        \
       .use = kRefused,                                                                                      \
       .note = "watermarking is not built",                                                                  \
       .neutral = "false"},                                                                                  \
      {.name = "length_penalty", .type = kNumber, .use = kNoEffect, .note = "only beam search looks at it"}, \
      {.name = "stop_token_ids", .type = kInts}, {.name = "include_stop_str_in_output", .type = kBool},      \
      {.name = "ignore_eos", .type = kBool}, {.name = "min_tokens", .type = kInt},                           \
      {.name = "skip_special_tokens", .type = kBool},                                                        \
      {.name = "spaces_between_special_tokens",                                                              \
       .type = kBool,                                                                                        \
       .use = kNoEffect,                                                                                     \
       .note = "fast tokenizers put no spaces there, in vLLM either"},                                       \
      {.name = "truncate_prompt_tokens", .type = kInt, .min = -1},                                           \
      {.name = "truncation_side", .type = kString}, {.name = "prompt_logprobs", .type = kInt},               \
      {.name = "logprob_token_ids",                                                                          \
       .type = kInts,                                                                                        \
       .use = kRefused,                                                                                      \
       .note = "logprobs of chosen tokens are not built yet",                                                \
       .neutral = "[]"},                                                                                     \
      {.name = "allowed_token_ids", .type = kInts}, {.name = "bad_words", .type = kStrings},                 \
      {.name = "add_special_tokens", .type = kBool},                                                         \
      {.name = "response_format",                                                                            \
       .type = kObject,                                                                                      \
       .use = kRefused,                                                                                      \
       .note = kNoGrammar,                                                                                   \
       .neutral = "{\"type\":\"text\"}"},                                                                    \
      {.name = "structured_outputs", .type = kObject, .use = kRefused, .note = kNoGrammar},                  \
      {.name = "priority", .type = kInt, .min = -2147483648.0, .max = 2147483647.0},                         \
      {.name = "request_id", .type = kString},                                                               \
      {.name = "session_id",                                                                                 \
       .type = kString,                                                                                      \
       .use = kNoEffect,                                                                                     \
       .note = "a hint for routers; there is one engine here"},                                              \
      {.name = "return_tokens_as_token_ids", .type = kBool}, {.name = "return_token_ids", .type = kBool},    \
      {.name = "routed_experts_prompt_start", .type = kInt, .min = 0, .max = kMaxInt},                       \
      {.name = "return_token_offsets",                                                                       \
       .type = kBool,                                                                                        \
       .use = kRefused,                                                                                      \
       .note = "token offsets are not built yet",                                                            \
       .neutral = "false"},                                                                                  \
      {.name = "mm_payload", .type = kString, .use = kNoEffect, .note = kNoMedia},                           \
      {.name = "return_mm_kwargs", .type = kBool, .use = kNoEffect, .note = kNoMedia},                       \
      {.name = "cache_salt", .type = kString},                                                               \
      {.name = "kv_transfer_params", .type = kObject},                                                       \
      {.name = "ec_transfer_params", .type = kObject, .use = kRefused, .note = kNoMedia, .neutral = "{}"},   \
      {.name = "vllm_xargs",                                                                                 \
       .type = kObject,                                                                                      \
       .use = kRefused,                                                                                      \
       .note = "arguments for plug-ins have nobody to read them here",                                       \
       .neutral = "{}"},                                                                                     \
      {.name = "repetition_detection",                                                                       \
       .type = kObject,                                                                                      \
       .use = kRefused,                                                                                      \
       .note = "stopping at repetitions is not built"},                                                      \
      {.name = "thinking_token_budget",                                                                      \
       .type = kInt,                                                                                         \
       .use = kRefused,                                                                                      \
       .note = "it needs a parser for reasoning, which is not built yet"},                                   \
      {.name = "stream_interval", .type = kInt, .min = 1, .max = kMaxInt}, {                                 \
    .name = "echo", .type = kBool                                                                            \
  }

constexpr Field kChat[] = {
    CADRE_COMMON_FIELDS,
    {.name = "messages", .type = kObjects},
    {.name = "logprobs", .type = kBool},
    {.name = "top_logprobs", .type = kInt, .min = -1},
    {.name = "max_completion_tokens", .type = kInt},
    {.name = "tools", .type = kObjects},
    {.name = "tool_choice"},
    {.name = "reasoning_effort", .type = kString},
    {.name = "include_reasoning",
     .type = kBool,
     .use = kNoEffect,
     .note = "reasoning is not parsed out of the text"},
    {.name = "parallel_tool_calls",
     .type = kBool,
     .use = kNoEffect,
     .note = "tool calls come back as raw text"},
    {.name = "add_generation_prompt", .type = kBool},
    {.name = "continue_final_message", .type = kBool},
    {.name = "documents", .type = kObjects},
    {.name = "chat_template", .type = kString},
    {.name = "chat_template_kwargs", .type = kObject},
    {.name = "media_io_kwargs", .type = kObject, .use = kNoEffect, .note = kNoMedia},
    {.name = "mm_processor_kwargs", .type = kObject, .use = kNoEffect, .note = kNoMedia},
    {.name = "return_prompt_text", .type = kBool},
    // OpenAI's own, unknown to vLLM's class but able to change what an answer means.
    {.name = "functions",
     .type = kObjects,
     .use = kRefused,
     .note = "it is OpenAI's old form; use 'tools'",
     .neutral = "[]"},
    {.name = "modalities", .type = kStrings, .use = kRefused, .note = kNoMedia, .neutral = "[\"text\"]"},
    {.name = "audio", .type = kObject, .use = kRefused, .note = kNoMedia},
};

// Of /v1/chat/completions/tokens alone: the prompt's ids, instead of those that the messages would give.
constexpr Field kChatTokens = {.name = "tokens", .type = kInts};

constexpr Field kCompletion[] = {
    CADRE_COMMON_FIELDS,
    {.name = "prompt"},
    {.name = "logprobs", .type = kInt},
    {.name = "suffix",
     .type = kString,
     .use = kRefused,
     .note = "text before a suffix needs a model trained for it and is not built",
     .neutral = "\"\""},
    {.name = "prompt_embeds", .use = kRefused, .note = "prompts as embeddings are not built"},
    {.name = "best_of",
     .type = kInt,
     .use = kRefused,
     .note = "it is gone from vLLM as well; use 'n'",
     .neutral = "1"},
};
#undef CADRE_COMMON_FIELDS

// vLLM's GenerateRequest, and what its sampling_params may hold.
constexpr Field kGenerate[] = {
    {.name = "request_id", .type = kString},
    {.name = "model", .type = kString},
    {.name = "token_ids", .type = kInts},
    {.name = "sampling_params", .type = kObject},
    {.name = "stream", .type = kBool},
    {.name = "stream_options", .type = kObject},
    {.name = "cache_salt", .type = kString},
    {.name = "priority", .type = kInt, .min = -2147483648.0, .max = 2147483647.0},
    {.name = "return_token_ids",
     .type = kBool,
     .use = kNoEffect,
     .note = "answers of this route are token ids anyway"},
    {.name = "output_mode",
     .type = kString,
     .use = kRefused,
     .note = "this route answers in token ids; for text use /v1/completions",
     .neutral = "\"tokens\""},
    {.name = "features", .type = kObject, .use = kRefused, .note = kNoMedia, .neutral = "{}"},
    {.name = "content_parts", .type = kObjects, .use = kRefused, .note = kNoMedia, .neutral = "[]"},
    {.name = "token_offsets", .use = kNoEffect, .note = "nothing here needs them"},
    {.name = "reasoning_ended",
     .type = kBool,
     .use = kNoEffect,
     .note = "reasoning is not parsed out of the text"},
    {.name = "reasoning_parser_kwargs",
     .type = kObject,
     .use = kNoEffect,
     .note = "reasoning is not parsed out of the text"},
    {.name = "kv_transfer_params",
     .type = kObject,
     .use = kRefused,
     .note = "this route hands no KV blocks on; completions and chats do, token ids included",
     .neutral = "{}"},
    {.name = "ec_transfer_params", .type = kObject, .use = kRefused, .note = kNoMedia, .neutral = "{}"},
};

constexpr Field kTokenize[] = {
    {.name = "model", .type = kString},
    {.name = "prompt", .type = kString},
    {.name = "messages", .type = kObjects},
    {.name = "add_generation_prompt", .type = kBool},
    {.name = "continue_final_message", .type = kBool},
    {.name = "add_special_tokens", .type = kBool},
    {.name = "return_token_strs", .type = kBool},
    {.name = "chat_template", .type = kString},
    {.name = "chat_template_kwargs", .type = kObject},
    {.name = "tools", .type = kObjects},
    {.name = "media_io_kwargs", .type = kObject, .use = kNoEffect, .note = kNoMedia},
    {.name = "mm_processor_kwargs", .type = kObject, .use = kNoEffect, .note = kNoMedia},
};

constexpr Field kDetokenize[] = {
    {.name = "model", .type = kString},
    {.name = "tokens", .type = kInts},
};

const char* Wanted(FieldType type) {
  switch (type) {
    case kBool:
      return "a boolean";
    case kInt:
      return "an integer";
    case kNumber:
      return "a number";
    case kString:
      return "a string";
    case kStringOrList:
      return "a string or a list of strings";
    case kStrings:
      return "a list of strings";
    case kInts:
      return "a list of integers";
    case kObjects:
      return "a list of objects";
    case kObject:
      return "an object";
    case kAny:
      return "anything";
  }
  return "";
}

// Numbers without a fraction count as integers, as JSON does not know the difference.
bool IsWhole(const Json& value) {
  return value.is_int() ||
         (value.is_double() && value.AsDouble() == static_cast<double>(static_cast<int64_t>(
                                                       std::clamp(value.AsDouble(), -9e18, 9e18))));
}

bool IsListOf(const Json& value, bool (Json::*is)() const) {
  return value.is_array() && std::all_of(value.AsArray().begin(), value.AsArray().end(),
                                         [is](const Json& e) { return (e.*is)(); });
}

bool Fits(const Json& value, FieldType type) {
  switch (type) {
    case kBool:
      return value.is_bool();
    case kInt:
      return IsWhole(value);
    case kNumber:
      return value.is_number();
    case kString:
      return value.is_string();
    case kStringOrList:
      return value.is_string() || IsListOf(value, &Json::is_string);
    case kStrings:
      return IsListOf(value, &Json::is_string);
    case kInts:
      return IsListOf(value, &Json::is_int);
    case kObjects:
      return IsListOf(value, &Json::is_object);
    case kObject:
      return value.is_object();
    case kAny:
      return true;
  }
  return false;
}

// As people write it: 2147483647, 0.5, 1e+300.
std::string ShortNumber(const Json& value) {
  if (value.is_int()) return Format("{}", value.AsInt());
  const double number = value.AsDouble();
  const bool whole = std::abs(number) < 1e15 && number == std::trunc(number);
  return whole ? Format("{:.0f}", number) : Format("{:g}", number);
}

std::string Range(const Field& field) {
  const bool from = field.min > Field().min, to = field.max < Field().max;
  const std::string least = "at least " + ShortNumber(Json(field.min));
  const std::string most = "at most " + ShortNumber(Json(field.max));
  if (from && to) return least + " and " + most;
  return from ? least
         : to ? most
              : "a number between " + ShortNumber(Json(field.min)) + " and " + ShortNumber(Json(field.max));
}

// Whether a refused field has a value that changes nothing. Of an object that is its kind, whatever else it
// holds: vLLM does not look at what it does not know either.
bool AsksForNothing(const Field& field, const Json& value) {
  if (value.Dump() == field.neutral) return true;
  const Json* type = value.Find("type");
  if (type == nullptr || field.neutral.find("\"type\"") == std::string_view::npos) return false;
  const auto neutral = Json::Parse(field.neutral);
  return neutral.has_value() && neutral->Find("type") != nullptr && *neutral->Find("type") == *type;
}

Status CheckField(const Field& field, const Json& value) {
  if (!Fits(value, field.type)) {
    return FailParam(Code::kInvalidArgument, std::string(field.name), "{} must be {}, found {}", field.name,
                     Wanted(field.type), value.TypeName());
  }
  if (value.is_number() && !(value.AsDouble() >= field.min && value.AsDouble() <= field.max)) {
    return FailParam(Code::kInvalidArgument, std::string(field.name), "{} must be {}, got {}", field.name,
                     Range(field), ShortNumber(value));
  }
  if (field.use != kRefused || AsksForNothing(field, value)) return {};
  return FailParam(Code::kUnsupported, std::string(field.name), "'{}' is not supported: {}", field.name,
                   field.note);
}

}  // namespace

std::span<const Field> ChatFields() {
  return kChat;
}
std::span<const Field> ChatTokensFields() {
  static const std::vector<Field> fields = [] {
    std::vector<Field> all(std::begin(kChat), std::end(kChat));
    all.push_back(kChatTokens);
    return all;
  }();
  return fields;
}
std::span<const Field> CompletionFields() {
  return kCompletion;
}
std::span<const Field> GenerateFields() {
  return kGenerate;
}
std::span<const Field> TokenizeFields() {
  return kTokenize;
}
std::span<const Field> DetokenizeFields() {
  return kDetokenize;
}

FieldNotes::FieldNotes(Say say) : say_(std::move(say)) {}

void FieldNotes::NoEffect(const Field& field) {
  {
    const std::lock_guard lock(mutex_);
    if (said_.contains(field.name)) return;
    said_.emplace(field.name);
  }
  say_(Format("the request field '{}' is accepted and has no effect here: {} (said once)", field.name,
              field.note));
}

void FieldNotes::Unknown(std::string_view name) {
  constexpr size_t kMaxNames = 64;
  const std::string shown = Excerpt(name);
  {
    const std::lock_guard lock(mutex_);
    if (said_.size() >= kMaxNames || !said_.insert(shown).second) return;
  }
  std::string line = "the request field ";
  AppendJsonString(line, shown);  // a line of the log stays a line
  say_(line + " is unknown and ignored, as in vLLM (said once)");
}

Result<Json> ParseBody(std::string_view text, std::span<const Field> fields, FieldNotes& notes) {
  auto parsed = Json::Parse(text);
  if (!parsed.has_value()) {
    return FailParam(Code::kInvalidArgument, "body", "the body is {}", parsed.error().message);
  }
  if (!parsed->is_object()) {
    return FailParam(Code::kInvalidArgument, "body", "the body must be a JSON object, found {}",
                     parsed->TypeName());
  }
  for (auto& [name, value] : parsed->AsObject()) {
    if (value.is_null()) continue;
    const auto field =
        std::find_if(fields.begin(), fields.end(), [&](const Field& f) { return f.name == name; });
    if (field == fields.end()) {
      notes.Unknown(name);
      continue;
    }
    CADRE_TRY(CheckField(*field, value));
    if (field->use == kNoEffect) notes.NoEffect(*field);
    if (field->type == kInt && value.is_double())
      value = Json(static_cast<int64_t>(std::clamp(value.AsDouble(), -9e18, 9e18)));
  }
  return parsed;
}

const Json* GetField(const Json& body, std::string_view name) {
  const Json* value = body.Find(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}
bool GetBool(const Json& body, std::string_view name, bool otherwise) {
  const Json* value = GetField(body, name);
  return value == nullptr ? otherwise : value->AsBool();
}
int64_t GetInt(const Json& body, std::string_view name, int64_t otherwise) {
  const Json* value = GetField(body, name);
  return value == nullptr ? otherwise : value->AsInt();
}
std::string GetString(const Json& body, std::string_view name) {
  const Json* value = GetField(body, name);
  return value == nullptr ? std::string() : value->AsString();
}

}  // namespace cadre::serve
