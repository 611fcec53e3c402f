#pragma once
// One request on its way: to one worker, or to prefill and then decode, or to both at once; again to another
// worker if nothing of an answer has gone to the client yet; the answer back as it comes.
//
// All of it runs on the io thread of the client's connection (the workers' clients share the server's
// threads), so there is no lock. A leg is one request to one worker; what a leg that has been given up still
// says is not heard.
#include <atomic>
#include <map>
#include <memory>

#include "base/json.h"
#include "base/metrics.h"
#include "route/fleet.h"
#include "route/pushed_prefill.h"
#include "route/usage_scan.h"

namespace cadre::route {

/// What all requests share; outlives them.
struct Core {
  const Options& options;
  Fleet& fleet;
  Timer& timer;
  MetricsRegistry& metrics;
  std::atomic<int64_t> num_running{0};
  Counter& retries;
  Counter& no_worker;
  Counter& pair_decisions;
  Counter& alone_decisions;
  Counter& missing_params;
  Counter &pulled, &pushed, &push_recomputed;
  Counter &predicted_tokens, &cached_tokens;  ///< of requests whose answer told
  Histogram& prediction_error;                ///< in blocks
};

class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  /// On the io thread of `writer`. The answer is given in the end, whatever happens.
  static void Start(Core& core, http::Request request, std::shared_ptr<http::ResponseWriter> writer);

  Exchange(Core& core, http::Request request, std::shared_ptr<http::ResponseWriter> writer);
  ~Exchange();

 private:
  class Leg;
  enum class Stage { kPrefill, kAnswer };

  void Begin();
  Status ReadBody();
  void GatherFacts(Role role);
  void Attempt();
  void DecidePairing(double held_share);
  void SendPair();
  void SendPrefill();
  void SendAnswerLeg();
  void Send(Lease& lease, std::string body);
  http::ClientRequest RequestTo(const Lease& lease, std::string body, int dp_rank = -1);

  // exchange_push.cc
  struct PushPlace {
    KvPlace place;
    int dp_rank = -1;  // to be asked for; -1: there is no choice
  };
  /// Where decode is to fetch from while prefill computes. Errors say why this pair cannot.
  Result<PushPlace> FindPushPlace();
  void SendBoth(const PushPlace& place);
  bool HasBegun() const;
  void PushedPrefillDone(const Gathered& heard);
  void PushFailed(const Gathered& heard, const std::string& why);
  void EndPushed(bool cancel);

  void OnHead(int status, const http::Headers& headers);
  void OnBody(std::string_view bytes);
  void OnDone(const Status& status);
  void PrefillDone(const Status& status);
  void AnswerDone(const Status& status);

  void StartStream();
  void AttemptFailed(Lease& lease, const std::string& why);
  bool MayTryAgain() const;
  bool AnotherIsThere();
  void TryAgainLater();
  void GiveUpLeg();
  void ExpectPrompt(const Lease& lease, DigestFeed::Promise& promise);
  void PromptComputed(const Lease& lease, DigestFeed::Promise& promise);
  void ComparePrediction();
  void BreakStream(const std::string& why);
  void Answer(http::Response response);
  void Finish();
  void ClientGone();
  http::Headers AnswerHeaders() const;

  Core& core_;
  http::Request request_;
  std::shared_ptr<http::ResponseWriter> writer_;  // null: finished
  const std::string request_id_;
  const TimePoint start_ = Now();
  bool generation_ = false, paired_ = false, decided_ = false, parsed_ = false;
  Json body_;
  std::map<Role, Facts> facts_;

  int attempts_ = 0;
  std::vector<const Worker*> tried_;
  std::string last_failure_;
  int last_status_ = 502;
  Lease prefill_, answer_;  // answer_: of the plain or the decode worker
  Json transfer_params_;
  std::string leg_id_;
  bool bare_ = false;  // the pair meets by leg_id_ alone
  std::shared_ptr<PushedPrefill> pushed_;

  // Of the plain or the decode worker's cache.
  std::shared_ptr<const PromptTokens> tokens_;
  DigestFeed::Match predicted_;
  CachedTokensScan cached_;
  DigestFeed::Promise prefill_promise_, answer_promise_;

  // Of the leg that runs.
  Stage stage_ = Stage::kAnswer;
  uint64_t serial_ = 0;
  std::shared_ptr<http::ClientCall> call_;
  int status_ = 0;
  std::string content_type_;
  http::Headers headers_;
  std::string collected_;
  bool collecting_ = false, is_events_ = false;

  bool streaming_ = false;       // bytes have gone to the client
  char tail_[2] = {'\n', '\n'};  // of an event stream: the last two bytes
};

}  // namespace cadre::route
