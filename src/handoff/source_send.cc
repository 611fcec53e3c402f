// What a source sends, and when: a step of each stream at a time, so that all of them go on.
#include <algorithm>
#include <set>
#include <utility>

#include "handoff/source.h"

namespace cadre::handoff {
namespace {

constexpr int64_t kPieceBytes = 1 << 20;
constexpr int64_t kQueuedBytes = 2 << 20;  // per caller, not yet in the socket

}  // namespace

int64_t Source::SendableTokens(const Held& held, const Serving& serving, int32_t layer) const {
  const auto room = static_cast<int64_t>(held.blocks.size()) * options_.pool.layout.block_size;
  const int64_t written = held.progress->written[static_cast<size_t>(layer)].load();
  const int64_t tokens = std::min(written, room);
  // Whole panels until the end: a panel that grows would go twice.
  return tokens >= serving.want.end_token ? serving.want.end_token : tokens / kPanelTokens * kPanelTokens;
}

// Tells a target that reads from shared memory what there is.
void Source::PumpNear(Held& held, Serving& serving) {
  fabric::WireWriter ready;
  ready.Put(serving.want.stream);
  bool any = false;
  for (int32_t layer = 0; layer < std::ssize(serving.sent); ++layer) {
    int64_t& sent = serving.sent[static_cast<size_t>(layer)];
    const int64_t tokens = SendableTokens(held, serving, layer);
    if (tokens <= sent) continue;
    sent = tokens;
    ready.Put(layer).Put(tokens);
    any = true;
  }
  if (!any) return;
  if (serving.blocks_told < held.blocks.size()) {
    fabric::WireWriter table;
    table.Put(serving.want.stream).Put(static_cast<uint32_t>(serving.blocks_told));
    PutTable(table, std::span(held.blocks).subspan(serving.blocks_told));
    serving.caller->stream.Send(kTable, table.text());
    serving.blocks_told = held.blocks.size();
  }
  serving.caller->stream.Send(kReady, ready.text());
}

// Sends one piece. True if there may be more.
bool Source::PumpData(Held& held, Serving& serving) {
  const Pool& pool = options_.pool;
  const auto num_layers = static_cast<int32_t>(serving.sent.size());
  for (int32_t i = 0; i < num_layers; ++i) {
    const int32_t layer = (serving.layer + i) % num_layers;
    int64_t& sent = serving.sent[static_cast<size_t>(layer)];
    const int64_t tokens = SendableTokens(held, serving, layer);
    if (tokens <= sent) continue;
    serving.layer = layer;
    Piece piece = {layer, serving.want.heads, sent, 0};
    const int64_t panels = std::max<int64_t>(kPieceBytes / piece.PanelBytes(pool), 1);
    piece.end_token = std::min(tokens, (piece.first_panel() + panels) * kPanelTokens);
    Runs runs;
    AppendRuns(pool, held.blocks, piece, runs);
    bytes_sent_ += piece.Bytes(pool);
    sent = piece.end_token;
    serving.caller->stream.SendData({serving.want.stream, layer, piece.first_token, piece.end_token},
                                    std::move(runs));
    return true;
  }
  return false;
}

// The targets that are sent to share the limit evenly. Each has a connection of its own, so what one does not
// use is not another's: never more than the limit, sometimes less.
void Source::SharePace() {
  if (options_.max_bytes_per_s <= 0 || !std::exchange(repace_, false)) return;
  std::set<Caller*> callers;
  for (const auto& [id, held] : held_) {
    for (const Serving& serving : held.servings) {
      if (serving.want.kind == WantKind::kData && serving.want.as_data) callers.insert(serving.caller);
    }
  }
  for (Caller* caller : callers)
    caller->stream.Pace(options_.max_bytes_per_s / static_cast<double>(callers.size()));
}

bool Source::Pump() {
  bool more = false;
  SharePace();
  for (auto& [id, held] : held_) {
    for (Serving& serving : held.servings) {
      if (serving.want.kind != WantKind::kData || serving.caller->stream.broken()) continue;
      if (!serving.want.as_data) {
        PumpNear(held, serving);
      } else if (serving.caller->stream.num_unsent() < kQueuedBytes) {
        more |= PumpData(held, serving);
      }
    }
  }
  return more;
}

}  // namespace cadre::handoff
