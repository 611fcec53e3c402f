#include "fabric/rendezvous.h"

#include <algorithm>

#include "base/check.h"
#include "base/format.h"

namespace cadre::fabric {
namespace {

constexpr size_t kMaxBlob = size_t{1} << 20;

}  // namespace

std::vector<int> Rendezvous::AllRanks() const {
  std::vector<int> ranks;
  for (int r = 0; r < num_ranks_; ++r) ranks.push_back(r);
  return ranks;
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
  FabricSpec spec = wanted;
  if (spec.ranks.empty()) spec.ranks = AllRanks();
  const auto own = std::ranges::find(spec.ranks, rank_);
  CADRE_CHECK(own != spec.ranks.end() && spec.num_flags > 0);
  const auto index = static_cast<size_t>(own - spec.ranks.begin());

  const size_t flag_bytes = static_cast<size_t>(spec.num_flags) * sizeof(FlagLine);
  CADRE_ASSIGN(NewSegment data, MakeSegment(spec.name, spec.segment_bytes, false));
  CADRE_ASSIGN(NewSegment flags, MakeSegment(spec.name + ".flags", flag_bytes, true));
  // Nobody has published anything yet: all flags stand one round before the first.
  auto* lines = reinterpret_cast<FlagLine*>(flags.mapping.data);
  for (int f = 0; f < spec.num_flags; ++f) lines[f].word.store(uint64_t{spec.first_round - 1} << 32);

  const std::string shape =
      Format("{} bytes, {} flags, from round {}", spec.segment_bytes, spec.num_flags, spec.first_round);
  std::vector<int> fds;
  if (data.fd) fds = {data.fd.get(), flags.fd.get()};
  CADRE_ASSIGN(const std::vector<Parcel> parcels,
               Exchange(spec.name, spec.ranks, data.blob + flags.blob + shape, fds, deadline));
  const size_t prefix = data.blob.size() + flags.blob.size();
  std::vector<Mapping> all_data(spec.ranks.size()), all_flags(spec.ranks.size());
  for (size_t r = 0; r < parcels.size(); ++r) {
    if (parcels[r].blob.size() < prefix || parcels[r].blob.substr(prefix) != shape) {
      return Fail(Code::kInvalidArgument, "rank {} opened '{}' with {}; rank {} with {}", rank_, spec.name,
                  shape, spec.ranks[r], parcels[r].blob.substr(std::min(prefix, parcels[r].blob.size())));
    }
    if (r == index) continue;
    CADRE_ASSIGN(all_data[r], MapPeer(parcels[r], 0, spec.segment_bytes, false));
    CADRE_ASSIGN(all_flags[r], MapPeer(parcels[r], 1, flag_bytes, true));
  }
  all_data[index] = std::move(data.mapping);
  all_flags[index] = std::move(flags.mapping);
  return std::make_unique<Fabric>(std::move(spec), static_cast<int>(index), control_, shared_,
                                  std::move(all_data), std::move(all_flags));
}

Result<Mapping> Rendezvous::Share(const std::string& name, int owner, size_t bytes, TimePoint deadline) {
  NewSegment segment;
  if (rank_ == owner) {
    CADRE_ASSIGN(segment, MakeSegment(name, bytes, false));
  }
  std::vector<int> fds;
  if (segment.fd) fds = {segment.fd.get()};
  CADRE_ASSIGN(const std::vector<Parcel> parcels, Exchange(name, AllRanks(), segment.blob, fds, deadline));
  if (rank_ == owner) return std::move(segment.mapping);
  return MapPeer(parcels[static_cast<size_t>(owner)], 0, bytes, false);
}

}  // namespace cadre::fabric
