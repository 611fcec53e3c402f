#include "fabric/loop.h"

#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>

#include "base/check.h"
#include "base/format.h"

namespace cadre::fabric {

struct LoopHost::State {
  struct Meeting {
    std::map<int, std::string> blobs;
    size_t num_taken = 0;
  };
  int num_ranks = 0;
  ControlBlock block = {};
  Control control{&block, false};
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, Meeting> meetings;
  std::vector<bool> gone;
  std::vector<sys::Region> regions;  // kept to the end: peers may be later than their owner
};

namespace {

class LoopRendezvous final : public Rendezvous {
 public:
  LoopRendezvous(int rank, LoopHost::State* host)
      : Rendezvous(rank, host->num_ranks, host->control, false), host_(host) {}

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

  Result<Mapping> MapPeer(const Parcel& parcel, size_t part, size_t, bool) override {
    Mapping mapping;
    CADRE_CHECK(parcel.blob.size() >= (part + 1) * sizeof(mapping.data));
    std::memcpy(&mapping.data, parcel.blob.data() + part * sizeof(mapping.data), sizeof(mapping.data));
    return mapping;
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
      return missing.empty() || !gone.empty() || host_->control.aborted();
    };
    const TimePoint start = Now();
    // Bounded slices: an abort does not notify, and wait_until overflows on TimePoint::max.
    while (!complete() && Now() < deadline) {
      host_->changed.wait_until(lock, std::min(deadline, Now() + std::chrono::milliseconds(20)));
    }
    if (!missing.empty()) {
      CADRE_TRY(host_->control.Check());
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

LoopHost::LoopHost(int num_ranks) : state_(std::make_unique<State>()) {
  CADRE_CHECK(num_ranks >= 1 && num_ranks <= kMaxRanksPerHost);
  state_->num_ranks = num_ranks;
  state_->gone.assign(static_cast<size_t>(num_ranks), false);
}
LoopHost::~LoopHost() = default;

std::unique_ptr<Rendezvous> LoopHost::Join(int rank) {
  return std::make_unique<LoopRendezvous>(rank, state_.get());
}
Control LoopHost::control() {
  return state_->control;
}

}  // namespace cadre::fabric
