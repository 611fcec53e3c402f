#include "fabric/rendezvous.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/format.h"
#include "base/random.h"
#include "fabric/wire.h"

namespace cadre::fabric {
namespace {

constexpr size_t kMaxBlob = size_t{1} << 20;

// What a member of a group shows to all others.
struct Opening {
  std::string pointers;  // of threads
  std::string shape;
  std::string address;  // of its port, if it carries
  uint64_t key = 0;     // of the links that it accepts

  std::string Encode() const {
    WireWriter to;
    return to.PutText(pointers).PutText(shape).PutText(address).Put(key).text();
  }
  static Opening Decode(const std::string& blob) {
    WireReader from(blob);
    Opening opening;
    opening.pointers = from.GetText();
    opening.shape = from.GetText();
    opening.address = from.GetText();
    opening.key = from.Get<uint64_t>();
    return opening;
  }
};

std::string ShapeOf(const FabricSpec& spec, const GroupHosts& hosts) {
  std::string text =
      Format("{} bytes, {} flags, from round {}", spec.segment_bytes, spec.num_flags, spec.first_round);
  if (hosts.size() > 1) {
    text += Format(", {} channels to other hosts of {} bytes", spec.num_channels, spec.landing_bytes);
  }
  return text;
}

bool CarriesAny(const GroupHosts& hosts, int index) {
  for (int h = 0; h < hosts.size(); ++h) {
    if (h != hosts.own && hosts.Carrier(hosts.own, h) == index) return true;
  }
  return false;
}

}  // namespace

std::vector<int> Rendezvous::AllRanks() const {
  std::vector<int> ranks;
  for (int r = 0; r < num_ranks(); ++r) ranks.push_back(r);
  return ranks;
}

std::vector<int> Rendezvous::LocalRanks() const {
  std::vector<int> ranks;
  const HostEntry& host = table_.own_host();
  for (int r = 0; r < host.num_ranks; ++r) ranks.push_back(host.first_rank + r);
  return ranks;
}

Result<std::shared_ptr<HostPort>> Rendezvous::MakePort() {
  const int place = rank_ - table_.own_host().first_rank;
  CADRE_CHECK(control_.wakers() != nullptr && place < control_.wakers()->size());
  const PortOptions options{.addresses = table_.own_host().addresses,
                            .waker = control_.wakers()->fd(place),
                            .connections_per_address = table_.connections};
  return fabric::MakePort(table_.link, options);
}

Result<std::shared_ptr<HostPort>> Rendezvous::Port() {
  if (port_ == nullptr) {
    CADRE_ASSIGN(port_, MakePort());
  }
  return port_;
}

Result<std::vector<std::string>> Rendezvous::ExchangeBlobs(const std::string& name,
                                                           const std::vector<int>& ranks,
                                                           const std::string& blob, TimePoint deadline) {
  CADRE_CHECK(blob.size() <= kMaxBlob);
  CADRE_ASSIGN(std::vector<Parcel> parcels,
               Exchange(name, ranks.empty() ? AllRanks() : ranks, blob, {}, deadline));
  std::vector<std::string> blobs;
  for (Parcel& parcel : parcels) blobs.push_back(std::move(parcel.blob));
  return blobs;
}

Result<std::unique_ptr<Fabric>> Rendezvous::Open(const FabricSpec& wanted, TimePoint deadline) {
  FabricParts parts{.spec = wanted, .index = 0, .control = control_, .shared = shared_};
  FabricSpec& spec = parts.spec;
  if (spec.ranks.empty()) spec.ranks = AllRanks();
  const auto own = std::ranges::find(spec.ranks, rank_);
  CADRE_CHECK(own != spec.ranks.end() && spec.num_flags > 0);
  parts.index = static_cast<int>(own - spec.ranks.begin());
  CADRE_ASSIGN(parts.hosts, GroupHosts::Of(table_, spec.ranks, rank_));

  const size_t flag_bytes = Fabric::FlagBytes(spec, parts.hosts);
  CADRE_ASSIGN(NewSegment data,
               MakeSegment(spec.name, Fabric::SegmentBytes(spec, parts.hosts, parts.index), false));
  // Now: once the links stand, messages may come.
  if (spec.fill)
    std::memset(data.mapping.data, *spec.fill, Fabric::SegmentBytes(spec, parts.hosts, parts.index));
  CADRE_ASSIGN(NewSegment flags, MakeSegment(spec.name + ".flags", flag_bytes, true));
  // Nobody has published anything yet: all flags stand one round before the first.
  auto* lines = reinterpret_cast<FlagLine*>(flags.mapping.data);
  for (size_t f = 0; f < flag_bytes / sizeof(FlagLine); ++f) {
    lines[f].word.store(uint64_t{spec.first_round - 1} << 32);
  }

  Opening mine{.pointers = data.blob + flags.blob, .shape = ShapeOf(spec, parts.hosts)};
  if (CarriesAny(parts.hosts, parts.index)) {
    CADRE_ASSIGN(parts.port, Port());
    mine.address = parts.port->address();
    mine.key = EntropySeed();
  }
  std::vector<int> fds;
  if (data.fd) fds = {data.fd.get(), flags.fd.get()};
  CADRE_ASSIGN(const std::vector<Parcel> parcels,
               Exchange(spec.name, spec.ranks, mine.Encode(), fds, deadline));
  return MapMembers(std::move(parts), parcels, std::move(data), std::move(flags), deadline);
}

Result<std::unique_ptr<Fabric>> Rendezvous::MapMembers(FabricParts parts, const std::vector<Parcel>& parcels,
                                                       NewSegment data, NewSegment flags,
                                                       TimePoint deadline) {
  const FabricSpec& spec = parts.spec;
  const size_t num_members = spec.ranks.size();
  const auto index = static_cast<size_t>(parts.index);
  const std::string shape = ShapeOf(spec, parts.hosts);
  parts.data.resize(num_members);
  parts.flags.resize(num_members);
  std::vector<std::string> addresses(num_members);
  std::vector<uint64_t> keys(num_members);
  for (size_t r = 0; r < num_members; ++r) {
    const Opening theirs = Opening::Decode(parcels[r].blob);
    if (theirs.shape != shape) {
      return Fail(Code::kInvalidArgument, "rank {} opened '{}' with {}; rank {} with {}", rank_, spec.name,
                  shape, spec.ranks[r], theirs.shape);
    }
    addresses[r] = theirs.address;
    keys[r] = theirs.key;
    const auto member = static_cast<int>(r);
    if (r == index || parts.hosts.HostOf(member) != parts.hosts.own) continue;
    const Parcel& parcel = parcels[r];
    CADRE_ASSIGN(parts.data[r], MapPeer(parcel.fds, theirs.pointers, 0,
                                        Fabric::SegmentBytes(spec, parts.hosts, member), false));
    CADRE_ASSIGN(parts.flags[r],
                 MapPeer(parcel.fds, theirs.pointers, 1, Fabric::FlagBytes(spec, parts.hosts), true));
  }
  parts.data[index] = std::move(data.mapping);
  parts.flags[index] = std::move(flags.mapping);
  auto fabric = std::make_unique<Fabric>(std::move(parts));
  CADRE_TRY(fabric->Connect(addresses, keys, deadline));
  return fabric;
}

Result<Mapping> Rendezvous::Share(const std::string& name, int owner, size_t bytes, TimePoint deadline) {
  const std::vector<int> local = LocalRanks();
  const auto at = std::ranges::find(local, owner);
  CADRE_CHECK(at != local.end());
  NewSegment segment;
  if (rank_ == owner) {
    CADRE_ASSIGN(segment, MakeSegment(name, bytes, false));
  }
  std::vector<int> fds;
  if (segment.fd) fds = {segment.fd.get()};
  CADRE_ASSIGN(const std::vector<Parcel> parcels, Exchange(name, local, segment.blob, fds, deadline));
  if (rank_ == owner) return std::move(segment.mapping);
  const Parcel& parcel = parcels[static_cast<size_t>(at - local.begin())];
  return MapPeer(parcel.fds, parcel.blob, 0, bytes, false);
}

}  // namespace cadre::fabric
