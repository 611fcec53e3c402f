#include "route/exchange.h"

#include <algorithm>
#include <cmath>

#include "base/log.h"
#include "base/random.h"
#include "route/facts.h"
#include "route/messages.h"
#include "route/pairing.h"

namespace cadre::route {
namespace {

// An answer with a length up to this goes to the client in one piece, so that it can still be asked for again
// elsewhere when the worker dies in the middle; longer ones and those without a length are passed on as they
// come.
constexpr int64_t kCollectBytes = 1 << 20;
constexpr size_t kMaxPrefillAnswer = 64 << 20;
constexpr int kMaxJsonDepth = 128;
constexpr int64_t kBytesOfToken = 4;  // where nobody counts tokens; ids are counted as four bytes each

// Rounded up: what has run out for the client has run out for us.
std::chrono::milliseconds Ms(Duration d) {
  return std::max(std::chrono::ceil<std::chrono::milliseconds>(d), std::chrono::milliseconds(1));
}

int64_t LengthOf(const http::Headers& headers) {
  const std::string* text = http::FindHeader(headers, "Content-Length");
  if (text == nullptr || text->empty() || text->size() > 18) return -1;
  int64_t value = 0;
  for (const char c : *text) {
    if (c < '0' || c > '9') return -1;
    value = value * 10 + (c - '0');
  }
  return value;
}

}  // namespace

// Passes on what a worker says, unless the exchange has moved on.
class Exchange::Leg final : public http::ResponseSink {
 public:
  Leg(std::shared_ptr<Exchange> owner, uint64_t serial) : owner_(std::move(owner)), serial_(serial) {}
  void OnHead(int status, const http::Headers& headers) override {
    if (IsCurrent()) owner_->OnHead(status, headers);
  }
  void OnBody(std::string_view bytes) override {
    if (IsCurrent()) owner_->OnBody(bytes);
  }
  void OnDone(Status status) override {
    if (IsCurrent()) owner_->OnDone(status);
    owner_.reset();
  }

