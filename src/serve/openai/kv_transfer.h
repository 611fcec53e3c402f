#pragma once
// kv_transfer_params, there and back: how one instance's answer tells another where the keys and values of a
// prompt lie.
//
//   to prefill     {"do_remote_decode": true, everything else null or absent}
//   its answer     {"do_remote_prefill": true, "remote_engine_id", "remote_request_id", "remote_host",
//                   "remote_port", "remote_block_ids", "tp_size", "remote_num_tokens", "remote_token_ids"}
//   to decode      that object as it is
//
// Beyond vLLM's members the answer has the prompt's token ids. They take the place of the decoding request's
// own prompt, so that both mean the same whatever the client writes there, and so that decode can compute
// the prompt itself when prefill is gone.
#include "serve/openai/answer.h"

namespace cadre::serve {

/// Reads the members, or P2pNcclConnector's request id, into the request, whose prompts may be replaced.
/// Errors: kInvalidArgument with the member; an id that runs here already in the same role.
Status FillKvTransfer(Api& api, const Json& body, const http::Request& http, session::GenerateRequest& out,
                      AnswerOptions& answer);

/// null where nothing is held.
void AppendKvTransferParams(std::string& out, const std::optional<engine::HeldKv>& held);

/// ___prefill_addr_HOST:PORT___decode_addr_HOST:PORT_ID
struct PairId {
  std::string prefill_host, decode_host;
  uint16_t prefill_port = 0, decode_port = 0;
};
std::optional<PairId> ParsePairId(std::string_view id);

}  // namespace cadre::serve
