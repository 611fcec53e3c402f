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

Status RowTableBuilder::Build(std::span<const Source> sources) {
  std::fill(offsets_.begin(), offsets_.end(), 0);
  source_begin_.assign(1, 0);
  for (size_t s = 0; s < sources.size(); ++s) {
    const Source& source = sources[s];
    for (int64_t i = 0; i < source.num_rows * top_k_; ++i) {
      const int32_t slot = source.slots[i];
      if (slot >= total_slots_) {
        return Fail(Code::kDataLoss, "rank {} of the group sent a row to slot {}; there are {} slots", s,
                    slot, total_slots_);
      }
      const int32_t local = slot - first_slot_;
      if (slot >= 0 && local >= 0 && local < num_slots_) ++offsets_[static_cast<size_t>(local) + 1];
    }
    source_begin_.push_back(source_begin_.back() + source.num_rows);
  }
  for (size_t s = 1; s < offsets_.size(); ++s) offsets_[s] += offsets_[s - 1];
  const auto num_places = static_cast<size_t>(offsets_.back());
  if (rows_.size() < num_places) {
    rows_.resize(num_places);
    weights_.resize(num_places);
    places_.resize(num_places);
  }
  const auto num_source_rows = static_cast<size_t>(source_begin_.back());
  if (place_begin_.size() < num_source_rows + 1) place_begin_.resize(num_source_rows + 1);

  std::copy(offsets_.begin(), offsets_.end(), cursor_.begin());
  touched_.clear();
  touched_begin_.assign(1, 0);
  size_t row_idx = 0, place_idx = 0;
  for (size_t s = 0; s < sources.size(); ++s) {
    const Source& source = sources[s];
    for (int64_t t = 0; t < source.num_rows; ++t) {
      place_begin_[row_idx++] = static_cast<int32_t>(place_idx);
      const size_t before = place_idx;
      for (int64_t i = t * top_k_; i < (t + 1) * top_k_; ++i) {
        const int32_t local = source.slots[i] - first_slot_;
        if (source.slots[i] < 0 || local < 0 || local >= num_slots_) continue;
        const int32_t place = cursor_[static_cast<size_t>(local)]++;
        rows_[static_cast<size_t>(place)] = source.rows + t * row_bytes_;
        weights_[static_cast<size_t>(place)] = source.weights[i];
        places_[place_idx++] = place;
      }
      if (place_idx > before) touched_.push_back(static_cast<int32_t>(t));
    }
    touched_begin_.push_back(touched_.size());
  }
  place_begin_[row_idx] = static_cast<int32_t>(place_idx);
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
