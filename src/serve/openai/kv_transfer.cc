#include "serve/openai/kv_transfer.h"

#include <algorithm>
#include <charconv>

#include "base/log.h"
#include "serve/openai/schema.h"

namespace cadre::serve {
namespace {

constexpr std::string_view kPrefillMark = "___prefill_addr_", kDecodeMark = "___decode_addr_";
constexpr size_t kMaxName = 512;  // bytes of an id or a host

std::unexpected<Error> Bad(std::string_view member, std::string_view wanted, const Json& found) {
  return FailParam(Code::kInvalidArgument, Format("kv_transfer_params.{}", member),
                   "kv_transfer_params.{} must be {} or null, found {}", member, wanted, found.TypeName());
}

Result<bool> Flag(const Json& params, std::string_view member) {
  const Json* value = GetField(params, member);
  if (value == nullptr) return false;
  if (!value->is_bool()) return Bad(member, "a boolean", *value);
  return value->AsBool();
}

Result<std::string> Name(const Json& params, std::string_view member) {
  const Json* value = GetField(params, member);
  if (value == nullptr) return std::string();
  if (!value->is_string() || value->AsString().size() > kMaxName)
    return Bad(member, "a short string", *value);
  return value->AsString();
}

Result<int64_t> Number(const Json& params, std::string_view member, int64_t most) {
  const Json* value = GetField(params, member);
  if (value == nullptr) return 0;
  if (!value->is_int() || value->AsInt() < 0 || value->AsInt() > most)
    return Bad(member, Format("an integer from 0 to {}", most), *value);
  return value->AsInt();
}

bool AreInts(const Json& list) {
  return list.is_array() && std::ranges::all_of(list.AsArray(), &Json::is_int);
}

// [3, 4, 5], or a list of such lists, one a group of layers. They are the source's own numbers and only it
// uses them; here they just have to be what they are called.
Status CheckBlockIds(const Json& params) {
  const Json* value = GetField(params, "remote_block_ids");
  if (value == nullptr || AreInts(*value)) return {};
  if (value->is_array() && std::ranges::all_of(value->AsArray(), AreInts)) return {};
  return Bad("remote_block_ids", "a list of block ids, or a list of such lists", *value);
}

Result<std::vector<int64_t>> TokenIdsOf(const Json& params) {
  std::vector<int64_t> ids;
  const Json* value = GetField(params, "remote_token_ids");
  if (value == nullptr) return ids;
  if (!AreInts(*value)) return Bad("remote_token_ids", "a list of token ids", *value);
  for (const Json& id : value->AsArray()) ids.push_back(id.AsInt());
  return ids;
}

// The source's name and place. False if there is none.
Result<bool> ReadSource(const Json& params, engine::KvTransfer& kv, std::vector<int64_t>& tokens) {
  CADRE_ASSIGN(kv.source_engine, Name(params, "remote_engine_id"));
  CADRE_ASSIGN(kv.source_request, Name(params, "remote_request_id"));
  CADRE_ASSIGN(kv.source_host, Name(params, "remote_host"));
  CADRE_ASSIGN(const int64_t port, Number(params, "remote_port", 65535));
  CADRE_ASSIGN(kv.num_tokens, Number(params, "remote_num_tokens", INT32_MAX));
  CADRE_ASSIGN([[maybe_unused]] const int64_t tp_size, Number(params, "tp_size", 65536));
  CADRE_TRY(CheckBlockIds(params));
  CADRE_ASSIGN(tokens, TokenIdsOf(params));
  kv.source_port = static_cast<uint16_t>(port);
  return !kv.source_engine.empty() && !kv.source_request.empty() && !kv.source_host.empty() && port > 0;
}

bool ReadAddress(std::string_view text, std::string& host, uint16_t& port) {
  const size_t colon = text.rfind(':');
  if (colon == text.npos || colon == 0) return false;
  const std::string_view digits = text.substr(colon + 1);
  const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (ec != std::errc() || end != digits.data() + digits.size() || port == 0) return false;
  host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  return true;
}

int64_t MaxTokens(const Json& body) {
  for (const char* name : {"max_completion_tokens", "max_tokens"}) {
    if (const Json* value = GetField(body, name)) return value->AsInt();
  }
  return -1;
}

// P2pNcclConnector: nothing in the body says what is wanted; the role does, or, where one instance has both,
// that prefill is asked for one token.
void FillFromPairId(const engine::KvTransferInfo& info, const Json& body, const std::string& id,
                    const PairId& pair, session::GenerateRequest& out) {
  engine::KvTransfer kv;
  kv.by_prompt = true;
  const bool both = info.produces == info.consumes;
  kv.hold = both ? MaxTokens(body) == 1 : info.produces;
  kv.fetch = !kv.hold;
  if (kv.hold) {
    kv.hold_id = id;
    // Decode will ask the rank whose address the id has.
    if (out.data_parallel_rank < 0) out.data_parallel_rank = info.ReplicaAt(pair.prefill_port);
  } else {
    kv.source_request = id;
    kv.source_host = pair.prefill_host;
    kv.source_port = pair.prefill_port;
  }
  out.kv_transfer = std::move(kv);
}

// Both sides are asked at once: decode fetches layer by layer what prefill has just computed. They meet by
// the client's id, and decode is told where prefill is reached (as an earlier answer of it has said).
Status FillForPush(const Json& params, const std::string* id, bool prefill, session::GenerateRequest& out) {
  engine::KvTransfer kv;
  if (id == nullptr || id->empty()) {
    return FailParam(Code::kInvalidArgument, "kv_transfer_params.push",
                     "kv_transfer_params.push wants the header X-Request-Id, the same on both sides");
  }
  kv.by_prompt = kv.push = true;
  kv.hold = prefill;
  kv.fetch = !prefill;
  (prefill ? kv.hold_id : kv.source_request) = *id;
  if (kv.fetch) {
    CADRE_ASSIGN(kv.source_engine, Name(params, "remote_engine_id"));
    CADRE_ASSIGN(kv.source_host, Name(params, "remote_host"));
    CADRE_ASSIGN(const int64_t port, Number(params, "remote_port", 65535));
    if (kv.source_host.empty() || port == 0) {
      return FailParam(Code::kInvalidArgument, "kv_transfer_params.remote_host",
                       "with kv_transfer_params.push decode must be told remote_host and remote_port");
    }
    kv.source_port = static_cast<uint16_t>(port);
  }
  out.kv_transfer = std::move(kv);
  return {};
}

Status FillFromParams(const engine::KvTransferInfo& info, const Json& params, const std::string* id,
                      session::GenerateRequest& out) {
  CADRE_ASSIGN(const bool decode_elsewhere, Flag(params, "do_remote_decode"));
  CADRE_ASSIGN(const bool prefill_elsewhere, Flag(params, "do_remote_prefill"));
  if (!decode_elsewhere && !prefill_elsewhere) return {};
  if (!info.enabled) {
    return FailParam(Code::kInvalidArgument, "kv_transfer_params",
                     "kv_transfer_params wants KV blocks handed between servers, and this one was started "
                     "without --kv-transfer-config");
  }
  CADRE_ASSIGN(const bool push, Flag(params, "push"));
  if (push) return FillForPush(params, id, !prefill_elsewhere, out);
  engine::KvTransfer kv;
  std::vector<int64_t> tokens;
  CADRE_ASSIGN(const bool has_source, ReadSource(params, kv, tokens));
  kv.with_answer = prefill_elsewhere && (decode_elsewhere || info.holds_answers);
  kv.hold = decode_elsewhere || kv.with_answer;
  // Without the tokens nothing says that the source's prompt is this one.
  kv.fetch = has_source && !tokens.empty();
  if (prefill_elsewhere && !kv.fetch) {
    LogWarning(
        "{}: Got invalid KVTransferParams: remote_engine_id, remote_request_id, remote_host, remote_port and "
        "remote_token_ids must all be there, as prefill's answer has them. This request will not utilize "
        "KVTransfer",
        out.id);
  }
  if (prefill_elsewhere && !tokens.empty()) {
    out.prompts.clear();
    out.prompts.emplace_back(session::TokenPrompt{std::move(tokens)});
    out.truncate_prompt_tokens.reset();
    out.prompt_field = "kv_transfer_params.remote_token_ids";
  } else {
    out.kv_source_tokens = std::move(tokens);
  }
  if (kv.hold || kv.fetch) out.kv_transfer = std::move(kv);
  return {};
}

// An instance with one role serves a whole request all the same; a person should know that it happens.
void NoteWhole(Api& api, const engine::KvTransferInfo& info, const std::string& id) {
  if (!info.enabled || info.produces == info.consumes || api.whole_noted.exchange(true)) return;
  LogInfo("{}: no kv_transfer_params: this {} instance computes prompt and answer itself (said once)", id,
          info.produces ? "kv_producer" : "kv_consumer");
}

}  // namespace

std::shared_ptr<void> RunningIds::Claim(const std::string& id, bool prefill) {
  const std::lock_guard lock(state_->mutex);
  if (!state_->running.emplace(id, prefill).second) return nullptr;
  return {this, [state = state_, id, prefill](void*) {
            const std::lock_guard guard(state->mutex);
            state->running.erase({id, prefill});
          }};
}

std::optional<PairId> ParsePairId(std::string_view id) {
  PairId pair;
  if (!id.starts_with(kPrefillMark)) return std::nullopt;
  id.remove_prefix(kPrefillMark.size());
  const size_t decode = id.find(kDecodeMark);
  if (decode == id.npos) return std::nullopt;
  std::string_view rest = id.substr(decode + kDecodeMark.size());
  rest = rest.substr(0, rest.rfind('_'));
  if (!ReadAddress(id.substr(0, decode), pair.prefill_host, pair.prefill_port) ||
      !ReadAddress(rest, pair.decode_host, pair.decode_port))
    return std::nullopt;
  return pair;
}

Status FillKvTransfer(Api& api, const Json& body, const http::Request& http, session::GenerateRequest& out,
                      AnswerOptions& answer) {
  const engine::KvTransferInfo& info = api.session.model().kv_transfer;
  const std::string* id = http.Header("X-Request-Id");
  if (const Json* params = GetField(body, "kv_transfer_params"))
    CADRE_TRY(FillFromParams(info, *params, id, out));
  if (!out.kv_transfer && info.by_request_id && id != nullptr) {
    if (const auto pair = ParsePairId(*id)) FillFromPairId(info, body, *id, *pair, out);
  }
  if (!out.kv_transfer) {
    NoteWhole(api, info, out.id);
    return {};
  }
  if (out.prompts.size() > 1) {
    return FailParam(Code::kInvalidArgument, "prompt",
                     "a request whose KV blocks are handed to another server has one prompt, not {}",
                     out.prompts.size());
  }
  if (id == nullptr || id->empty()) return {};
  const bool prefill = out.kv_transfer->hold && !out.kv_transfer->with_answer;
  answer.running_id = api.running_ids.Claim(*id, prefill);
  if (answer.running_id != nullptr) return {};
  return FailParam(Code::kInvalidArgument, "X-Request-Id",
                   "the request id {} is running here already as {}; wait for its end or send another id",
                   Excerpt(*id), prefill ? "prefill" : "decode");
}

void AppendKvTransferParams(std::string& out, const std::optional<engine::HeldKv>& held) {
  if (!held) {
    out += "null";
    return;
  }
  out += Format("{{\"do_remote_prefill\":{},\"do_remote_decode\":{},\"remote_block_ids\":[",
                !held->with_answer, held->with_answer);
  AppendInts(out, held->blocks);
  out += "],\"remote_engine_id\":";
  AppendJsonString(out, held->engine_id);
  out += ",\"remote_request_id\":";
  AppendJsonString(out, held->request_id);
  out += ",\"remote_host\":";
  AppendJsonString(out, held->host);
  out += Format(
      ",\"remote_port\":{},\"tp_size\":{},\"remote_num_tokens\":{},\"remote_blocks_expiry_time\":{:.3f},"
      "\"remote_token_ids\":",
      held->port, held->tp_size, held->tokens.size(), held->expires_s);
  AppendInts(out, held->tokens);
  out += '}';
}

}  // namespace cadre::serve
