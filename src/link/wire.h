#pragma once
// The messages between a front and a rank's engine, as bytes. Little-endian, no padding: numbers as they are,
// strings and vectors behind a 32-bit count. Decoding checks every length against what is left, so a damaged
// or hostile frame is an error and never a crash.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "engine/engine.h"

namespace cadre::link {

/// Changes whenever a message does; the first frame of a rank carries it.
constexpr uint32_t kWireVersion = 7;

enum class MessageKind : uint32_t {
  // rank -> front
  kReady = 1,   ///< ReadyMessage: the engine serves
  kPrompt,      ///< PromptMessage
  kTokens,      ///< TokensMessage
  kFinish,      ///< FinishMessage
  kStats,       ///< engine::RankStats
  kDrained,     ///< everything has ended; the rank closes next
  kEplb,        ///< EplbMessage
  kControlled,  ///< ControlledMessage
  kPrefixes,    ///< PrefixesMessage
  // front -> rank
  kSubmit = 64,       ///< SubmitMessage
  kCancel,            ///< CancelMessage
  kDrain,             ///< DrainMessage
  kResetPrefixCache,  ///< empty
  kAddFront,          ///< AddFrontMessage, perhaps with a descriptor
  kEplbWanted,        ///< EplbWantedMessage: answered by one kEplb
  kControl,           ///< ControlMessage: answered by one kControlled
  kPrefixesWanted,    ///< PrefixesWantedMessage: answered by one kPrefixes
};

struct ReadyMessage {
  uint32_t version = kWireVersion;
  engine::ModelInfo model_info;
  engine::RankStats stats;  ///< as they are: the first kStats comes later, and only when something happens
};
struct SubmitMessage {
  int64_t id = 0;  ///< chosen by the front, one a request
  engine::Request request;
};
struct CancelMessage {
  int64_t id = 0;
};
struct DrainMessage {
  int64_t milliseconds = 0;  ///< from now until what still runs is aborted
};
struct AddFrontMessage {
  std::string where;  ///< for the rank's connector; not used where a descriptor comes along
};
struct EplbWantedMessage {
  int64_t id = 0;  ///< chosen by the front
};
struct EplbMessage {
  int64_t id = 0;
  bool ok = false;
  Error error;              ///< where not ok
  engine::EplbState state;  ///< where ok
};
struct ControlMessage {
  int64_t id = 0;  ///< chosen by the front
  engine::ControlRequest request;
};
struct ControlledMessage {
  int64_t id = 0;
  bool ok = false;
  Error error;                 ///< where not ok
  engine::ControlState state;  ///< where ok
};
struct PrefixesWantedMessage {
  int64_t id = 0;  ///< chosen by the front
  engine::PrefixQuery query;
};
struct PrefixesMessage {
  int64_t id = 0;
  bool ok = false;
  Error error;                    ///< where not ok
  engine::PrefixChanges changes;  ///< where ok
};
struct PromptMessage {
  int64_t id = 0;
  int32_t num_cached_tokens = 0;
  std::vector<engine::Logprobs> logprobs;
};
struct TokensMessage {
  int64_t id = 0;
  std::vector<engine::GeneratedToken> tokens;
};
struct FinishMessage {
  int64_t id = 0;
  std::vector<engine::GeneratedToken> last_tokens;  ///< of the ending step
  engine::Finish finish;
};

/// The body of a frame. Times are sent as nanoseconds of the steady clock: both ends are on one host.
template <typename Message>
std::string Encode(const Message& message);
/// Errors: kDataLoss.
template <typename Message>
Result<Message> Decode(std::string_view body);

}  // namespace cadre::link
