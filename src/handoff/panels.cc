#include "handoff/panels.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace cadre::handoff {
namespace {

struct PanelPlace {
  std::byte *k, *v;
};

PanelPlace PlaceOf(const Pool& pool, std::span<const int32_t> blocks, int32_t layer, int32_t head,
                   int64_t panel) {
  const kv::Layout& l = pool.layout;
  const int64_t panels = l.block_size / kPanelTokens;
  const int64_t block = blocks[static_cast<size_t>(panel / panels)], within = panel % panels;
  const int64_t head_bytes = l.BlockBytes() / l.num_kv_heads;
  std::byte* at =
      pool.base + l.LayerOffset(layer, pool.num_blocks) + block * l.BlockBytes() + head * head_bytes;
  // A K panel is whole cache lines (k_dim is even), so K's part of a head has no padding.
  return {at + within * pool.KPanelBytes(), at + panels * pool.KPanelBytes() + within * pool.VPanelBytes()};
}

void Append(Runs& runs, std::byte* at, int64_t bytes) {
  if (bytes == 0) return;
  if (!runs.empty() && static_cast<std::byte*>(runs.back().iov_base) + runs.back().iov_len == at) {
    runs.back().iov_len += static_cast<size_t>(bytes);
  } else {
    runs.push_back({at, static_cast<size_t>(bytes)});
  }
}

void AppendNotes(const Pool& pool, std::span<const int32_t> blocks, const Piece& piece, Runs& runs) {
  const kv::Layout& l = pool.layout;
  std::byte* const notes = pool.base + l.PoolBytes(pool.num_blocks);
  for (int64_t token = piece.first_token; token < piece.end_token;) {
    const int64_t block = token / l.block_size, within = token % l.block_size;
    const int64_t count = std::min(l.block_size - within, piece.end_token - token);
    const int64_t at = blocks[static_cast<size_t>(block)] * int64_t{l.block_size} + within;
    Append(runs, notes + at * l.note_bytes, count * l.note_bytes);
    token += count;
  }
}

}  // namespace

int64_t BytesOf(const Runs& runs) {
  int64_t bytes = 0;
  for (const iovec& run : runs) bytes += static_cast<int64_t>(run.iov_len);
  return bytes;
}

void AppendRuns(const Pool& pool, std::span<const int32_t> blocks, const Piece& piece, Runs& runs) {
  if (piece.layer == pool.notes_layer()) return AppendNotes(pool, blocks, piece, runs);
  for (int64_t panel = piece.first_panel(); panel < piece.end_panel(); ++panel) {
    for (int32_t head = piece.heads.begin; head < piece.heads.end; ++head) {
      const PanelPlace at = PlaceOf(pool, blocks, piece.layer, head, panel);
      Append(runs, at.k, pool.KPanelBytes());
      Append(runs, at.v, pool.VPanelBytes());
    }
  }
}

void CopyRuns(const Runs& from, const Runs& to) {
  size_t i = 0, j = 0, at_i = 0, at_j = 0;
  while (i < from.size() && j < to.size()) {
    const size_t bytes = std::min(from[i].iov_len - at_i, to[j].iov_len - at_j);
    std::memcpy(static_cast<std::byte*>(to[j].iov_base) + at_j,
                static_cast<const std::byte*>(from[i].iov_base) + at_i, bytes);
    if ((at_i += bytes) == from[i].iov_len) ++i, at_i = 0;
    if ((at_j += bytes) == to[j].iov_len) ++j, at_j = 0;
  }
  CADRE_CHECK(i == from.size() && j == to.size());
}

Landing::Landing(const Pool& pool, std::span<const int32_t> blocks, const Piece& piece)
    : pool_(pool), blocks_(blocks), piece_(piece) {
  if (piece_.layer == pool_.notes_layer()) {
    AppendNotes(pool_, blocks_, piece_, runs_);
    return;
  }
  int64_t first = piece.first_panel(), end = piece.end_panel();
  const auto panels = [&](int64_t from, int64_t to) {
    AppendRuns(pool_, blocks_, {piece_.layer, piece_.heads, from * kPanelTokens, to * kPanelTokens}, runs_);
  };
  if (first < end && piece.first_token % kPanelTokens != 0) Stage(first++);
  const bool ragged = first < end && piece.end_token % kPanelTokens != 0;
  panels(first, ragged ? end - 1 : end);
  if (ragged) Stage(end - 1);
}

void Landing::Stage(int64_t panel) {
  const auto bytes = static_cast<size_t>(piece_.heads.size() * pool_.PanelBytes());
  staged_panels_.push_back(panel);
  runs_.push_back({staged_.emplace_back(bytes).data(), bytes});
}

void Landing::Finish() {
  for (size_t i = 0; i < staged_.size(); ++i) Merge(staged_panels_[i], staged_[i].data());
  staged_panels_.clear();
}

void Landing::Merge(int64_t panel, const std::byte* staged) {
  const int64_t begin = std::max(piece_.first_token - panel * kPanelTokens, int64_t{0});
  const int64_t end = std::min(piece_.end_token - panel * kPanelTokens, kPanelTokens);
  const kv::Layout& l = pool_.layout;
  for (int32_t head = piece_.heads.begin; head < piece_.heads.end; ++head) {
    const PanelPlace to = PlaceOf(pool_, blocks_, piece_.layer, head, panel);
    for (int64_t row = 0; row < pool_.KPanelBytes(); row += 64) {
      std::memcpy(to.k + row + begin * 4, staged + row + begin * 4, static_cast<size_t>(end - begin) * 4);
    }
    staged += pool_.KPanelBytes();
    const int64_t v_dim = l.latent ? 0 : l.v_dim;
    for (int64_t token = begin; token < end; ++token) {
      if (l.type == DType::kF32) {
        const int64_t at = token * v_dim * 4;
        std::memcpy(to.v + at, staged + at, static_cast<size_t>(v_dim) * 4);
        continue;
      }
      for (int64_t c = 0; c < v_dim; ++c) {
        const int64_t at = ((token / 2 * v_dim + c) * 2 + token % 2) * 2;
        std::memcpy(to.v + at, staged + at, 2);
      }
    }
    staged += pool_.VPanelBytes();
  }
}

}  // namespace cadre::handoff
