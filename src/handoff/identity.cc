#include "handoff/identity.h"

#include <algorithm>

namespace cadre::handoff {
namespace {

constexpr int32_t kMaxTp = 1024;
constexpr int64_t kMaxNoteBytes = 1 << 20;  // no size computed from it and a pool's tokens overflows

HeadRange Heads(int32_t num_heads, int32_t tp_rank, int32_t tp_size) {
  if (num_heads >= tp_size) {
    const int32_t each = num_heads / tp_size;
    return {tp_rank * each, (tp_rank + 1) * each};
  }
  const auto head = static_cast<int32_t>(int64_t{tp_rank} * num_heads / tp_size);
  return {head, head + 1};
}

template <typename T>
Status Same(const char* field, const T& ours, const T& theirs, const char* advice) {
  if (ours == theirs) return {};
  return Fail(Code::kUnsupported,
              "keys and values cannot be exchanged: this instance has {} '{}', the other '{}'; {}", field,
              ours, theirs, advice);
}

}  // namespace

HeadRange HeadsOf(const Identity& identity, int32_t tp_rank) {
  if (identity.layout.latent) return {0, 1};
  return Heads(identity.num_kv_heads, tp_rank, identity.tp_size);
}

Status CheckIdentity(const Identity& identity) {
  const kv::Layout& l = identity.layout;
  const bool sane = l.num_layers >= 1 && l.num_layers <= 65'536 && l.k_dim >= 2 && l.k_dim <= 65'536 &&
                    l.k_dim % 2 == 0 && (l.latent ? l.num_kv_heads == 1 && l.v_dim >= 0 : l.v_dim >= 1) &&
                    l.v_dim <= 65'536 && l.block_size >= 16 && l.block_size <= 65'536 &&
                    l.block_size % 16 == 0 && (l.type == DType::kF32 || l.type == DType::kBf16) &&
                    identity.tp_size >= 1 && identity.tp_size <= kMaxTp && identity.tp_rank >= 0 &&
                    identity.tp_rank < identity.tp_size && identity.num_kv_heads >= 1 &&
                    identity.num_kv_heads <= 65'536 && l.note_bytes >= 0 && l.note_bytes <= kMaxNoteBytes;
  if (!sane) {
    return Fail(
        Code::kInvalidArgument,
        "no layout of keys and values: {} layers, {} of {} heads (k {}, v {}), blocks of {} tokens of "
        "{}, tp rank {} of {}, {} more bytes a token",
        l.num_layers, l.num_kv_heads, identity.num_kv_heads, l.k_dim, l.v_dim, l.block_size,
        DTypeName(l.type), identity.tp_rank, identity.tp_size, l.note_bytes);
  }
  if (l.latent) return {};
  const int32_t heads = identity.num_kv_heads, tp = identity.tp_size;
  if (heads % tp != 0 && tp % heads != 0) {
    return Fail(Code::kInvalidArgument, "{} KV heads cannot be split over {} tp ranks", heads, tp);
  }
  if (l.num_kv_heads != std::max(heads / tp, 1)) {
    return Fail(Code::kInvalidArgument, "a rank of {} has {} KV heads; of {} it must have {}", tp,
                l.num_kv_heads, heads, std::max(heads / tp, 1));
  }
  return {};
}

Status CheckCompatible(const Identity& ours, const Identity& theirs) {
  CADRE_TRY(CheckIdentity(theirs));
  const kv::Layout &a = ours.layout, &b = theirs.layout;
  const char* const same_model = "start both with the same model";
  if (ours.model != theirs.model) {
    return Fail(Code::kUnsupported,
                "keys and values cannot be exchanged: this instance has the model '{}' ({}), the other '{}' "
                "({}); start both with the same model",
                ours.model_name, ours.model, theirs.model_name, theirs.model);
  }
  CADRE_TRY(Same("element type", std::string(DTypeName(a.type)), std::string(DTypeName(b.type)),
                 "give both the same --dtype and --kv-cache-dtype"));
  CADRE_TRY(Same("arithmetic", ours.arithmetic, theirs.arithmetic, "give both the same --kv-cache-dtype"));
  CADRE_TRY(Same("layers", a.num_layers, b.num_layers, same_model));
  CADRE_TRY(Same("KV heads", ours.num_kv_heads, theirs.num_kv_heads, same_model));
  CADRE_TRY(Same("key dimension", a.k_dim, b.k_dim, same_model));
  CADRE_TRY(Same("value dimension", a.v_dim, b.v_dim, same_model));
  return Same("latent attention", a.latent, b.latent, same_model);
}

Status CheckNotes(const Identity& source, const Identity& target) {
  const int64_t has = source.layout.note_bytes, wants = target.layout.note_bytes;
  if (wants == 0 || wants == has) return {};
  if (has == 0) {
    return Fail(Code::kUnsupported,
                "the target's answers tell which experts each token had, and the source does not keep them; "
                "give both --enable-return-routed-experts");
  }
  return Fail(Code::kUnsupported,
              "of the experts that a token had the source keeps {} bytes, the target {}; start both with the "
              "same model",
              has, wants);
}

void PutIdentity(fabric::WireWriter& out, const Identity& identity) {
  const kv::Layout& l = identity.layout;
  out.PutText(identity.model).PutText(identity.model_name).PutText(identity.arithmetic);
  out.Put(identity.weight_generation).Put(l.num_layers).Put(l.num_kv_heads).Put(l.k_dim).Put(l.v_dim);
  out.Put(uint8_t{l.latent}).Put(l.block_size).Put(static_cast<uint8_t>(l.type));
  out.Put(identity.num_kv_heads).Put(identity.tp_rank).Put(identity.tp_size).Put(l.note_bytes);
}

Identity GetIdentity(fabric::WireReader& in) {
  Identity identity;
  kv::Layout& l = identity.layout;
  identity.model = in.GetText();
  identity.model_name = Excerpt(in.GetText(), 200);
  identity.arithmetic = in.GetText();
  identity.weight_generation = in.Get<int64_t>();
  l.num_layers = in.Get<int32_t>();
  l.num_kv_heads = in.Get<int32_t>();
  l.k_dim = in.Get<int32_t>();
  l.v_dim = in.Get<int32_t>();
  l.latent = in.Get<uint8_t>() != 0;
  l.block_size = in.Get<int32_t>();
  // Types that are no such thing become one that CheckIdentity refuses.
  const auto type = in.Get<uint8_t>();
  l.type = type <= static_cast<uint8_t>(DType::kBool) ? static_cast<DType>(type) : DType::kBool;
  identity.num_kv_heads = in.Get<int32_t>();
  identity.tp_rank = in.Get<int32_t>();
  identity.tp_size = in.Get<int32_t>();
  l.note_bytes = in.Get<int64_t>();
  return identity;
}

std::vector<Slice> SlicesOf(const Identity& target, int32_t source_tp_size) {
  if (target.layout.latent) return {{target.tp_rank % source_tp_size, {0, 1}, {0, 1}}};
  const HeadRange wanted = HeadsOf(target, target.tp_rank);
  const int32_t num_heads = target.num_kv_heads;
  const int32_t copies = std::max(source_tp_size / num_heads, 1);  // source ranks that hold the same head
  std::vector<Slice> slices;
  for (int32_t rank = 0; rank < source_tp_size; ++rank) {
    if (rank % copies != target.tp_rank % copies) continue;
    const HeadRange has = Heads(num_heads, rank, source_tp_size);
    const HeadRange both = {std::max(has.begin, wanted.begin), std::min(has.end, wanted.end)};
    if (both.size() <= 0) continue;
    slices.push_back({rank,
                      {both.begin - has.begin, both.end - has.begin},
                      {both.begin - wanted.begin, both.end - wanted.begin}});
  }
  return slices;
}

}  // namespace cadre::handoff