 private:
  bool IsCurrent() const { return owner_->writer_ != nullptr && owner_->serial_ == serial_; }
  std::shared_ptr<Exchange> owner_;
  const uint64_t serial_;
};

Exchange::Exchange(Core& core, http::Request request, std::shared_ptr<http::ResponseWriter> writer)
    : core_(core),
      request_(std::move(request)),
      writer_(std::move(writer)),
      request_id_(RequestId(request_, core.options.request_id_headers)) {
  core_.num_running.fetch_add(1);
}

Exchange::~Exchange() {
  if (writer_) core_.num_running.fetch_sub(1);
}

void Exchange::Start(Core& core, http::Request request, std::shared_ptr<http::ResponseWriter> writer) {
  const auto exchange = std::make_shared<Exchange>(core, std::move(request), std::move(writer));
  exchange->Begin();
}

void Exchange::Begin() {
  writer_->OnDisconnect([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->ClientGone();
  });
  if (core_.num_running.load() > core_.options.max_concurrent_requests) {
    return Answer(
        ErrorResponse(429, Format("{} requests run here, as many as --max-concurrent-requests allows",
                                  core_.options.max_concurrent_requests)));
  }
  if (const Status read = ReadBody(); !read) return Answer(ErrorResponse(400, read.error().message));
  Attempt();
}

// A body is parsed only where something of it is needed; what is wrong with it is the worker's to say, unless
// it has to be rewritten here.
Status Exchange::ReadBody() {
  const bool generation = request_.method == "POST" && IsGeneration(request_.path);
  const bool pairs = core_.fleet.pairs();
  bool wanted = generation && pairs;
  for (const Role role : pairs ? std::vector{Role::kPrefill, Role::kDecode} : std::vector{Role::kPlain})
    wanted |= core_.fleet.WantsChain(role) || core_.fleet.WantsKey(role);
  if (!wanted || request_.body.empty()) {
    if (generation && pairs) return Fail(Code::kInvalidArgument, "the request has no body");
    return {};
  }
  auto parsed = Json::Parse(request_.body, kMaxJsonDepth);
  parsed_ = parsed && parsed->is_object();
  if (parsed_) body_ = *std::move(parsed);
  generation_ = generation;
  if (!generation || !pairs) return {};
  if (!parsed) return std::unexpected(parsed.error());
  if (!parsed_) return Fail(Code::kInvalidArgument, "the body must be a JSON object");
  paired_ = IsForPair(body_);
  return {};
}

void Exchange::GatherFacts(Role role) {
  if (facts_.contains(role)) return;
  Facts& facts = facts_[role];
  if (core_.fleet.WantsKey(role)) facts.key = SessionKey(request_, parsed_ ? &body_ : nullptr);
  const bool decides = paired_ && role == Role::kDecode && core_.options.prefill_threshold > 0;
  if (!parsed_ || (!core_.fleet.WantsChain(role) && !decides)) return;
  int64_t num_bytes = 0;
  facts.chain = PromptChain(body_, &num_bytes);
  facts.num_tokens = num_bytes / kBytesOfToken;
  if (!tokens_ && generation_ && core_.options.tokenize) {
    if (auto ids = core_.options.tokenize(request_.path, body_); ids && !ids->empty())
      tokens_ = std::make_shared<const PromptTokens>(*std::move(ids), CacheSalt(body_));
  }
  if (!tokens_) return;
  facts.tokens = tokens_;
  facts.num_tokens = tokens_->size();
}

void Exchange::Attempt() {
  if (!writer_) return;
  ++attempts_;
  const Role role = core_.fleet.pairs() ? Role::kDecode : Role::kPlain;
  GatherFacts(role);
  Fleet::Picked picked = core_.fleet.Pick(role, facts_[role], tried_);
  answer_ = std::move(picked.lease);
  if (answer_) DecidePairing(picked.share);
  if (answer_ && paired_) {
    GatherFacts(Role::kPrefill);
    prefill_ = core_.fleet.Pick(Role::kPrefill, facts_[Role::kPrefill], tried_).lease;
  }
  if (answer_ && !paired_) {
    body_ = Json();  // what of it decides is known; it travels as text
    // A pair's decode counts what it has fetched: that is no cache to be predicted.
    predicted_ = picked.said;
  }
  if (answer_ && (!paired_ || prefill_)) {
    ExpectPrompt(answer_, answer_promise_);
    if (paired_) ExpectPrompt(prefill_, prefill_promise_);
    return paired_ ? SendPair() : SendAnswerLeg();
  }
  const Role missing = answer_ ? Role::kPrefill : role;
  answer_.Done("unused");
  if (!last_failure_.empty()) return Answer(ErrorResponse(last_status_, last_failure_));
  core_.no_worker.Add();
  Answer(
      ErrorResponse(503, Format("no {} is healthy now; {} known. GET /workers shows why",
                                missing == Role::kPlain ? "worker" : Format("{} worker", RoleName(missing)),
                                core_.fleet.Of(missing).size())));
}

// Once for a request: what it has to compute does not depend on who fails.
void Exchange::DecidePairing(double held_share) {
  if (!generation_ || !core_.fleet.pairs() || std::exchange(decided_, true)) return;
  const int64_t num_tokens = facts_[Role::kDecode].num_tokens;
  const int64_t missing = num_tokens - std::llround(static_cast<double>(num_tokens) * held_share);
  if (paired_ && missing < core_.options.prefill_threshold) paired_ = false;
  (paired_ ? core_.pair_decisions : core_.alone_decisions).Add();
}

void Exchange::SendPair() {
  const std::string &p = prefill_->address().kv_address, &d = answer_->address().kv_address;
  bare_ = !p.empty() && !d.empty();
  transfer_params_ = Json();
  const KvTransferMode mode = core_.options.kv_transfer_mode;
  if (mode == KvTransferMode::kPull || (bare_ && mode == KvTransferMode::kAuto)) return SendPrefill();
  if (const auto place = FindPushPlace()) {
    SendBoth(*place);
  } else if (mode == KvTransferMode::kAuto) {
    SendPrefill();
  } else {
    prefill_.Done("unused");
    answer_.Done("unused");
    Answer(ErrorResponse(503, Format("--kv-transfer-mode push: {}", place.error().message)));
  }
}

void Exchange::SendPrefill() {
  stage_ = Stage::kPrefill;
  core_.pulled.Add();
  leg_id_ = bare_
                ? PairRequestId(prefill_->address().kv_address, answer_->address().kv_address, NewRequestId())
                : request_id_;
  Send(prefill_, PrefillBody(body_, bare_).Dump());
}

void Exchange::SendAnswerLeg() {
  stage_ = Stage::kAnswer;
  if (!paired_) leg_id_ = request_id_;
  Send(answer_,
       paired_ && !transfer_params_.is_null() ? DecodeBody(body_, transfer_params_).Dump() : request_.body);
}

http::ClientRequest Exchange::RequestTo(const Lease& lease, std::string body, int dp_rank) {
  http::ClientRequest out;
  out.method = request_.method;
  out.target = TargetOf(request_);
  out.headers = ForwardedHeaders(request_.headers);
  out.headers.emplace_back("X-Request-Id", leg_id_);
  if (bare_) out.headers.emplace_back("X-KV-Target", answer_->address().HostPort());
  if (dp_rank < 0) dp_rank = lease->address().dp_rank;
  if (dp_rank >= 0 && request_.Header("X-data-parallel-rank") == nullptr)
    out.headers.emplace_back("X-data-parallel-rank", Format("{}", dp_rank));
  if (!core_.options.api_key.empty() && request_.Header("Authorization") == nullptr)
    out.headers.emplace_back("Authorization", "Bearer " + core_.options.api_key);
  out.body = std::move(body);
  out.idle_timeout = out.total_timeout = Ms(start_ + core_.options.request_timeout - Now());
  return out;
}

void Exchange::Send(Lease& lease, std::string body) {
  http::ClientRequest out = RequestTo(lease, std::move(body));
  ++serial_;
  status_ = 0;
  last_status_ = 502;
  headers_.clear();
  collected_.clear();
  call_ = lease->Send(std::move(out), std::make_shared<Leg>(shared_from_this(), serial_));
  if (!call_) AttemptFailed(lease, Format("{} has no connections", lease->name()));
}

void Exchange::OnHead(int status, const http::Headers& headers) {
  status_ = status;
  if (stage_ == Stage::kPrefill) return;
  if (IsRetryable(status) && MayTryAgain()) {
    tried_.push_back(&*answer_);
    const bool another = AnotherIsThere();
    tried_.pop_back();
    if (another) {
      return AttemptFailed(
          answer_, Format("{} {} answered {}", RoleName(answer_->address().role), answer_->name(), status));
    }
  }
  const std::string* type = http::FindHeader(headers, "Content-Type");
  content_type_ = type != nullptr ? *type : "";
  headers_ = ReturnedHeaders(headers);
  is_events_ = content_type_.starts_with("text/event-stream");
  const int64_t length = LengthOf(headers);
  collecting_ = !is_events_ && length >= 0 && length <= kCollectBytes;
}

void Exchange::OnBody(std::string_view bytes) {
  if (bytes.empty()) return;
  if (stage_ == Stage::kAnswer && tokens_ && !paired_) cached_.Push(bytes);
  if (stage_ == Stage::kPrefill || collecting_) {
    if (collected_.size() + bytes.size() > kMaxPrefillAnswer)
      return AttemptFailed(stage_ == Stage::kPrefill ? prefill_ : answer_, "the answer is too long");
    collected_ += bytes;
    return;
  }
  if (!streaming_) StartStream();
  const auto writer = writer_;
  writer->Write(bytes);
  if (!writer_) return;  // a client that does not read was cut off
  if (bytes.size() > 1) tail_[0] = bytes[bytes.size() - 2];
  if (bytes.size() == 1) tail_[0] = tail_[1];
  tail_[1] = bytes.back();
}

void Exchange::OnDone(const Status& status) {
  call_ = nullptr;
  if (stage_ == Stage::kPrefill) return PrefillDone(status);
  AnswerDone(status);
}

void Exchange::PrefillDone(const Status& status) {
  const std::string name = Format("prefill {}", prefill_->name());
  if (!status) {
    if (status.error().code == Code::kDeadlineExceeded) last_status_ = 504;
    return AttemptFailed(prefill_, Format("{}: {}", name, status.error().message));
  }
  if (status_ >= 500 || IsRetryable(status_)) {
    return AttemptFailed(prefill_, Format("{} answered {}: {}", name, status_, Excerpt(collected_, 200)));
  }
  if (status_ / 100 != 2) {  // the request is at fault: decode would say the same
    prefill_.Succeeded();
    prefill_.Done("client_error");
    answer_.Done("unused");
    http::Response refused;
    refused.status = status_;
    refused.body = std::move(collected_);
    return Answer(std::move(refused));
  }
  auto params = TransferParams(collected_);
  collected_ = {};
  if (!params) return AttemptFailed(prefill_, Format("{}: {}", name, params.error().message));
  prefill_.Succeeded();
  PromptComputed(prefill_, prefill_promise_);
  if (params->is_null() && !bare_) {
    core_.missing_params.Add();
    LogDebug("{} answered without kv_transfer_params: decode computes the prompt again", name);
  }
  prefill_.Done("ok");
  transfer_params_ = *std::move(params);
  SendAnswerLeg();
}

void Exchange::AnswerDone(const Status& status) {
  const std::string name = Format("{} {}", RoleName(answer_->address().role), answer_->name());
  if (!status && status.error().code == Code::kDeadlineExceeded) last_status_ = 504;
  if (!status && streaming_) return BreakStream(Format("{} broke off: {}", name, status.error().message));
  if (!status) {
    return AttemptFailed(answer_, Format("{}: {}", name, status.error().message));
  }
  if (is_events_ && !streaming_ && request_.method != "HEAD")
    return AttemptFailed(answer_, Format("{} ended its stream without an event", name));
  EndPushed(status_ >= 400);
  if (status_ / 100 == 2) {
    PromptComputed(answer_, answer_promise_);
    ComparePrediction();
  }
  if (status_ >= 500) {
    answer_.Failed(Format("{} answered {}", name, status_));
  } else {
    answer_.Succeeded();
    answer_.Done(status_ >= 400 ? "client_error" : "ok");
  }
  if (streaming_) {
    writer_->End();
    return Finish();
  }
  http::Response response;
  response.status = status_;
  response.content_type = content_type_;
  response.headers = AnswerHeaders();
  response.body = std::move(collected_);
  const auto writer = writer_;
  Finish();
  writer->Send(std::move(response));
}

// The first byte: from here on there is no way back.
void Exchange::StartStream() {
  streaming_ = true;
  if (status_ < 500) answer_.Succeeded();
  if (status_ / 100 == 2) PromptComputed(answer_, answer_promise_);
  writer_->StartStream(status_, content_type_, AnswerHeaders());
}

http::Headers Exchange::AnswerHeaders() const {
  http::Headers headers = headers_;
  headers.emplace_back("X-Request-Id", request_id_);
  if (predicted_.tokens >= 0)
    headers.emplace_back("X-Cadre-Predicted-Cached-Tokens", Format("{}", predicted_.tokens));
  return headers;
}

void Exchange::ExpectPrompt(const Lease& lease, DigestFeed::Promise& promise) {
  if (lease->digests() != nullptr) promise = lease->digests()->Expect(tokens_);
}

void Exchange::PromptComputed(const Lease& lease, DigestFeed::Promise& promise) {
  promise.Keep();
  if (lease->digests() != nullptr && generation_) lease->digests()->Changed(lease.shared(), core_.timer);
}

void Exchange::ComparePrediction() {
  const auto cached = cached_.value();
  if (predicted_.tokens < 0 || !cached) return;
  core_.predicted_tokens.Add(static_cast<double>(predicted_.tokens));
  core_.cached_tokens.Add(static_cast<double>(*cached));
  const int64_t error = std::abs(predicted_.tokens - *cached);
  core_.prediction_error.Observe(static_cast<double>(error) / predicted_.block_size);
}

bool Exchange::MayTryAgain() const {
  return !streaming_ && attempts_ < core_.options.retry.max_attempts &&
         Now() < start_ + core_.options.request_timeout;
}

bool Exchange::AnotherIsThere() {
  const auto one = [&](Role role) { return core_.fleet.CanPick(role, tried_); };
  if (!core_.fleet.pairs()) return one(Role::kPlain);
  return one(Role::kDecode) && (!paired_ || one(Role::kPrefill));
}

void Exchange::GiveUpLeg() {
  prefill_promise_ = {};
  answer_promise_ = {};
  ++serial_;  // what it still says is not heard
  if (call_) call_->Cancel();
  call_ = nullptr;
  EndPushed(true);
}

void Exchange::AttemptFailed(Lease& lease, const std::string& why) {
  LogInfo("request {}: {}{}", request_id_, why, MayTryAgain() ? "; trying again" : "");
  last_failure_ = why;
  GiveUpLeg();
  collected_ = {};
  tried_.push_back(&*lease);
  if (status_ == 0) {  // no answer at all: it may be dead, or slow
    if (last_status_ != 504) lease->ProbeFailed(why);
    for (const auto& worker : core_.fleet.All()) {
      if (worker.get() == &*lease) core_.fleet.ProbeSoon(worker, core_.timer);
    }
  }
  lease.Failed(why);
  prefill_.Done("unused");
  answer_.Done("unused");
  if (!MayTryAgain()) return Answer(ErrorResponse(last_status_, last_failure_));
  core_.retries.Add();
  if (AnotherIsThere()) return Attempt();
  tried_.clear();
  if (!AnotherIsThere()) return Answer(ErrorResponse(last_status_, last_failure_));
  TryAgainLater();
}

// All have been tried: the next round waits a little, longer each time.
void Exchange::TryAgainLater() {
  const RetryOptions& retry = core_.options.retry;
  double wait_s = Seconds(retry.initial_backoff);
  for (int i = 1; i < attempts_ && wait_s < Seconds(retry.max_backoff); ++i) wait_s *= retry.multiplier;
  wait_s = std::min(wait_s, Seconds(retry.max_backoff));
  wait_s *= 1 + retry.jitter * (2 * UniformAt(EntropySeed(), 0, 0) - 1);
  const auto delay = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(wait_s));
  core_.timer.After(
      delay, [self = shared_from_this(), writer = writer_] { writer->Post([self] { self->Attempt(); }); });
}

