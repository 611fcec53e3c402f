#include "route/pushed_prefill.h"

#include "route/messages.h"

namespace cadre::route {
namespace {

constexpr size_t kMaxRefusal = 1 << 16;  // of a good answer nothing is read

}  // namespace

PrefillEnd EndOf(const Gathered& heard) {
  if (!heard.status || heard.code >= 500 || IsRetryable(heard.code)) return PrefillEnd::kRetryable;
  return heard.code / 100 == 2 ? PrefillEnd::kGood : PrefillEnd::kRequestAtFault;
}

std::shared_ptr<PushedPrefill> PushedPrefill::Start(const Lease& prefill, http::ClientRequest request,
                                                    std::function<void(Gathered)> hear) {
  auto self = std::make_shared<PushedPrefill>();
  self->hear_ = std::move(hear);
  auto sink = std::make_shared<GatherSink>(kMaxRefusal, GatherSink::Beyond::kIsDropped,
                                           [self](Gathered heard) { self->Done(std::move(heard)); });
  self->call_ = prefill->Send(std::move(request), std::move(sink));
  return self->call_ ? self : nullptr;
}

void PushedPrefill::Done(Gathered heard) {
  call_ = nullptr;
  if (auto hear = std::exchange(hear_, nullptr)) return hear(std::move(heard));
  if (!lease_) return;
  switch (EndOf(heard)) {
    case PrefillEnd::kGood:
      lease_.Succeeded();
      return lease_.Done("ok");
    case PrefillEnd::kRequestAtFault:
      lease_.Succeeded();
      return lease_.Done("client_error");
    case PrefillEnd::kRetryable:
      return lease_.Failed(heard.status ? Format("answered {}", heard.code) : heard.status.error().message);
  }
}

void PushedPrefill::Cancel() {
  hear_ = nullptr;
  if (const auto call = std::exchange(call_, nullptr)) call->Cancel();
}

void PushedPrefill::Detach(Lease prefill) {
  hear_ = nullptr;
  lease_ = std::move(prefill);
}

}  // namespace cadre::route
