#include "a2a/row_table.h"

#include <algorithm>

namespace cadre::a2a {

RowTableBuilder::RowTableBuilder(int32_t top_k, int64_t row_bytes, int32_t first_slot, int32_t num_slots,
                                 int32_t total_slots)
    : top_k_(top_k),
      row_bytes_(row_bytes),
      first_slot_(first_slot),
      num_slots_(num_slots),
      total_slots_(total_slots),
      offsets_(static_cast<size_t>(num_slots) + 1),
      cursor_(offsets_.size()) {}

// Calls choice(i, local slot) for every local choice i of the source's row t, checking what a peer wrote; how
// many there were, or -1 if something is wrong (WhatIsWrong says what).
template <typename Fn>
int RowTableBuilder::ForLocalChoices(const Source& source, int64_t t, const Fn& choice) const {
  if (t < 0 || t >= source.num_rows) return -1;
  int num_local = 0;
  for (int64_t i = t * top_k_; i < (t + 1) * top_k_; ++i) {
    const int32_t slot = source.slots[i];
    if (slot >= total_slots_) return -1;
    const int32_t local = slot - first_slot_;
    if (slot < 0 || local < 0 || local >= num_slots_) continue;
    choice(i, static_cast<size_t>(local));
    ++num_local;
  }
  return source.listed && num_local == 0 ? -1 : num_local;
}

Status RowTableBuilder::WhatIsWrong(size_t source_idx, const Source& source, int64_t t) const {
  if (t < 0 || t >= source.num_rows) {
    return Fail(Code::kDataLoss, "rank {} of the group sent row {} of {}", source_idx, t, source.num_rows);
  }
  for (int64_t i = t * top_k_; i < (t + 1) * top_k_; ++i) {
    if (source.slots[i] >= total_slots_) {
      return Fail(Code::kDataLoss, "rank {} of the group sent a row to slot {}; there are {} slots",
                  source_idx, source.slots[i], total_slots_);
    }
  }
  return Fail(Code::kDataLoss, "rank {} of the group sent row {}, which has no choice here", source_idx, t);
}

Status RowTableBuilder::Count(std::span<const Source> sources) {
  std::fill(offsets_.begin(), offsets_.end(), 0);
  for (size_t s = 0; s < sources.size(); ++s) {
    for (int64_t e = 0; e < sources[s].num_entries(); ++e) {
      const int64_t t = sources[s].Row(e);
      if (ForLocalChoices(sources[s], t, [&](int64_t, size_t local) { ++offsets_[local + 1]; }) < 0)
        return WhatIsWrong(s, sources[s], t);
    }
  }
  for (size_t s = 1; s < offsets_.size(); ++s) offsets_[s] += offsets_[s - 1];
  return {};
}

Status RowTableBuilder::Build(std::span<const Source> sources) {
  CADRE_TRY(Count(sources));
  return Fill(sources);
}

Status RowTableBuilder::Build(std::span<const Source> sources, std::span<const int32_t> offsets) {
  std::ranges::copy(offsets, offsets_.begin());
  return Fill(sources);
}

void RowTableBuilder::MakeRoom(std::span<const Source> sources) {
  const auto num_places = static_cast<size_t>(offsets_.back());
  if (rows_.size() < num_places) {
    rows_.resize(num_places);
    weights_.resize(num_places);
    places_.resize(num_places);
  }
  source_begin_.assign(1, 0);
  for (const Source& source : sources) source_begin_.push_back(source_begin_.back() + source.num_entries());
  const auto num_entries = static_cast<size_t>(source_begin_.back());
  if (place_begin_.size() < num_entries + 1) place_begin_.resize(num_entries + 1);
  begins_.resize(sources.size() * static_cast<size_t>(num_slots_));
}

Status RowTableBuilder::Fill(std::span<const Source> sources) {
  MakeRoom(sources);
  std::copy(offsets_.begin(), offsets_.end(), cursor_.begin());
  touched_.clear();
  touched_begin_.assign(1, 0);
  size_t entry_idx = 0, place_idx = 0;
  bool overrun = false;
  for (size_t s = 0; s < sources.size(); ++s) {
    const Source& source = sources[s];
    std::copy_n(cursor_.begin(), num_slots_, begins_.begin() + static_cast<int64_t>(s) * num_slots_);
    for (int64_t e = 0; e < source.num_entries(); ++e) {
      const int64_t t = source.Row(e);
      place_begin_[entry_idx++] = static_cast<int32_t>(place_idx);
      const int num_local = ForLocalChoices(source, t, [&](int64_t i, size_t local) {
        if (cursor_[local] >= offsets_[local + 1]) {
          overrun = true;
          return;
        }
        const int32_t place = cursor_[local]++;
        rows_[static_cast<size_t>(place)] = source.rows + t * row_bytes_;
        weights_[static_cast<size_t>(place)] = source.weights == nullptr ? 1.0f : source.weights[i];
        places_[place_idx++] = place;
      });
      if (num_local < 0) return WhatIsWrong(s, source, t);
      if (num_local > 0) touched_.push_back(static_cast<int32_t>(t));
    }
    touched_begin_.push_back(touched_.size());
  }
  place_begin_[entry_idx] = static_cast<int32_t>(place_idx);
  if (overrun || place_idx != static_cast<size_t>(offsets_.back())) {
    return Fail(Code::kDataLoss, "{} rows were announced to this rank, {}{} came", offsets_.back(),
                overrun ? "more than " : "", place_idx);
  }
  return {};
}

RowTable RowTableBuilder::table() const {
  return {
      .num_rows = offsets_.back(), .offsets = offsets_, .rows = rows_.data(), .row_weights = weights_.data()};
}

std::span<const int32_t> RowTableBuilder::PlacesOf(int source, int64_t row) const {
  const auto r = static_cast<size_t>(source_begin_[static_cast<size_t>(source)] + row);
  return std::span(places_).subspan(static_cast<size_t>(place_begin_[r]),
                                    static_cast<size_t>(place_begin_[r + 1] - place_begin_[r]));
}

std::span<const int32_t> RowTableBuilder::TouchedRows(int source) const {
  const auto s = static_cast<size_t>(source);
  return std::span(touched_).subspan(touched_begin_[s], touched_begin_[s + 1] - touched_begin_[s]);
}

}  // namespace cadre::a2a
