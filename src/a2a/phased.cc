// Two exchanges in one: prefill steps take one, decode steps the other. All ranks choose alike, because the
// caller says the same phase on all. The two share nothing, so a switch needs no wait: each has its own
// segments and rounds, and both ends of an exchange are waits for all ranks.
#include "a2a/a2a.h"
#include "a2a/algorithms.h"

namespace cadre::a2a {
namespace {

class Phased final : public AllToAll {
 public:
  /// `same_bits`: both give a row the same sum.
  Phased(std::unique_ptr<AllToAll> prefill, std::unique_ptr<AllToAll> decode, bool same_bits)
      : prefill_(std::move(prefill)),
        decode_(std::move(decode)),
        current_(prefill_.get()),
        same_bits_(same_bits) {}

  void SetPhase(Phase phase) override { current_ = phase == Phase::kDecode ? decode_.get() : prefill_.get(); }
  void BeginStep(int64_t step, TimePoint deadline) override { current_->BeginStep(step, deadline); }
  int64_t chunk_rows() const override { return current_->chunk_rows(); }
  bool more() const override { return current_->more(); }
  std::byte* Stage(int64_t num_rows) override { return current_->Stage(num_rows); }
  Status Send(const Routing& routing) override { return current_->Send(routing); }
  void Progress() override { current_->Progress(); }
  Result<RowTable> Receive() override { return current_->Receive(); }
  float* StageResults() override { return current_->StageResults(); }
  Status SendResults(const float* expert_rows) override { return current_->SendResults(expert_rows); }
  Status ReceiveResults(float* out, bool accumulate) override {
    return current_->ReceiveResults(out, accumulate);
  }
  ByteCounts bytes() const override {
    ByteCounts both = prefill_->bytes();
    both += decode_->bytes();
    return both;
  }
  const char* name() const override { return current_->name(); }
  std::string Describe() const override {
    return Format("prefill steps: {}; decode steps: {}{}", prefill_->Describe(), decode_->Describe(),
                  same_bits_
                      ? ""
                      : "; the two sum differently, so a token's last bits depend on what else its steps "
                        "compute");
  }
  bool CanariesIntact() const override { return prefill_->CanariesIntact() && decode_->CanariesIntact(); }

 private:
  std::unique_ptr<AllToAll> prefill_, decode_;
  AllToAll* current_;
  bool same_bits_;
};

Result<Options> Named(Options options, const std::string& backend) {
  CADRE_ASSIGN(const Algorithm algorithm, AlgorithmOf(backend));
  options.backend = backend;
  // The other phase's algorithm may send rows as they are.
  options.fp8_dispatch = options.fp8_dispatch && algorithm == Algorithm::kDeepEpLowLatency;
  return options;
}

// Whether one exchange serves both.
Result<bool> Same(const std::string& a, const std::string& b) {
  CADRE_ASSIGN(const Algorithm first, AlgorithmOf(a));
  CADRE_ASSIGN(const Algorithm second, AlgorithmOf(b));
  return first == second;
}

}  // namespace

Result<std::unique_ptr<AllToAll>> CreatePhased(const Options& options, const std::string& prefill_backend,
                                               const std::string& decode_backend) {
  CADRE_ASSIGN(const bool same, Same(prefill_backend, decode_backend));
  if (same || options.layout.num_ranks == 1) {
    Options one = options;
    one.backend = decode_backend;
    return Create(one);
  }
  CADRE_ASSIGN(const Options for_prefill, Named(options, prefill_backend));
  CADRE_ASSIGN(const Options for_decode, Named(options, decode_backend));
  if (options.fp8_dispatch && !for_prefill.fp8_dispatch && !for_decode.fp8_dispatch) {
    return Fail(Code::kInvalidArgument, "rows travel as fp8 only with deepep_low_latency, not with {} or {}",
                prefill_backend, decode_backend);
  }
  CADRE_ASSIGN(auto prefill, Create(for_prefill));
  CADRE_ASSIGN(auto decode, Create(for_decode));
  CADRE_ASSIGN(const Algorithm first, AlgorithmOf(prefill_backend));
  CADRE_ASSIGN(const Algorithm second, AlgorithmOf(decode_backend));
  const bool by_k = TreeOf(first) == Tree::kByK;
  const bool hosts = options.tree_ranks_per_host > 0 && TreeOf(first) != TreeOf(second);
  const bool same_bits = by_k == (TreeOf(second) == Tree::kByK) && !options.fp8_dispatch && !hosts;
  return std::make_unique<Phased>(std::move(prefill), std::move(decode), same_bits);
}

Result<int64_t> PhasedBufferBytes(const Options& options, const std::string& prefill_backend,
                                  const std::string& decode_backend) {
  CADRE_ASSIGN(const bool same, Same(prefill_backend, decode_backend));
  CADRE_ASSIGN(const Options for_prefill, Named(options, prefill_backend));
  CADRE_ASSIGN(const Options for_decode, Named(options, decode_backend));
  CADRE_ASSIGN(const int64_t decode, BufferBytes(for_decode));
  if (same || options.layout.num_ranks == 1) return decode;
  CADRE_ASSIGN(const int64_t prefill, BufferBytes(for_prefill));
  return prefill + decode;
}

}  // namespace cadre::a2a
