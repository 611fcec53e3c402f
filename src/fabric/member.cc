// The rank's side of broker.h.
#include <mutex>

#include "base/format.h"
#include "fabric/broker.h"
#include "fabric/wire.h"
#include "sys/shared_memory.h"
#include "sys/sockets.h"

namespace cadre::fabric {
namespace {

// The broker answers every request by its deadline; what comes later than this is a parent that hangs.
constexpr auto kAnswerGrace = std::chrono::seconds(5);

class Member final : public Rendezvous {
 public:
  Member(int rank, HostTable table, std::string run_id, sys::Region page,
         std::shared_ptr<const Wakers> wakers, sys::Fd socket)
      : Rendezvous(rank, std::move(table),
                   Control(reinterpret_cast<ControlBlock*>(page.data()), true, std::move(wakers)), true),
        run_id_(std::move(run_id)),
        page_(std::move(page)),
        socket_(std::move(socket)) {}

  ~Member() override {
    [[maybe_unused]] const Status told =
        sys::SendFrame(socket_.get(), kGoodbye, {}, {}, Now() + std::chrono::seconds(1));
  }

 protected:
  Result<NewSegment> MakeSegment(const std::string& name, size_t bytes, bool peers_write) override {
    CADRE_ASSIGN(sys::Segment made,
                 sys::CreateSegment(Format("cadre-{}-{}-r{}", run_id_, name, rank_), bytes, !peers_write));
    NewSegment segment;
    segment.mapping.data = made.region.data();
    segment.mapping.region = std::move(made.region);
    segment.fd = std::move(made.fd);
    return segment;
  }

  Result<Mapping> MapPeer(const std::vector<sys::Fd>& fds, const std::string&, size_t part, size_t bytes,
                          bool write) override {
    if (fds.size() <= part) return Fail(Code::kDataLoss, "a rank sent no memory to share");
    Mapping mapping;
    CADRE_ASSIGN(mapping.region, sys::MapSegment(fds[part].get(), std::max<size_t>(bytes, 1),
                                                 write ? sys::Access::kReadWrite : sys::Access::kRead));
    mapping.data = mapping.region.data();
    return mapping;
  }

  Result<std::vector<Parcel>> Exchange(const std::string& name, const std::vector<int>& ranks,
                                       const std::string& blob, const std::vector<int>& fds,
                                       TimePoint deadline) override {
    const std::lock_guard lock(mutex_);
    const auto left = deadline == TimePoint::max()
                          ? std::chrono::milliseconds(86'400'000)
                          : std::chrono::ceil<std::chrono::milliseconds>(deadline - Now());
    const TimePoint give_up = Now() + left + kAnswerGrace;
    const uint32_t sequence = ++sequence_;
    WireWriter body;
    body.Put(sequence).Put(std::max<int64_t>(left.count(), 0)).PutText(name);
    body.Put(static_cast<uint32_t>(ranks.size()));
    for (const int r : ranks) body.Put(int32_t{r});
    body.PutText(blob);
    CADRE_TRY(NamePeer(sys::SendFrame(socket_.get(), kMeet, body.text(), fds, give_up)));
    while (true) {
      auto frame = sys::RecvFrame(socket_.get(), kMaxMessage, give_up);
      if (!frame) {
        CADRE_TRY(control_.Check());
        CADRE_TRY(NamePeer(std::unexpected(std::move(frame).error())));
      }
      WireReader reader(std::move(frame->body));
      if (reader.Get<uint32_t>() != sequence) continue;  // the answer to a request that was given up
      if (frame->kind == kRefused) return ReadRefusal(reader);
      return ReadParcels(reader, *frame, ranks.size());
    }
  }

 private:
  static Status NamePeer(Status status) {
    if (status) return status;
    return Fail(status.error().code,
                "the process in which this host's ranks meet (a server's own, or a group's first rank) does "
                "not answer: {}",
                status.error().message);
  }

  static std::unexpected<Error> ReadRefusal(WireReader& reader) {
    const auto code = reader.Get<Code>();
    return std::unexpected(Error{code, reader.GetText(), {}});
  }

  static Result<std::vector<Parcel>> ReadParcels(WireReader& reader, sys::Frame& frame, size_t count) {
    std::vector<Parcel> parcels(count);
    size_t next_fd = 0;
    for (Parcel& parcel : parcels) {
      parcel.blob = reader.GetText();
      const auto num_fds = reader.Get<uint32_t>();
      for (uint32_t i = 0; i < num_fds && next_fd < frame.fds.size(); ++i) {
        parcel.fds.push_back(std::move(frame.fds[next_fd++]));
      }
    }
    if (!reader.ok() || frame.kind != kParcels)
      return Fail(Code::kDataLoss, "the parent sent a broken message");
    return parcels;
  }

  std::string run_id_;
  sys::Region page_;
  sys::Fd socket_;
  std::mutex mutex_;
  uint32_t sequence_ = 0;
};

}  // namespace

Result<std::unique_ptr<Rendezvous>> JoinHost(sys::Fd socket, TimePoint deadline) {
  CADRE_ASSIGN(sys::Frame frame, sys::RecvFrame(socket.get(), kMaxMessage, deadline));
  WireReader reader(std::move(frame.body));
  const auto version = reader.Get<uint32_t>();
  const auto rank = reader.Get<int32_t>();
  std::string run_id = reader.GetText();
  const auto own_host = reader.Get<int32_t>();
  if (frame.kind != kWelcome || !reader.ok()) {
    return Fail(Code::kDataLoss, "the parent process sent a broken greeting");
  }
  if (version != kWireVersion) {
    return Fail(Code::kUnsupported, "the parent speaks version {} of the join protocol, this rank version {}",
                version, kWireVersion);
  }
  HostTable table = HostTable::Read(reader, own_host);
  if (table.hosts.empty() || frame.fds.size() != 1 + static_cast<size_t>(table.own_host().num_ranks)) {
    return Fail(Code::kDataLoss, "the parent process sent a broken greeting");
  }
  CADRE_ASSIGN(sys::Region page,
               sys::MapSegment(frame.fds[0].get(), sizeof(ControlBlock), sys::Access::kReadWrite));
  frame.fds.erase(frame.fds.begin());
  auto wakers = std::make_shared<const Wakers>(std::move(frame.fds));
  return std::make_unique<Member>(rank, std::move(table), std::move(run_id), std::move(page),
                                  std::move(wakers), std::move(socket));
}

}  // namespace cadre::fabric
