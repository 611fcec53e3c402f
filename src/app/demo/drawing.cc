#include "app/demo/drawing.h"

#include <algorithm>
#include <string_view>

namespace cadre::app::demo {
namespace {

constexpr int64_t kMostTokens = 8;  // of a rank that are listed
constexpr int kMostArrows = 12;     // pairs of ranks that get an arrow each

// 12345678 -> "12,345,678".
std::string Grouped(int64_t number) {
  const std::string digits = Format("{}", number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string Bytes(int64_t bytes) {
  return Grouped(bytes) + " bytes";
}

const char* Plural(int64_t count) {
  return count == 1 ? "" : "s";
}

class Page {
 public:
  Page(const Plan& plan, const Outcome& outcome) : plan_(plan), outcome_(outcome) {
    home_.resize(static_cast<size_t>(plan.shape.num_experts));
    for (size_t r = 0; r < outcome.ranks.size(); ++r) {
      for (const int32_t e : outcome.ranks[r].held) home_[static_cast<size_t>(e)] = static_cast<int>(r);
    }
  }

  std::string Text() {
    Places();
    Router();
    Dispatch();
    Experts();
    Combine();
    Memory();
    Check();
    return std::move(text_);
  }

 private:
  template <typename... Args>
  void Line(fmt::format_string<Args...> pattern, Args&&... args) {
    text_ += Format(pattern, std::forward<Args>(args)...);
    text_ += '\n';
  }

  // "experts 0 1 2 3", at most sixteen of them.
  static std::string List(const std::vector<int32_t>& experts) {
    std::string text = experts.size() == 1 ? "expert" : "experts";
    for (size_t i = 0; i < experts.size() && i < 16; ++i) text += Format(" {}", experts[i]);
    return experts.size() > 16 ? text + Format(" ... {}", experts.back()) : text;
  }

  void Places() {
    Line("Where the experts live ({} placement)", eplb::PlacementName(plan_.placement));
    for (size_t r = 0; r < outcome_.ranks.size(); ++r) {
      Line("  rank {}: {} of {}: {}", r, outcome_.ranks[r].held.size(), plan_.shape.num_experts,
           List(outcome_.ranks[r].held));
    }
  }

  void Router() {
    Line("\n1. Router: each rank picks {} of {} experts for each of its tokens", plan_.shape.top_k,
         plan_.shape.num_experts);
    Line("   --> the expert is here    ==> it is on another rank    (weight)");
    for (size_t r = 0; r < outcome_.ranks.size(); ++r) {
      const int64_t shown = std::min(kMostTokens, plan_.shape.num_tokens);
      for (int64_t t = 0; t < shown; ++t) Token(static_cast<int>(r), t);
      if (shown < plan_.shape.num_tokens)
        Line("  rank {}  ... and {} more tokens", r, plan_.shape.num_tokens - shown);
    }
  }

  void Token(int rank, int64_t t) {
    std::string line = Format("  rank {}  token {:<3}", rank, t);
    if (const auto& model = plan_.shape.model)
      line += Format(
          " {:<14}",
          Format("'{}'", Excerpt(model->texts[static_cast<size_t>(rank * plan_.shape.num_tokens + t)], 12)));
    const RankReport& report = outcome_.ranks[static_cast<size_t>(rank)];
    for (int32_t k = 0; k < plan_.shape.top_k; ++k) {
      const auto at = static_cast<size_t>(t * plan_.shape.top_k + k);
      const int32_t expert = report.experts[at];
      const int home = home_[static_cast<size_t>(expert)];
      line += Format("  {} expert {:<2} on rank {} ({:.2f})", home == rank ? "-->" : "==>", expert, home,
                     report.weights[at]);
    }
    text_ += line + '\n';
  }

  // Of all ranks: rows or pairs that leave home, and bytes counted.
  int64_t Leaving(int64_t Traffic::*what) const {
    int64_t sum = 0;
    for (size_t from = 0; from < outcome_.traffic.size(); ++from) {
      for (size_t to = 0; to < outcome_.traffic.size(); ++to) {
        if (to != from) sum += outcome_.traffic[from][to].*what;
      }
    }
    return sum;
  }
  int64_t Counted(int64_t a2a::ByteCounts::*what) const {
    int64_t sum = 0;
    for (const RankReport& r : outcome_.ranks) sum += r.bytes.*what;
    return sum;
  }

  // Whether expert rows come home one by one, each with 4 bytes that say where it lies, and not as one sum a
  // rank.
  bool ResultsSingly() const {
    return Counted(&a2a::ByteCounts::combine_physical) == Leaving(&Traffic::pairs) * (RowBytes() + 4);
  }

  int64_t RowBytes() const { return plan_.shape.hidden * 4; }

  void Dispatch() {
    const int64_t used = Leaving(&Traffic::rows), copied = Counted(&a2a::ByteCounts::dispatch_physical);
    Line("\n2. Dispatch: a row ({} numbers, {}) goes once to each rank that has an expert for it",
         plan_.shape.hidden, Bytes(RowBytes()));
    Matrix();
    Arrows(false);
    const int64_t all = plan_.shape.num_tokens * plan_.num_ranks * (plan_.num_ranks - 1);
    if (used < all && copied == all * (RowBytes() + 8 * plan_.shape.top_k))
      Line("  ({} copies every row to every rank; above are the rows that are used)", plan_.backend);
    for (size_t r = 0; r < outcome_.ranks.size(); ++r) {
      const a2a::ByteCounts& b = outcome_.ranks[r].bytes;
      Line("  rank {} read {} of rows and choices from other ranks", r, Bytes(b.dispatch_physical));
    }
  }

  void Matrix() {
    const size_t n = outcome_.ranks.size();
    std::string head = Format("  {:<10}", "from \\ to");
    for (size_t to = 0; to < n; ++to) head += Format("{:>14}", Format("rank {}", to));
    text_ += head + '\n';
    for (size_t from = 0; from < n; ++from) {
      std::string line = Format("  {:<10}", Format("rank {}", from));
      for (size_t to = 0; to < n; ++to) {
        const int64_t rows = outcome_.traffic[from][to].rows;
        const std::string cell = Format("{} row{}", rows, Plural(rows));
        line += Format("{:>14}", from == to ? "(" + cell + ")" : cell);
      }
      text_ += line + '\n';
    }
    Line("  (in brackets: rows that stay where they are)");
  }

  // Rows of tokens go out along the arrows, results come home against them.
  void Arrows(bool back) {
    const bool singly = back && ResultsSingly();
    const int n = plan_.num_ranks;
    if (n * (n - 1) > kMostArrows) return;
    for (int from = 0; from < n; ++from) {
      for (int to = 0; to < n; ++to) {
        const Traffic& there = outcome_.traffic[static_cast<size_t>(from)][static_cast<size_t>(to)];
        if (from == to) continue;
        if (back) {
          const int64_t results = singly ? there.pairs : there.rows;
          Line("  rank {} <=== {:>3} {}{}, {} ==== rank {}", from, results, singly ? "expert row" : "sum",
               Plural(results), Bytes(results * RowBytes()), to);
        } else {
          Line("  rank {} ==== {:>3} row{}, {}, for {} expert row{} ===> rank {}", from, there.rows,
               Plural(there.rows), Bytes(there.rows * RowBytes()), there.pairs, Plural(there.pairs), to);
        }
      }
    }
  }

  void Experts() {
    Line("\n3. Expert computation: each expert takes its rows together, down(silu(gate x) * up x)");
    int32_t most = 1;
    for (const RankReport& r : outcome_.ranks) {
      for (const int32_t rows : r.slot_rows) most = std::max(most, rows);
    }
    for (size_t r = 0; r < outcome_.ranks.size(); ++r) {
      const RankReport& report = outcome_.ranks[r];
      for (size_t s = 0; s < report.held.size(); ++s) {
        const int32_t rows = report.slot_rows[s];
        // A bar of at most 40, and of at least one where there is a row.
        const int32_t bar = most <= 40 ? rows : (rows * 40 + most - 1) / most;
        Line("  rank {}  expert {:<3} {:>4} row{} {}", r, report.held[s], rows, rows == 1 ? " " : "s",
             std::string(static_cast<size_t>(bar), '#'));
      }
    }
  }

  void Combine() {
    Line("\n4. Combine: {}", ResultsSingly()
                                 ? "expert rows come home, where they are weighted and added up"
                                 : "each rank adds up its weighted results for a token; the sums come home");
    Arrows(true);
    for (size_t r = 0; r < outcome_.ranks.size(); ++r) {
      Line("  rank {} read {} of results from other ranks", r,
           Bytes(outcome_.ranks[r].bytes.combine_physical));
    }
    if (plan_.num_ranks > 1) Line("  every count of bytes equals the formula of {}", plan_.backend);
  }

  void Memory() {
    const Shape& s = plan_.shape;
    Line("\nMemory for experts: {} parameters in all, {} in float32",
         Grouped(s.ExpertBytes() / 4 * s.num_experts), sys::FormatBytes(outcome_.all_expert_bytes));
    for (size_t r = 0; r < outcome_.ranks.size(); ++r) {
      const RankReport& report = outcome_.ranks[r];
      const double share =
          static_cast<double>(report.expert_bytes) / static_cast<double>(outcome_.all_expert_bytes);
      Line("  rank {}: {} of {} experts, {}, {:.1f} % of what one process needs", r, report.held.size(),
           s.num_experts, sys::FormatBytes(report.expert_bytes), 100 * share);
    }
  }

  void Check() {
    const int64_t count = plan_.shape.num_tokens * plan_.shape.hidden * plan_.num_ranks;
    Line("\nCheck against one process with all {} experts: {} tokens, {} numbers", plan_.shape.num_experts,
         plan_.shape.num_tokens * plan_.num_ranks, count);
    if (outcome_.num_different == 0) {
      Line("  largest difference 0: the same bits");
    } else {
      Line(
          "  largest difference {:.3g} (outputs up to {:.3g}); {} numbers differ in their last bits, because "
          "{} "
          "adds a token's {} results in another order; at most {:.0f} % of the bound for {} f32 terms",
          outcome_.largest_difference, outcome_.largest_output, outcome_.num_different, plan_.backend,
          plan_.shape.top_k, 100 * outcome_.worst_share, plan_.shape.top_k);
    }
    Line("  OK");
  }

  const Plan& plan_;
  const Outcome& outcome_;
  std::vector<int> home_;  // of each expert
  std::string text_;
};

template <typename T>
Json ListOf(const std::vector<T>& numbers) {
  Json list = Json::Array();
  for (const T number : numbers) list.Push(Json(number));
  return list;
}

}  // namespace

std::string Draw(const Plan& plan, const Outcome& outcome) {
  return Page(plan, outcome).Text();
}

Json ToJson(const Plan& plan, const Outcome& outcome) {
  Json ranks = Json::Array();
  for (size_t r = 0; r < outcome.ranks.size(); ++r) {
    const RankReport& report = outcome.ranks[r];
    Json rows = Json::Array(), pairs = Json::Array();
    for (const Traffic& to : outcome.traffic[r]) rows.Push(to.rows), pairs.Push(to.pairs);
    ranks.Push(
        Json::Object{{"held", ListOf(report.held)},
                     {"expert_bytes", report.expert_bytes},
                     {"experts", ListOf(report.experts)},
                     {"weights", ListOf(std::vector<double>(report.weights.begin(), report.weights.end()))},
                     {"slot_rows", ListOf(report.slot_rows)},
                     {"rows_to", std::move(rows)},
                     {"pairs_to", std::move(pairs)},
                     {"dispatch_bytes", report.bytes.dispatch_physical},
                     {"combine_bytes", report.bytes.combine_physical},
                     {"dispatch_bytes_formula", report.bytes.dispatch_algorithmic},
                     {"combine_bytes_formula", report.bytes.combine_algorithmic},
                     {"exchange", report.exchange},
                     {"out", ListOf(std::vector<double>(report.out.begin(), report.out.end()))}});
  }
  return Json::Object{{"backend", plan.backend},
                      {"all_expert_bytes", outcome.all_expert_bytes},
                      {"num_different", outcome.num_different},
                      {"largest_difference", outcome.largest_difference},
                      {"ranks", std::move(ranks)}};
}

}  // namespace cadre::app::demo
