#include "session/session.h"

#include <algorithm>

#include "base/caught.h"
#include "base/random.h"

namespace cadre::session {
namespace {

// Normalizers can make a text shorter before it is cut into tokens; this much is allowed for before a text is
// refused unread for being longer than any prompt that fits.
constexpr size_t kNormalizerSlack = 4;

// Each sequence carries its own lists of tokens to the engine, 4 to 8 bytes an entry.
constexpr int64_t kMaxListEntries = int64_t{1} << 22;

Status CheckLists(const engine::SamplingParams& sampling, int64_t num_sequences) {
  int64_t bad_words = 0;
  for (const auto& word : sampling.bad_words) bad_words += static_cast<int64_t>(word.size());
  int64_t all = 0, most = 0;
  const char* longest = "";
  for (const auto& [name, count] :
       {std::pair{"logit_bias", static_cast<int64_t>(sampling.logit_bias.size())},
        std::pair{"allowed_token_ids", static_cast<int64_t>(sampling.allowed_token_ids.size())},
        std::pair{"stop_token_ids", static_cast<int64_t>(sampling.stop_token_ids.size())},
        std::pair{"bad_words", bad_words}}) {
    all += count;
    if (count > most) longest = name;
    most = std::max(most, count);
  }
  if (all <= kMaxListEntries / std::max<int64_t>(num_sequences, 1)) return {};
  return FailParam(
      Code::kInvalidArgument, longest,
      "{} and other lists have {} entries for each of {} sequences (prompts times n); together at "
      "most {} are allowed.",
      longest, all, num_sequences, kMaxListEntries);
}

// What a source has computed is of use as far as it is the beginning of the prompt.
std::optional<engine::KvTransfer> KvTransferOf(const GenerateRequest& request,
                                               std::span<const int32_t> prompt) {
  std::optional<engine::KvTransfer> kv = request.kv_transfer;
  if (!kv || !kv->fetch || request.kv_source_tokens.empty()) return kv;
  const auto differs = std::ranges::mismatch(request.kv_source_tokens, prompt).in1;
  const int64_t same = differs - request.kv_source_tokens.begin();
  kv->num_tokens = std::min(same, kv->num_tokens > 0 ? kv->num_tokens : same);
  if (same == 0) kv->fetch = false;
  return kv;
}

}  // namespace

Session::Session(SessionOptions options, engine::Engine& engine, std::shared_ptr<const TextModel> text)
    : options_(std::move(options)), engine_(engine), text_(std::move(text)) {
  eos_token_ids_ = options_.eos_token_ids;
  eos_token_ids_.insert(eos_token_ids_.end(), options_.defaults.eos_token_ids.begin(),
                        options_.defaults.eos_token_ids.end());
  if (text_ != nullptr && text_->eos()) eos_token_ids_.push_back(*text_->eos());
  std::sort(eos_token_ids_.begin(), eos_token_ids_.end());
  eos_token_ids_.erase(std::unique(eos_token_ids_.begin(), eos_token_ids_.end()), eos_token_ids_.end());
  std::erase_if(eos_token_ids_, [this](int32_t id) { return id < 0 || id >= model().vocab_size; });
}

Result<std::vector<int32_t>> Session::CheckIds(const std::vector<int64_t>& ids, const char* field) const {
  std::vector<int32_t> out;
  out.reserve(ids.size());
  for (const int64_t id : ids) {
    if (id < 0 || id >= model().vocab_size) {
      return FailParam(Code::kInvalidArgument, field,
                       "Token id {} is out of vocabulary: {} must hold ids from 0 to {}.", id, field,
                       model().vocab_size - 1);
    }
    out.push_back(static_cast<int32_t>(id));
  }
  return out;
}

Result<std::vector<int32_t>> Session::Tokenize(const PromptInput& prompt, bool add_special_tokens,
                                               std::string* rendered) const {
  if (const auto* tokens = std::get_if<TokenPrompt>(&prompt)) return CheckIds(tokens->ids, "prompt");
  const bool is_chat = std::holds_alternative<ChatPrompt>(prompt);
  const char* field = is_chat ? "messages" : "prompt";
  if (text_ == nullptr) {
    return FailParam(
        Code::kInvalidArgument, field,
        "this server runs without a tokenizer (--skip-tokenizer-init): give the prompt as token ids to "
        "/v1/completions");
  }
  std::string text;
  if (is_chat) {
    ChatPrompt chat = std::get<ChatPrompt>(prompt);
    if (options_.chat_template_kwargs.is_object()) {
      Json merged = options_.chat_template_kwargs;
      if (chat.kwargs.is_object()) {
        for (const auto& [key, value] : chat.kwargs.AsObject()) merged.Set(key, value);
      }
      chat.kwargs = std::move(merged);
    }
    CADRE_ASSIGN(text, RenderPrompt(chat, *text_, options_.content_format));
  } else {
    text = std::get<TextPrompt>(prompt).text;
  }
  auto ids = text_->Encode(text, add_special_tokens);
  if (ids.has_value() && rendered != nullptr) *rendered = std::move(text);
  return ids;
}

Status Session::Truncate(const GenerateRequest& request, std::vector<int32_t>& ids) const {
  if (!request.truncate_prompt_tokens) return {};
  int64_t keep = *request.truncate_prompt_tokens;
  if (keep > model().max_model_len) {
    return FailParam(
        Code::kInvalidArgument, "truncate_prompt_tokens",
        "truncate_prompt_tokens value ({}) is greater than max_model_len ({}). Please, select a smaller "
        "truncation size.",
        keep, model().max_model_len);
  }
  if (keep < 0) {
    keep = std::max<int64_t>(
        1, model().max_model_len -
               std::clamp<int64_t>(request.sampling.max_tokens.value_or(1), 1, model().max_model_len));
  }
  if (static_cast<int64_t>(ids.size()) <= keep) return {};
  const auto excess = static_cast<int64_t>(ids.size()) - keep;
  if (request.truncate_left) {
    ids.erase(ids.begin(), ids.begin() + excess);
  } else {
    ids.resize(static_cast<size_t>(keep));
  }
  return {};
}

uint64_t Session::DrawSeed() const {
  constexpr uint64_t kStream = 1;  // 0 is the sampler's own
  const auto words = Philox(options_.seed, kStream, num_drawn_seeds_.fetch_add(1, std::memory_order_relaxed));
  return uint64_t{words[0]} << 32 | words[1];
}

Result<std::shared_ptr<Generation>> Session::Start(GenerateRequest request,
                                                   std::shared_ptr<Listener> listener,
                                                   PostFunction post) const {
  try {
    return Begin(std::move(request), std::move(listener), std::move(post));
  } catch (...) {
    return std::unexpected(CaughtError());
  }
}

Result<std::shared_ptr<Generation>> Session::Begin(GenerateRequest request,
                                                   std::shared_ptr<Listener> listener,
                                                   PostFunction post) const {
  const SamplingLimits limits{model().vocab_size, options_.max_logprobs, options_.max_sequences};
  CADRE_ASSIGN(engine::SamplingParams sampling,
               ResolveSampling(request.sampling, options_.defaults, limits, text_.get()));
  const std::string& field = request.prompt_field;
  Accepted out;
  out.n = request.sampling.n;
  if (static_cast<int64_t>(request.prompts.size()) * out.n > limits.max_sequences) {
    return FailParam(Code::kInvalidArgument, field,
                     "{} prompts times n = {} is more than the {} sequences of one request.",
                     request.prompts.size(), out.n, limits.max_sequences);
  }
  CADRE_TRY(CheckLists(sampling, static_cast<int64_t>(request.prompts.size()) * out.n));
  std::optional<text::StopMatcher> stops;
  if (!request.sampling.stop.empty())
    stops.emplace(request.sampling.stop, request.sampling.include_stop_str_in_output);
  sampling.eos_token_ids = eos_token_ids_;
  if (request.echo && sampling.logprobs && !sampling.prompt_logprobs)
    sampling.prompt_logprobs = sampling.logprobs;

  std::vector<SequenceSpec> specs;
  for (const PromptInput& prompt : request.prompts) {
    const auto* plain = std::get_if<TextPrompt>(&prompt);
    if (plain != nullptr && text_ != nullptr && !request.truncate_prompt_tokens &&
        plain->text.size() / kNormalizerSlack / std::max<size_t>(1, text_->longest_token_bytes()) >
            static_cast<size_t>(model().max_model_len)) {
      return FailParam(
          Code::kInvalidArgument, field,
          "This model's maximum context length is {} tokens. However, your request has {} bytes of text, "
          "which is more than that. Please reduce the length of the input {}.",
          model().max_model_len, plain->text.size(), field);
    }
    std::string rendered;
    const auto* tokens = std::get_if<TokenPrompt>(&prompt);
    CADRE_ASSIGN(std::vector<int32_t> ids, tokens != nullptr
                                               ? CheckIds(tokens->ids, field.c_str())
                                               : Tokenize(prompt, request.add_special_tokens, &rendered));
    CADRE_TRY(Truncate(request, ids));
    if (ids.empty())
      return FailParam(Code::kInvalidArgument, field, "The {} is empty: it must hold at least one token.",
                       field);
    CADRE_ASSIGN(sampling.max_tokens,
                 FitMaxTokens(request, options_.defaults, static_cast<int64_t>(ids.size()),
                              model().max_model_len, options_.cap_max_tokens || request.cap_max_tokens));
    out.max_tokens = std::max(out.max_tokens, sampling.max_tokens);
    if (request.echo && text_ != nullptr && rendered.empty()) rendered = text_->Decode(ids, false);
    const engine::TokenIds shared(ids);
    for (int64_t i = 0; i < out.n; ++i) {
      SequenceSpec spec;
      spec.request.id = specs.empty() ? request.id : Format("{}-{}", request.id, specs.size());
      spec.request.prompt = shared;
      spec.request.sampling = sampling;
      // As vLLM: sequence i of a seeded request draws as a request with seed + i would.
      spec.request.sampling.seed =
          request.sampling.seed ? static_cast<uint64_t>(*request.sampling.seed) + static_cast<uint64_t>(i)
                                : DrawSeed();
      spec.request.sampling.logprobs_mode = options_.logprobs_mode;
      spec.request.sampling.routed_experts_start = request.routed_experts_start;
      spec.request.cache_salt = request.cache_salt;
      spec.request.adapter = request.adapter;
      spec.request.priority = request.priority;
      spec.request.data_parallel_rank = request.data_parallel_rank;
      if (specs.empty()) spec.request.kv_transfer = KvTransferOf(request, shared);
      spec.stop = request.sampling.stop;
      spec.stop_matcher = stops;
      spec.include_stop = request.sampling.include_stop_str_in_output;
      spec.skip_special_tokens = request.sampling.skip_special_tokens;
      specs.push_back(std::move(spec));
    }
    out.prompts.push_back(std::move(ids));
    out.texts.push_back(std::move(rendered));
  }
  if (specs.empty()) return FailParam(Code::kInvalidArgument, field, "The list of prompts is empty.");
  listener->OnAccepted(std::move(out));
  auto generation = std::make_shared<Generation>(Generation::Options{request.stream, request.stream_interval},
                                                 text_.get(), std::move(listener), std::move(post));
  CADRE_TRY(generation->Start(engine_, std::move(specs)));
  return generation;
}

}  // namespace cadre::session
