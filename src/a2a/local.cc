#include "a2a/local.h"

#include "a2a/row_sum.h"
#include "a2a/row_table.h"
#include "base/check.h"
#include "kernels/elementwise.h"
#include "sys/memory.h"

namespace cadre::a2a {
namespace {

class Local final : public AllToAll {
 public:
  Local(const Options& options, sys::Region staged)
      : options_(options),
        staged_(std::move(staged)),
        builder_(options.top_k, options.hidden * DTypeBytes(options.act_type), 0, options.layout.num_slots,
                 options.layout.num_slots) {}

  void BeginStep(int64_t, TimePoint) override {}

  int64_t chunk_rows() const override { return options_.max_rows; }
  std::byte* Stage(int64_t num_rows) override {
    CADRE_CHECK(num_rows >= 0 && num_rows <= options_.max_rows);
    num_rows_ = num_rows;
    return staged_.data();
  }

  Status Send(const Routing& routing) override {
    CADRE_CHECK(routing.num_rows == num_rows_);
    source_ = {staged_.data(), routing.slots, routing.weights, routing.num_rows};
    return {};
  }

  Result<RowTable> Receive() override {
    CADRE_TRY(builder_.Build({&source_, 1}));
    return builder_.table();
  }

  Status SendResults(const float* expert_rows) override {
    expert_rows_ = expert_rows;
    return {};
  }

  Status ReceiveResults(float* out, bool accumulate) override {
    const int64_t width = options_.hidden;
    const kernels::Device this_thread{.isa = options_.device.isa};
    ForRows(options_.device, num_rows_, width * 4 * (options_.top_k + 1), [&](int64_t t) {
      const std::span<const int32_t> places = builder_.PlacesOf(0, t);
      kernels::CombineRows(this_thread, {.num_rows = 1,
                                         .width = width,
                                         .top_k = static_cast<int32_t>(places.size()),
                                         .expert_rows = expert_rows_,
                                         .index = places.data(),
                                         .out = out + t * width,
                                         .out_stride = width,
                                         .accumulate = accumulate});
    });
    return {};
  }

  ByteCounts bytes() const override { return {}; }
  const char* name() const override { return "local"; }
  std::string Describe() const override {
    return Format("one rank: no exchange ({} was asked for), up to {} rows, {} of buffers", options_.backend,
                  options_.max_rows, sys::FormatBytes(static_cast<int64_t>(staged_.bytes())));
  }

 private:
  Options options_;
  sys::Region staged_;
  RowTableBuilder builder_;
  Source source_;
  const float* expert_rows_ = nullptr;
  int64_t num_rows_ = 0;
};

}  // namespace

Result<std::unique_ptr<AllToAll>> CreateLocal(const Options& options) {
  const int64_t bytes = options.max_rows * options.hidden * DTypeBytes(options.act_type);
  CADRE_ASSIGN(sys::Region staged,
               sys::AllocateRegion(static_cast<size_t>(bytes), {.pool = options.device.pool}));
  return std::make_unique<Local>(options, std::move(staged));
}

}  // namespace cadre::a2a
