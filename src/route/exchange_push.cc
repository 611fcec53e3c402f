// Prefill and decode asked at once: decode reserves its blocks and gets each layer as prefill has computed
// it.
//
// They meet by one request id and by the prompt, which both read from the same body; so decode can compute
// the prompt itself whenever prefill fails. Prefill's answer is worth nothing but its status: until decode
// has begun to answer, a bad one means that decode waits for what will not come.
#include <charconv>

#include "base/log.h"
#include "route/exchange.h"
#include "route/pairing.h"

namespace cadre::route {

Result<Exchange::PushPlace> Exchange::FindPushPlace() {
  const auto source = prefill_->kv_places(), target = answer_->kv_places();
  if (!source || !source->push)
    return Fail(Code::kUnavailable, "prefill {} does not say how its KV is reached (GET /kv_transfer)",
                prefill_->name());
  if (!target || !target->push)
    return Fail(Code::kUnavailable, "decode {} does not say that it can be asked at the same time",
                answer_->name());
  // Prompts are cut by what max_tokens leaves of the context, and prefill has another max_tokens.
  if (body_.Find("truncate_prompt_tokens") != nullptr)
    return Fail(Code::kUnsupported,
                "with truncate_prompt_tokens prefill and decode may read different prompts");
  const auto num_ranks = static_cast<int>(source->ranks.size());
  int rank = prefill_->address().dp_rank;
  if (const std::string* wanted = request_.Header("X-data-parallel-rank")) {
    const auto [end, ec] = std::from_chars(wanted->data(), wanted->data() + wanted->size(), rank);
    if (ec != std::errc() || end != wanted->data() + wanted->size()) rank = num_ranks;
  }
  if (rank >= num_ranks)
    return Fail(Code::kUnsupported, "prefill has {} ranks, not the one wanted", num_ranks);
  if (rank < 0 && num_ranks > 1)
    rank = static_cast<int>(prefill_->NextTurn() % static_cast<size_t>(num_ranks));
  return PushPlace{source->ranks[static_cast<size_t>(std::max(rank, 0))], rank};
}

void Exchange::SendBoth(const PushPlace& place) {
  stage_ = Stage::kAnswer;
  bare_ = false;
  status_ = 0;
  last_status_ = 502;
  core_.pushed.Add();
  LogDebug("request {}: prefill {} and decode {} are asked at once", request_id_, prefill_->name(),
           answer_->name());
  // A worker may not have seen the end of the last attempt, and refuses an id that runs.
  leg_id_ = attempts_ == 1 ? request_id_ : Format("{}-{}", request_id_, attempts_);
  pushed_ =
      PushedPrefill::Start(prefill_, RequestTo(prefill_, PushedPrefillBody(body_).Dump(), place.dp_rank),
                           [weak = weak_from_this()](const Gathered& heard) {
                             if (const auto self = weak.lock()) self->PushedPrefillDone(heard);
                           });
  if (!pushed_) return AttemptFailed(prefill_, Format("{} has no connections", prefill_->name()));
  Send(answer_, PushedDecodeBody(body_, place.place).Dump());
}

void Exchange::PushedPrefillDone(const Gathered& heard) {
  pushed_ = nullptr;
  if (!writer_) return;
  switch (EndOf(heard)) {
    case PrefillEnd::kGood:
      prefill_.Succeeded();
      PromptComputed(prefill_, prefill_promise_);
      return prefill_.Done("ok");
    case PrefillEnd::kRequestAtFault: {  // decode would say the same, or wait
      prefill_.Succeeded();
      prefill_.Done("client_error");
      if (HasBegun()) return;
      http::Response refused;
      refused.status = heard.code;
      refused.body = heard.body;
      answer_.Done("unused");
      return Answer(std::move(refused));
    }
    case PrefillEnd::kRetryable:
      return PushFailed(heard,
                        Format("prefill {}: {}", prefill_->name(),
                               heard.status ? Format("answered {}: {}", heard.code, Excerpt(heard.body, 200))
                                            : heard.status.error().message));
  }
}

// A head alone says nothing where the body is a stream of events.
bool Exchange::HasBegun() const {
  return streaming_ || (status_ != 0 && !is_events_);
}

// Decode that has begun to answer has what it needs. Else another pair is asked; without one, decode alone.
void Exchange::PushFailed(const Gathered& heard, const std::string& why) {
  const bool silent = heard.code == 0;
  const bool late = !heard.status && heard.status.error().code == Code::kDeadlineExceeded;
  const bool begun = HasBegun();
  tried_.push_back(&*prefill_);
  const bool another = MayTryAgain() && AnotherIsThere();
  tried_.pop_back();
  if (!begun && (another || late)) {
    status_ = heard.code;
    if (late) last_status_ = 504;
    return AttemptFailed(prefill_, why);
  }
  LogInfo("request {}: {}{}", request_id_, why, begun ? "" : "; decode computes the prompt");
  tried_.push_back(&*prefill_);
  if (silent && !late) {
    prefill_->ProbeFailed(why);
    core_.fleet.ProbeSoon(prefill_.shared(), core_.timer);
  }
  prefill_.Failed(why);
  if (begun) return;
  core_.push_recomputed.Add();
  GiveUpLeg();
  ExpectPrompt(answer_, answer_promise_);
  leg_id_ = Format("{}-alone-{}", request_id_, attempts_);
  Send(answer_, request_.body);
}

void Exchange::EndPushed(bool cancel) {
  const auto pushed = std::exchange(pushed_, nullptr);
  if (!pushed) return;
  if (cancel) return pushed->Cancel();
  pushed->Detach(std::move(prefill_));
}

}  // namespace cadre::route
