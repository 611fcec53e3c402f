#pragma once
// The two bodies of one request to a pair: prefill computes the prompt's KV and one token, decode fetches the
// KV and answers. The shapes are those of vLLM's NixlConnector; docs/router.md shows them.
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "route/kv_places.h"

namespace cadre::route {

/// Paths whose requests go over a pair.
bool IsGeneration(std::string_view path);

/// Whether prefill has something to prepare: one prompt. (KV is handed over for one sequence; several prompts
/// in one body are computed by decode alone.)
bool IsForPair(const Json& body);

/// max_tokens 1 (max_completion_tokens too, where given; inside sampling_params where there is one), no
/// stream, no lower bounds of tokens; kv_transfer_params with do_remote_decode unless `bare`
/// (P2pNcclConnector matches by the request's id alone).
Json PrefillBody(const Json& body, bool bare);

/// The same where both are asked at once and meet by the request's id and prompt.
Json PushedPrefillBody(const Json& body);
Json PushedDecodeBody(const Json& body, const KvPlace& source);

/// The client's body with what prefill answered; null: as it is.
Json DecodeBody(const Json& body, const Json& kv_transfer_params);

/// kv_transfer_params of a prefill's answer, at the top or in the first choice; null if it has none.
/// Errors: kDataLoss, not JSON.
Result<Json> TransferParams(std::string_view answer);

/// The id by which P2pNcclConnector finds the other side.
std::string PairRequestId(const std::string& prefill_kv, const std::string& decode_kv, const std::string& id);

}  // namespace cadre::route
