#include "engine/batch.h"

#include <algorithm>
#include <cstring>

#include "kv/layout.h"

namespace cadre::engine {

Batch::Batch(std::span<const ScheduledSequence> plan, int32_t block_size) {
  for (const ScheduledSequence& scheduled : plan) {
    const Sequence& sequence = *scheduled.sequence;
    const auto first_row = static_cast<int32_t>(token_ids_.size());
    const int64_t begin = sequence.num_computed, end = begin + scheduled.num_tokens;
    if (sequence.hold_open) {
      sources_.push_back({.sequence = static_cast<int32_t>(sequences_.size()),
                          .first = !sequence.hold_told,
                          .id = sequence.hold_id});
    }
    AddSequence(std::span(sequence.tokens)
                    .subspan(static_cast<size_t>(begin), static_cast<size_t>(scheduled.num_tokens)),
                begin, sequence.block_table, block_size, sequence.adapter);
    for (int64_t position = begin; position < end; ++position) {
      const bool samples = position == sequence.num_tokens() - 1;
      const bool scores = sequence.wants_prompt_logprobs() && position + 1 < sequence.num_prompt();
      if (samples || scores) logit_rows_.push_back(first_row + static_cast<int32_t>(position - begin));
    }
  }
  PointIntoTables();
}

void Batch::AddSequence(std::span<const int32_t> tokens, int64_t first_position,
                        std::span<const int32_t> block_table, int32_t block_size, int32_t adapter) {
  const auto count = static_cast<int64_t>(tokens.size());
  sequences_.push_back({.q_begin = static_cast<int32_t>(token_ids_.size()),
                        .q_len = static_cast<int32_t>(count),
                        .kv_len = static_cast<int32_t>(first_position + count)});
  block_table_begin_.push_back(static_cast<int32_t>(block_tables_.size()));
  adapter_slots_.push_back(adapter);
  if (adapter >= 0) {
    auto use = std::ranges::find(adapters_, adapter, &AdapterUse::slot);
    if (use == adapters_.end()) use = adapters_.insert(use, {.slot = adapter, .rows = {}});
    for (int64_t i = 0; i < count; ++i)
      use->rows.push_back(sequences_.back().q_begin + static_cast<int32_t>(i));
  }
  token_ids_.insert(token_ids_.end(), tokens.begin(), tokens.end());
  for (int64_t position = first_position; position < first_position + count; ++position) {
    positions_.push_back(static_cast<int32_t>(position));
    kv_slots_.push_back(int64_t{block_table[static_cast<size_t>(position / block_size)]} * block_size +
                        position % block_size);
  }
  const int64_t num_blocks = kv::BlocksFor(first_position + count, block_size);
  block_tables_.insert(block_tables_.end(), block_table.begin(), block_table.begin() + num_blocks);
}

std::span<const int32_t> Batch::BlocksOf(const Source& source) const {
  const auto i = static_cast<size_t>(source.sequence);
  const auto begin = static_cast<size_t>(block_table_begin_[i]);
  const auto end =
      i + 1 < sequences_.size() ? static_cast<size_t>(block_table_begin_[i + 1]) : block_tables_.size();
  return std::span(block_tables_).subspan(begin, end - begin);
}

void Batch::PointIntoTables() {
  for (size_t i = 0; i < sequences_.size(); ++i) {
    sequences_[i].block_table = block_tables_.data() + block_table_begin_[i];
  }
}

nn::StepBatch Batch::View() const {
  return {.token_ids = token_ids_, .positions = positions_, .kv_slots = kv_slots_, .sequences = sequences_};
}

namespace {

size_t WordsFor(size_t bytes) {
  return (bytes + sizeof(int32_t) - 1) / sizeof(int32_t);
}

}  // namespace

// words: number of sequences, of logits rows and of sources, then for each sequence {q_len, kv_len, adapter,
// tokens, blocks}, then rows, then for each source {sequence, first, bytes of its id, its id}.
std::string Batch::Serialize() const {
  std::vector<int32_t> words = {static_cast<int32_t>(sequences_.size()),
                                static_cast<int32_t>(logit_rows_.size()),
                                static_cast<int32_t>(sources_.size())};
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const auto& sequence = sequences_[i];
    const auto table_end =
        i + 1 < sequences_.size() ? static_cast<size_t>(block_table_begin_[i + 1]) : block_tables_.size();
    const auto table_begin = static_cast<size_t>(block_table_begin_[i]);
    words.insert(words.end(), {sequence.q_len, sequence.kv_len, adapter_slots_[i]});
    const auto first = token_ids_.begin() + sequence.q_begin;
    words.insert(words.end(), first, first + sequence.q_len);
    words.insert(words.end(), block_tables_.begin() + static_cast<int64_t>(table_begin),
                 block_tables_.begin() + static_cast<int64_t>(table_end));
  }
  words.insert(words.end(), logit_rows_.begin(), logit_rows_.end());
  for (const Source& source : sources_) {
    words.insert(words.end(), {source.sequence, source.first, static_cast<int32_t>(source.id.size())});
    const size_t at = words.size();
    words.resize(at + WordsFor(source.id.size()));
    std::memcpy(words.data() + at, source.id.data(), source.id.size());
  }
  return {reinterpret_cast<const char*>(words.data()), words.size() * sizeof(int32_t)};
}

Batch Batch::Deserialize(std::string_view bytes, int32_t block_size) {
  std::vector<int32_t> copy(bytes.size() / sizeof(int32_t));
  std::memcpy(copy.data(), bytes.data(), copy.size() * sizeof(int32_t));
  std::span<const int32_t> words = copy;
  Batch batch;
  const auto take = [&](size_t count) {
    const auto taken = words.first(count);
    words = words.subspan(count);
    return taken;
  };
  const auto head = take(3);
  for (int32_t i = 0; i < head[0]; ++i) {
    const auto lengths = take(3);
    const auto tokens = take(static_cast<size_t>(lengths[0]));
    const auto table = take(static_cast<size_t>(kv::BlocksFor(lengths[1], block_size)));
    batch.AddSequence(tokens, lengths[1] - lengths[0], table, block_size, lengths[2]);
  }
  const auto rows = take(static_cast<size_t>(head[1]));
  batch.logit_rows_.assign(rows.begin(), rows.end());
  for (int32_t i = 0; i < head[2]; ++i) {
    const auto source = take(3);
    const auto id = take(WordsFor(static_cast<size_t>(source[2])));
    batch.sources_.push_back(
        {source[0], source[1] != 0,
         std::string(reinterpret_cast<const char*>(id.data()), static_cast<size_t>(source[2]))});
  }
  batch.PointIntoTables();
  return batch;
}

}  // namespace cadre::engine