// The client has a part of the answer: an event stream says what happened, anything else is cut off, which
// the missing end shows.
void Exchange::BreakStream(const std::string& why) {
  LogWarning("request {}: {}", request_id_, why);
  if (last_status_ == 504) {
    answer_.Done("timeout");  // it was still writing
  } else {
    answer_->ProbeFailed(why);
    answer_.Failed(why);
  }
  if (is_events_) {
    std::string event = tail_[1] != '\n' ? "\n\n" : tail_[0] != '\n' ? "\n" : "";
    event += Format("data: {}\n\n", ErrorText(last_status_, why));
    const auto writer = writer_;
    writer->Write(event);
    writer->End();
  }
  Finish();
}

void Exchange::Answer(http::Response response) {
  if (!writer_) return;
  GiveUpLeg();
  response.headers.emplace_back("X-Request-Id", request_id_);
  const auto writer = writer_;
  Finish();
  writer->Send(std::move(response));
}

void Exchange::Finish() {
  if (!writer_) return;
  EndPushed(true);
  prefill_promise_ = {};
  answer_promise_ = {};
  writer_ = nullptr;
  core_.num_running.fetch_sub(1);
}

void Exchange::ClientGone() {
  if (!writer_) return;
  LogDebug("request {}: the client has left", request_id_);
  GiveUpLeg();
  prefill_.Done("cancelled");
  answer_.Done("cancelled");
  Finish();
}

}  // namespace cadre::route
