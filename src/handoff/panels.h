#pragma once
// Where tokens lie in a pool of blocks, and how they come from one pool into another of a different block
// size.
//
// What is moved is the *panel*: 16 tokens of one head, K [k_dim * 16] and V [16 * v_dim] elements, each
// contiguous and drawn alike in blocks of every size (kernels/attention.h). So a move is two lists of runs of
// bytes, one in each pool, in one order that both sides know:
//
//   for each panel of the tokens, for each head: K's panel, then V's        (V without padding)
//
// Only where tokens begin or end within a panel is it taken apart: a K panel is rows of 64 bytes with 4 bytes
// a token; a V panel has a token's elements in one row (f32), or those of two tokens side by side (bf16).
//
// The tokens' notes (kv/layout.h) travel as one more layer behind the last: a run of bytes for each token,
// and only of the tokens that are wanted.
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "handoff/identity.h"
#include "kv/layout.h"

namespace cadre::handoff {

constexpr int64_t kPanelTokens = 16;

struct Pool {
  kv::Layout layout;
  std::byte* base = nullptr;
  int64_t num_blocks = 0;

  int64_t KPanelBytes() const { return kPanelTokens * layout.k_dim * DTypeBytes(layout.type); }
  int64_t VPanelBytes() const {
    return layout.latent ? 0 : kPanelTokens * layout.v_dim * DTypeBytes(layout.type);
  }
  /// Bytes of one panel of one head on the way.
  int64_t PanelBytes() const { return KPanelBytes() + VPanelBytes(); }
  /// What stands for the notes where layers are counted.
  int32_t notes_layer() const { return layout.num_layers; }
};

using Runs = std::vector<iovec>;

int64_t BytesOf(const Runs& runs);

/// What is moved at once: tokens of one layer. Heads within the rank.
struct Piece {
  int32_t layer = 0;  ///< or notes_layer()
  HeadRange heads;    ///< of notes: not looked at
  int64_t first_token = 0, end_token = 0;

  int64_t first_panel() const { return first_token / kPanelTokens; }
  int64_t end_panel() const { return (end_token + kPanelTokens - 1) / kPanelTokens; }
  /// Bytes of each of its panels, if it has all of the tokens there.
  int64_t PanelBytes(const Pool& pool) const {
    if (layer == pool.notes_layer()) return kPanelTokens * pool.layout.note_bytes;
    return heads.size() * pool.PanelBytes();
  }
  /// Whole panels, also where the tokens are not; of notes the tokens alone.
  int64_t Bytes(const Pool& pool) const {
    if (layer == pool.notes_layer()) return (end_token - first_token) * pool.layout.note_bytes;
    return (end_panel() - first_panel()) * PanelBytes(pool);
  }
};

/// Adds where the piece's panels lie in the pool; neighbours are one run. `blocks` is the sequence's table.
void AppendRuns(const Pool& pool, std::span<const int32_t> blocks, const Piece& piece, Runs& runs);

/// Copies between two lists of the same number of bytes.
void CopyRuns(const Runs& from, const Runs& to);

/// Where a piece is put: whole panels straight into the pool, panels of which only some tokens are wanted
/// beside it, until Finish takes those tokens over.
class Landing {
 public:
  Landing() = default;
  Landing(Landing&&) = default;  // runs point into it, but to memory that does not move
  Landing& operator=(Landing&&) = default;
  Landing(const Pool& pool, std::span<const int32_t> blocks, const Piece& piece);

  const Runs& runs() const { return runs_; }
  /// All bytes are there.
  void Finish();

 private:
  void Stage(int64_t panel);
  void Merge(int64_t panel, const std::byte* staged);

  Pool pool_;
  std::span<const int32_t> blocks_;
  Piece piece_;
  Runs runs_;
  std::vector<int64_t> staged_panels_;
  std::vector<std::vector<std::byte>> staged_;
};

}  // namespace cadre::handoff
