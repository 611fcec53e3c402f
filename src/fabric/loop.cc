#include "fabric/loop.h"

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "base/check.h"
#include "base/format.h"
#include "fabric/loop_link.h"

namespace cadre::fabric {

struct LoopHost::State {
  struct Meeting {
    std::map<int, std::string> blobs;
    size_t num_taken = 0;
  };
  HostTable table;
  std::vector<std::unique_ptr<ControlBlock>> blocks;  // by host
  std::vector<Control> controls;
  LoopNet net;
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, Meeting> meetings;
  std::vector<bool> gone;
  std::vector<sys::Region> regions;  // kept to the end: peers may be later than their owner
  bool stop = false;
  std::thread parents;

  // Stands for the hosts' parents: tells all of the first abort.
  void PassAbortsOn() {
    std::unique_lock lock(mutex);
    while (!stop) {
      for (const Control& control : controls) {
        if (!control.aborted()) continue;
        const Status reason = control.Check();
        for (Control& other : controls) other.Abort(control.abort_rank(), reason.error().message);
      }
      changed.wait_for(lock, std::chrono::milliseconds(10));
    }
  }
};

namespace {

class LoopRendezvous final : public Rendezvous {
 public:
  LoopRendezvous(int rank, HostTable table, LoopHost::State* host)
      : Rendezvous(rank, table, host->controls[static_cast<size_t>(table.own)], false), host_(host) {}

  ~LoopRendezvous() override {
    const std::lock_guard lock(host_->mutex);
    host_->gone[static_cast<size_t>(rank_)] = true;
    host_->changed.notify_all();
  }

 protected:
  Result<NewSegment> MakeSegment(const std::string&, size_t bytes, bool) override {
    CADRE_ASSIGN(sys::Region region, sys::AllocateRegion(std::max<size_t>(bytes, 1)));
    NewSegment segment;
    segment.mapping.data = region.data();
    segment.blob.assign(sizeof(std::byte*), '\0');
    std::byte* data = region.data();
    std::memcpy(segment.blob.data(), &data, sizeof(data));
    const std::lock_guard lock(host_->mutex);
    host_->regions.push_back(std::move(region));
    return segment;
  }

  Result<Mapping> MapPeer(const std::vector<sys::Fd>&, const std::string& pointers, size_t part, size_t,
                          bool) override {
    Mapping mapping;
    CADRE_CHECK(pointers.size() >= (part + 1) * sizeof(mapping.data));
    std::memcpy(&mapping.data, pointers.data() + part * sizeof(mapping.data), sizeof(mapping.data));
    return mapping;
  }

  Result<std::shared_ptr<HostPort>> MakePort() override {
    if (table_.link != "loop") return Rendezvous::MakePort();
    return MakeLoopPort(host_->net, control_.wakers()->fd(rank_ - table_.own_host().first_rank));
  }

  Result<std::vector<Parcel>> Exchange(const std::string& name, const std::vector<int>& ranks,
                                       const std::string& blob, const std::vector<int>&,
                                       TimePoint deadline) override {
    std::string key = name;
    for (const int r : ranks) key += Format("/{}", r);
    key += Format("#{}", calls_[key]++);  // a fast rank may come again before all have taken the last parcels
    std::unique_lock lock(host_->mutex);
    auto& meeting = host_->meetings[key];
    meeting.blobs[rank_] = blob;
    host_->changed.notify_all();
    std::vector<int> missing, gone;
    const auto complete = [&] {
      missing.clear();
      gone.clear();
      for (const int r : ranks) {
        if (meeting.blobs.contains(r)) continue;
        missing.push_back(r);
        if (host_->gone[static_cast<size_t>(r)]) gone.push_back(r);
      }
      return missing.empty() || !gone.empty() || control_.aborted();
    };
    const TimePoint start = Now();
    // Bounded slices: an abort does not notify, and wait_until overflows on TimePoint::max.
    while (!complete() && Now() < deadline) {
      host_->changed.wait_until(lock, std::min(deadline, Now() + std::chrono::milliseconds(20)));
    }
    if (!missing.empty()) {
      CADRE_TRY(control_.Check());
      if (!gone.empty())
        return Fail(Code::kUnavailable, "{} ended before joining '{}'", NameRanks(gone), name);
      return Fail(Code::kDeadlineExceeded, "{} did not join '{}' within {} s", NameRanks(missing), name,
                  SecondsText(deadline - start));
    }
    std::vector<Parcel> parcels(ranks.size());
    for (size_t i = 0; i < ranks.size(); ++i) parcels[i].blob = meeting.blobs[ranks[i]];
    if (++meeting.num_taken == ranks.size()) host_->meetings.erase(key);
    return parcels;
  }

 private:
  LoopHost::State* host_;
  std::map<std::string, int> calls_;
};

}  // namespace

LoopHost::LoopHost(int num_ranks) : LoopHost(std::vector<int>{num_ranks}, "") {}

LoopHost::LoopHost(const std::vector<int>& ranks_per_host, const std::string& link)
    : state_(std::make_unique<State>()) {
  HostTable& table = state_->table;
  table.link = link;
  for (size_t h = 0; h < ranks_per_host.size(); ++h) {
    const int first = table.num_ranks(), ranks = ranks_per_host[h];
    CADRE_CHECK(ranks >= 1 && ranks <= kMaxRanksPerHost);
    table.hosts.push_back({.name = Format("host{}", h),
                           .first_rank = first,
                           .num_ranks = ranks,
                           .addresses = {"127.0.0.1"},
                           .info = {}});
    auto block = std::make_unique<ControlBlock>();
    block->first_rank = first;
    block->num_ranks = ranks;
    std::shared_ptr<const Wakers> wakers;
    if (ranks_per_host.size() > 1) {
      auto made = Wakers::Create(ranks);
      CADRE_CHECK(made.has_value());
      wakers = std::move(*made);
    }
    state_->controls.emplace_back(block.get(), false, std::move(wakers));
    state_->blocks.push_back(std::move(block));
  }
  state_->gone.assign(static_cast<size_t>(table.num_ranks()), false);
  if (table.num_hosts() > 1) {
    state_->parents = std::thread([state = state_.get()] { state->PassAbortsOn(); });
  }
}

LoopHost::~LoopHost() {
  if (!state_->parents.joinable()) return;
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
    state_->changed.notify_all();
  }
  state_->parents.join();
}

std::unique_ptr<Rendezvous> LoopHost::Join(int rank) {
  HostTable table = state_->table;
  table.own = table.host_of(rank);
  CADRE_CHECK(table.own >= 0);
  return std::make_unique<LoopRendezvous>(rank, std::move(table), state_.get());
}
LoopHost::Traffic LoopHost::traffic() const {
  return {state_->net.num_messages.load(), state_->net.message_bytes.load()};
}
Control LoopHost::control(int host) {
  return state_->controls[static_cast<size_t>(host)];
}

}  // namespace cadre::fabric
