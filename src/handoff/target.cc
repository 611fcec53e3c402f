#include "handoff/target.h"

#include <algorithm>

#include "base/log.h"

namespace cadre::handoff {
namespace {

constexpr size_t kMaxOrders = 4096;

}  // namespace

// A word to a source that needs no more than to be heard.
class Target::Teller final : public StreamUser, public std::enable_shared_from_this<Teller> {
 public:
  Teller(Links& links, SourceAddress source, bool reject)
      : links_(links), source_(std::move(source)), reject_(reject) {}

  void Start() {
    links_.Open({source_.host, source_.port}, source_.engine_id, weak_from_this(),
                [this](Result<std::shared_ptr<Link>> link) {
                  if (!link) return Finish(std::unexpected(link.error()));
                  place_.Take(std::move(*link), this);
                  fabric::WireWriter out;
                  out.Put(place_.stream()).PutText(source_.request_id).Put(uint8_t{reject_});
                  place_.Send(kTell, out.text());
                });
  }
  bool over() const { return status_.has_value(); }
  bool failed() const { return over() && !status_->has_value(); }

 private:
  void Heard(FrameKind, fabric::WireReader& in) override { Finish(Outcome::Decode(in).status); }
  void Lost(const Error& why) override { Finish(std::unexpected(why)); }
  void Finish(Status status) {
    if (!status) {
      LogWarning("hand-off: cannot tell {}:{} that request '{}' {}: {}", source_.host, source_.port,
                 Excerpt(source_.request_id), reject_ ? "is not wanted" : "is still wanted",
                 status.error().message);
    }
    status_ = std::move(status);
  }

  Links& links_;
  SourceAddress source_;
  bool reject_;
  StreamPlace place_;
  std::optional<Status> status_;
};

Target::Target(Options options) : options_(std::move(options)) {}
Target::~Target() = default;

void Target::Fetch(FetchOrder order, int64_t generation) {
  leads_.push_back(std::make_shared<Lead>(Lead::Options{.share = options_.share,
                                                        .engine_id = options_.engine_id,
                                                        .peers = peers_,
                                                        .silence_timeout = options_.silence_timeout,
                                                        .generation = generation,
                                                        .fetched = options_.fetched},
                                          std::move(order)));
  leads_.back()->Start();
}

void Target::Cancel(FetchId id) {
  for (const auto& lead : leads_) {
    if (lead->id() == id) lead->End(Fail(Code::kCancelled, "the fetch was cancelled"));
  }
}

void Target::Tell(const SourceAddress& source, bool reject) {
  tellers_.push_back(std::make_shared<Teller>(*options_.share.links, source, reject));
  tellers_.back()->Start();
}

void Target::HearOrder(Caller* caller, fabric::WireReader& in, uint32_t stream) {
  auto order = ShareOrder::Decode(in);
  if (!order || !caller->trusted) return caller->stream.Break("it gives orders that it may not give");
  if (orders_.size() >= kMaxOrders) {
    const Outcome full = {.status = Fail(Code::kResourceExhausted, "too many fetches at once")};
    return caller->stream.Send(kOrdered, full.Encode(stream));
  }
  orders_.push_back({caller, stream, nullptr});
  orders_.back().share = std::make_shared<Share>(
      options_.share, std::move(*order),
      [caller, stream](const Outcome& outcome) { caller->stream.Send(kOrdered, outcome.Encode(stream)); });
  orders_.back().share->Start();
}

void Target::HearStop(Caller* caller, uint32_t stream) {
  for (const Ordered& ordered : orders_) {
    if (ordered.caller != caller || ordered.stream != stream || ordered.share->over()) continue;
    ordered.share->Abort();
    const Outcome outcome = {.status = Fail(Code::kCancelled, "the fetch was cancelled"),
                             .bytes = ordered.share->bytes()};
    caller->stream.Send(kOrdered, outcome.Encode(stream));
  }
}

void Target::Forget(Caller* caller) {
  for (const Ordered& ordered : orders_) {
    if (ordered.caller == caller) ordered.share->Abort();
  }
  std::erase_if(orders_, [&](const Ordered& ordered) { return ordered.caller == caller; });
}

bool Target::CopySome() {
  bool more = false;
  for (const auto& lead : leads_) more |= lead->CopySome();
  for (const Ordered& ordered : orders_) more |= !ordered.share->over() && ordered.share->CopySome();
  return more;
}

void Target::HandleTimes(TimePoint now) {
  std::erase_if(leads_, [&](const std::shared_ptr<Lead>& lead) {
    if (!lead->Over(now)) return false;
    if (lead->source_waits()) Tell(lead->source(), true);
    return true;
  });
  std::erase_if(orders_, [](const Ordered& ordered) { return ordered.share->over(); });
  std::erase_if(tellers_, [&](const std::shared_ptr<Teller>& teller) {
    num_failed_tells_ += teller->failed();
    return teller->over();
  });
}

TimePoint Target::next_time() const {
  TimePoint next = TimePoint::max();
  for (const auto& lead : leads_) next = std::min(next, lead->next_time());
  return next;
}

}  // namespace cadre::handoff
