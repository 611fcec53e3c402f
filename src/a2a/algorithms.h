#pragma once
// The names of exchanges, and which algorithm each of them is.
#include <cstdint>
#include <string_view>

#include "a2a/a2a.h"
#include "a2a/reference.h"
#include "fabric/fabric.h"

namespace cadre::a2a {

enum class Algorithm : uint8_t {
  kAllGatherReduceScatter,
  kNaive,
  kPplx,
  kDeepEpHighThroughput,
  kDeepEpLowLatency,
  kFlashInfer,
  kMori,
};

/// The algorithm that an --all2all-backend name means. Errors: kInvalidArgument for an unknown name,
/// kUnsupported with the reason for one that vLLM knows and this program has not.
Result<Algorithm> AlgorithmOf(std::string_view name);

/// Its own name, the one in counts and logs.
std::string_view NameOf(Algorithm algorithm);
/// In which order the terms of a row are summed.
Tree TreeOf(Algorithm algorithm);

/// Rows that a rank brings to one chunk. allgather_reducescatter and naive take all at once. Of the others,
/// those that sum by rank take as many as keep the buffers of results within 256 MiB a rank; those that sum
/// by k, whose results are K rows for one, also at most 256, as vLLM's VLLM_MOE_DP_CHUNK_SIZE. Over hosts
/// also as many as keep the landing zones within 512 MiB on the busiest rank.
int64_t ChunkRows(const Options& options, const fabric::GroupHosts& hosts, Algorithm algorithm);

/// Chunks that a rank with `num_rows` rows sends; a rank without rows sends one, empty.
constexpr int64_t NumPieces(int64_t num_rows, int64_t chunk_rows) {
  return num_rows <= chunk_rows ? 1 : (num_rows + chunk_rows - 1) / chunk_rows;
}
/// The rows of piece `piece` of `num_rows`; empty past the last.
constexpr RowRange PieceOf(int64_t num_rows, int64_t chunk_rows, int64_t piece) {
  const int64_t begin = piece * chunk_rows < num_rows ? piece * chunk_rows : num_rows;
  return {begin, num_rows - begin < chunk_rows ? num_rows - begin : chunk_rows};
}

/// The most rows that one chunk can bring to a rank: everybody's, times the choices that can fall on it.
int64_t TableRowsPerChunk(const Options& options, int64_t chunk_rows);

}  // namespace cadre::a2a
