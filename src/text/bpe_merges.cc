#include "text/bpe_merges.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace cadre::text {
namespace {

constexpr size_t kScanAtMost = 40;  // symbols; measured: the scan wins below

}  // namespace

void BpeMerges::Reserve(size_t count) {
  slots_.assign(std::bit_ceil(count * 2 + 16), {});
  merged_.reserve(count);
}

void BpeMerges::Add(int32_t left, int32_t right, int32_t merged) {
  const uint64_t pair = PairOf(left, right);
  size_t slot = SlotOf(pair);
  while (slots_[slot].pair != kFree && slots_[slot].pair != pair) slot = (slot + 1) & (slots_.size() - 1);
  slots_[slot] = {pair, static_cast<uint32_t>(merged_.size())};
  merged_.push_back(merged);
}

void BpeMerges::Merge(Scratch& scratch) const {
  if (scratch.ids.size() <= kScanAtMost) {
    MergeByScan(scratch);
  } else {
    MergeByHeap(scratch);
  }
}

void BpeMerges::MergeByScan(Scratch& scratch) const {
  std::vector<int32_t>& ids = scratch.ids;
  std::vector<uint32_t>& ranks = scratch.ranks;  // of the pair that begins at each symbol; the last has none
  ranks.assign(ids.size(), kNoRank);
  for (size_t i = 0; i + 1 < ids.size(); ++i) ranks[i] = Rank(ids[i], ids[i + 1]);
  while (ids.size() > 1) {
    const auto best = std::min_element(ranks.begin(), ranks.end());
    if (*best == kNoRank) return;
    const auto i = best - ranks.begin();
    const auto at = static_cast<size_t>(i);
    ids[at] = merged_[*best];
    ids.erase(ids.begin() + i + 1);
    ranks.erase(best);  // the pair behind moves here and is looked up anew
    ranks[at] = at + 1 < ids.size() ? Rank(ids[at], ids[at + 1]) : kNoRank;
    if (at > 0) ranks[at - 1] = Rank(ids[at - 1], ids[at]);
  }
}

void BpeMerges::MergeByHeap(Scratch& scratch) const {
  std::vector<int32_t>& ids = scratch.ids;
  auto& symbols = scratch.symbols;
  std::vector<uint64_t>& heap = scratch.heap;  // rank << 32 | index, least on top; stale entries are skipped
  const auto count = static_cast<int32_t>(ids.size());
  symbols.resize(ids.size());
  heap.clear();
  for (int32_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(i);
    const bool last = i + 1 == count;
    const uint32_t rank = last ? kNoRank : Rank(ids[at], ids[at + 1]);
    symbols[at] = {ids[at], i - 1, last ? -1 : i + 1, rank};
    if (rank != kNoRank) heap.push_back(static_cast<uint64_t>(rank) << 32 | static_cast<uint32_t>(i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto refresh = [&](int32_t i) {
    auto& symbol = symbols[static_cast<size_t>(i)];
    symbol.rank = symbol.next < 0 ? kNoRank : Rank(symbol.id, symbols[static_cast<size_t>(symbol.next)].id);
    if (symbol.rank == kNoRank) return;
    heap.push_back(static_cast<uint64_t>(symbol.rank) << 32 | static_cast<uint32_t>(i));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const auto i = static_cast<int32_t>(heap.back() & UINT32_MAX);
    const auto rank = static_cast<uint32_t>(heap.back() >> 32);
    heap.pop_back();
    auto& left = symbols[static_cast<size_t>(i)];
    if (left.id < 0 || left.rank != rank) continue;
    auto& right = symbols[static_cast<size_t>(left.next)];
    left.id = merged_[rank];
    left.next = right.next;
    right.id = -1;  // merged away
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].prev = i;
    refresh(i);
    if (left.prev >= 0) refresh(left.prev);
  }
  ids.clear();
  for (int32_t i = count > 0 ? 0 : -1; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
    ids.push_back(symbols[static_cast<size_t>(i)].id);
  }
}

}  // namespace cadre::text
