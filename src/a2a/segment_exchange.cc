#include "a2a/segment_exchange.h"

#include "sys/memory.h"

namespace cadre::a2a {

std::string SegmentExchange::Describe() const {
  const std::string alias = options_.backend == name() ? "" : Format(" (asked for as {})", options_.backend);
  const std::string chunks =
      chunk_rows() < options_.max_rows ? Format(", taken {} at a time", chunk_rows()) : "";
  const auto buffers = BufferBytes(options_);
  return Format("{}{}: {}; {} ranks over shared memory{}; up to {} rows a rank{}; {} of buffers a rank",
                name(), alias, Idea(), num_ranks_, options_.layout.sharded ? ", experts sharded" : "",
                options_.max_rows, chunks, sys::FormatBytes(buffers ? *buffers : 0));
}

}  // namespace cadre::a2a
