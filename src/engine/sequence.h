#pragma once
// One request inside the engine: its tokens, its blocks, and how far it has come.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "engine/control.h"
#include "engine/request.h"
#include "kv/block_pool.h"

namespace cadre::engine {

struct Sequence {
  SeqId id;
  Request request;
  std::shared_ptr<EventSink> sink;

  int32_t adapter = -1;         ///< slot of its LoRA adapter; -1: none
  int64_t adapter_version = 0;  ///< part of the prefix key
  std::string adapter_id;       ///< AdapterInfo::id, for hand-offs

  std::vector<int32_t> tokens;       ///< prompt, then generated
  int64_t num_computed = 0;          ///< tokens whose keys and values are in the cache
  std::vector<int32_t> block_table;  ///< block ids, in order of positions
  kv::NodeId prefix_node;            ///< place in the prefix trie after the published blocks
  int64_t num_published_blocks = 0;  ///< blocks that the trie has been told of
  int64_t num_cached_tokens = 0;     ///< prompt tokens found in the cache at the first admission
  std::vector<Logprobs> prompt_logprobs;
  bool prompt_reported = false;  ///< OnPrompt has been called
  bool admitted_before = false;  ///< false until the first admission
  RequestTimes times;
  int num_preemptions = 0;

  // Of the hand-off (kv_hand_off.h).
  std::string hold_id;     ///< the agent's name for it, while it is or was to be held
  bool hold_open = false;  ///< the agent knows it
  bool hold_told = false;  ///< and its blocks so far
  int64_t fetch_id = -1;
  TimePoint touched{};      ///< when its source has last heard that it still waits
  bool fetch_done = false;  ///< whatever came of it, it is not tried again

  int64_t num_prompt() const { return static_cast<int64_t>(request.prompt.size()); }
  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  int64_t num_generated() const { return num_tokens() - num_prompt(); }
  void UseAdapter(const AdapterInfo& info) {
    adapter = info.slot;
    adapter_version = info.version;
    adapter_id = info.id();
  }
  bool wants_prompt_logprobs() const { return request.sampling.prompt_logprobs.has_value(); }
};

}  // namespace cadre::engine
