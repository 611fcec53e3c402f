#pragma once
// Whether two ranks can exchange keys and values at all, and which heads a rank has.
#include "fabric/wire.h"
#include "handoff/agent.h"

namespace cadre::handoff {

/// KV heads, numbered over the whole model or within one rank, as said where it is used.
struct HeadRange {
  int32_t begin = 0, end = 0;
  int32_t size() const { return end - begin; }
  friend bool operator==(HeadRange, HeadRange) = default;
};

/// The model's KV heads that a tp rank holds: as many on each; with more ranks than heads, each head on
/// tp_size / num_kv_heads neighbours. MLA: one latent row, on all ranks.
HeadRange HeadsOf(const Identity& identity, int32_t tp_rank);

/// Whether an identity is one at all: what comes from a socket may be anything.
Status CheckIdentity(const Identity& identity);

/// Fine if keys and values of `theirs` mean the same here. The error names the field and both values. Of
/// the weights' generation says nothing: it is the request's.
Status CheckCompatible(const Identity& ours, const Identity& theirs);

/// Whether a target gets all that it keeps of a token beside keys and values. One that keeps nothing takes
/// from any source.
Status CheckNotes(const Identity& source, const Identity& target);

void PutIdentity(fabric::WireWriter& out, const Identity& identity);
Identity GetIdentity(fabric::WireReader& in);

/// One source rank's share of what a target rank needs: heads numbered within each of the two.
struct Slice {
  int32_t source_rank = 0;
  HeadRange source_heads, target_heads;
  friend bool operator==(const Slice&, const Slice&) = default;
};

/// Which heads `target` fetches from which ranks of a source of `source_tp_size`. Among ranks that hold the
/// same head each target rank takes another one, so that all of them send.
std::vector<Slice> SlicesOf(const Identity& target, int32_t source_tp_size);

}  // namespace cadre::handoff
