#include "text/stop.h"

#include <algorithm>

namespace cadre::text {

// Immutable once built.
class StopMatcher::Automaton {
 public:
  explicit Automaton(const std::vector<std::string>& stops) { Build(stops); }

  uint32_t Next(uint32_t state, unsigned char label) const;
  int32_t StopAt(uint32_t state) const { return states_[state].stop; }
  uint32_t DepthOf(uint32_t state) const { return states_[state].depth; }
  size_t LengthOf(size_t stop) const { return lengths_[stop]; }

 private:
  struct State {
    uint32_t fail = 0;
    uint32_t depth = 0;
    uint32_t first_edge = 0;
    uint32_t num_edges = 0;
    int32_t stop = -1;  // listed first among those that end here
  };
  struct Edge {
    unsigned char label;
    uint32_t target;
  };

  void Build(const std::vector<std::string>& stops);
  void Link(const std::vector<std::vector<Edge>>& children);
  uint32_t Child(uint32_t state, unsigned char label) const;

  std::vector<size_t> lengths_;
  std::vector<State> states_;
  std::vector<Edge> edges_;
};

StopMatcher::StopMatcher(const std::vector<std::string>& stops, bool keep_stop)
    : keep_stop_(keep_stop), automaton_(std::make_shared<const Automaton>(stops)) {}

void StopMatcher::Automaton::Build(const std::vector<std::string>& stops) {
  states_.emplace_back();
  std::vector<std::vector<Edge>> children(1);
  for (size_t i = 0; i < stops.size(); ++i) {
    lengths_.push_back(stops[i].size());
    if (stops[i].empty()) continue;
    uint32_t at = 0;
    for (const char c : stops[i]) {
      const auto label = static_cast<unsigned char>(c);
      const auto known = std::find_if(children[at].begin(), children[at].end(),
                                      [&](const Edge& edge) { return edge.label == label; });
      if (known != children[at].end()) {
        at = known->target;
        continue;
      }
      const auto target = static_cast<uint32_t>(states_.size());
      children[at].push_back({label, target});
      states_.push_back({0, states_[at].depth + 1});
      children.emplace_back();
      at = target;
    }
    if (states_[at].stop < 0) states_[at].stop = static_cast<int32_t>(i);
  }
  Link(children);
}

// Lays the edges side by side, sorted, and finds where each state falls back to, breadth first.
void StopMatcher::Automaton::Link(const std::vector<std::vector<Edge>>& children) {
  for (size_t s = 0; s < children.size(); ++s) {
    states_[s].first_edge = static_cast<uint32_t>(edges_.size());
    states_[s].num_edges = static_cast<uint32_t>(children[s].size());
    edges_.insert(edges_.end(), children[s].begin(), children[s].end());
    std::sort(edges_.end() - static_cast<int64_t>(children[s].size()), edges_.end(),
              [](const Edge& a, const Edge& b) { return a.label < b.label; });
  }
  std::vector<uint32_t> order{0};
  for (size_t i = 0; i < order.size(); ++i) {
    const uint32_t parent = order[i];
    for (uint32_t e = 0; e < states_[parent].num_edges; ++e) {
      const Edge edge = edges_[states_[parent].first_edge + e];
      State& state = states_[edge.target];
      state.fail = parent == 0 ? 0 : Next(states_[parent].fail, edge.label);
      const int32_t shorter = states_[state.fail].stop;
      if (shorter >= 0 && (state.stop < 0 || shorter < state.stop)) state.stop = shorter;
      order.push_back(edge.target);
    }
  }
}

uint32_t StopMatcher::Automaton::Child(uint32_t state, unsigned char label) const {
  const auto begin = edges_.begin() + states_[state].first_edge;
  const auto end = begin + states_[state].num_edges;
  const auto found = std::lower_bound(
      begin, end, label, [](const Edge& edge, unsigned char wanted) { return edge.label < wanted; });
  return found != end && found->label == label ? found->target : 0;
}

uint32_t StopMatcher::Automaton::Next(uint32_t state, unsigned char label) const {
  for (;;) {
    const uint32_t child = Child(state, label);
    if (child != 0 || state == 0) return child;
    state = states_[state].fail;
  }
}

std::string StopMatcher::Push(std::string_view piece, bool may_stop) {
  if (match_) return {};
  for (size_t i = 0; i < piece.size(); ++i) {
    state_ = automaton_->Next(state_, static_cast<unsigned char>(piece[i]));
    if (automaton_->StopAt(state_) < 0 || !may_stop) continue;
    const auto index = static_cast<size_t>(automaton_->StopAt(state_));
    const size_t end = pushed_ + i + 1;
    match_ = Match{index, end - automaton_->LengthOf(index), end};
    held_ += piece.substr(0, i + 1);
    if (!keep_stop_) held_.resize(held_.size() - automaton_->LengthOf(index));
    return std::move(held_);
  }
  pushed_ += piece.size();
  held_ += piece;
  // A longer end than a whole stop string can be held only if no stop was allowed; depth says how long it is.
  std::string out = held_.substr(0, held_.size() - automaton_->DepthOf(state_));
  held_.erase(0, out.size());
  return out;
}

std::string StopMatcher::Flush() {
  return match_ ? std::string() : std::move(held_);
}

}  // namespace cadre::text
