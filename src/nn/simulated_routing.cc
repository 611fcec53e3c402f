#include "nn/simulated_routing.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "base/random.h"

namespace cadre::nn {
namespace {

constexpr int64_t kDraws = 4096;
constexpr uint64_t kSeed = 0xCAD2E;

struct Strategy {
  double exponent = 0;  // 0: uniform
  int64_t drift = 0;
};

template <typename T>
bool ReadNumber(std::string_view text, T least, T most, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= least && value <= most;
}

Result<Strategy> Parse(std::string_view text) {
  Strategy strategy;
  if (text == "uniform_random") return strategy;
  const auto unknown = [&] {
    return Fail(Code::kInvalidArgument,
                "routing is simulated by 'uniform_random' or 'zipf[:EXPONENT[:DRIFT_STEPS]]' (exponent 0 to "
                "16), such as zipf:1.0:2000; got '{}'",
                text);
  };
  if (!text.starts_with("zipf")) return unknown();
  text.remove_prefix(4);
  strategy.exponent = 1;
  if (text.empty()) return strategy;
  if (text.front() != ':') return unknown();
  text.remove_prefix(1);
  const size_t colon = text.find(':');
  if (!ReadNumber(text.substr(0, colon), 0.0, 16.0, strategy.exponent)) return unknown();
  if (colon != text.npos && !ReadNumber<int64_t>(text.substr(colon + 1), 0, int64_t{1} << 31, strategy.drift))
    return unknown();
  return strategy;
}

// splitmix64's finalizer.
uint64_t Mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9u;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

}  // namespace

Status SimulatedRouting::Check(std::string_view strategy) {
  CADRE_TRY(Parse(strategy));
  return {};
}

// Gumbel top-k: the k largest of log weight + Gumbel noise are a draw without replacement.
Result<SimulatedRouting> SimulatedRouting::Create(std::string_view text, int32_t num_experts, int32_t top_k) {
  CADRE_ASSIGN(const Strategy strategy, Parse(text));
  SimulatedRouting made;
  made.num_experts_ = num_experts;
  made.top_k_ = top_k;
  made.drift_ = strategy.drift;
  std::vector<double> score(static_cast<size_t>(num_experts));
  std::vector<int32_t> order(score.size());
  for (int64_t draw = 0; draw < kDraws; ++draw) {
    for (size_t e = 0; e < score.size(); ++e) {
      const double u = 1.0 - UniformAt(kSeed, static_cast<uint64_t>(draw), e);  // (0, 1]
      score[e] = -strategy.exponent * std::log1p(static_cast<double>(e)) - std::log(-std::log(u) + 1e-300);
    }
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + top_k, order.end(), [&](int32_t a, int32_t b) {
      return score[static_cast<size_t>(a)] > score[static_cast<size_t>(b)];
    });
    made.draws_.insert(made.draws_.end(), order.begin(), order.begin() + top_k);
  }
  return made;
}

void SimulatedRouting::Choose(int64_t step, int32_t layer, int64_t num_rows, const int32_t* token_ids,
                              const int32_t* positions, int32_t* experts, float* weights) const {
  const int64_t shift = drift_ == 0 ? 0 : step / drift_ * ((num_experts_ + 2) / 3) % num_experts_;
  for (int64_t row = 0; row < num_rows; ++row) {
    const uint64_t key = static_cast<uint64_t>(static_cast<uint32_t>(token_ids[row])) << 32 |
                         static_cast<uint32_t>(positions[row]);
    const uint64_t draw = Mix(Mix(key) + static_cast<uint64_t>(layer)) % kDraws;
    const int32_t* const from = draws_.data() + static_cast<int64_t>(draw) * top_k_;
    for (int32_t k = 0; k < top_k_; ++k) {
      experts[row * top_k_ + k] = static_cast<int32_t>((from[k] + shift) % num_experts_);
      weights[row * top_k_ + k] = 1.0f / static_cast<float>(top_k_);
    }
  }
}

}  // namespace cadre::nn
