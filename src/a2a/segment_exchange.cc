#include "a2a/segment_exchange.h"

#include "fabric/rendezvous.h"
#include "sys/memory.h"

namespace cadre::a2a {

ByteCounts SegmentExchange::bytes() const {
  ByteCounts bytes = bytes_;
  bytes.dispatch_wire += mail_.dispatch_wire();
  bytes.combine_wire += mail_.combine_wire();
  return bytes;
}

std::string SegmentExchange::Describe() const {
  const std::string alias = options_.backend == name() ? "" : Format(" (asked for as {})", options_.backend);
  const std::string chunks =
      chunk_rows() < options_.max_rows ? Format(", taken {} at a time", chunk_rows()) : "";
  const auto buffers = BufferBytes(options_);
  const std::string where =
      mail_.any() ? Format(
                        "{} ranks on {} hosts: shared memory in a host, one message each way a chunk over {} "
                        "between hosts ({})",
                        num_ranks_, segment_->fabric().num_hosts(), options_.rendezvous->hosts().link,
                        IdeaOverHosts())
                  : Format("{} ranks over shared memory", num_ranks_);
  return Format("{}{}: {}; {}{}; up to {} rows a rank{}; {} of buffers a rank", name(), alias, Idea(), where,
                options_.layout.sharded ? ", experts sharded" : "", options_.max_rows, chunks,
                sys::FormatBytes(buffers ? *buffers : 0));
}

}  // namespace cadre::a2a
