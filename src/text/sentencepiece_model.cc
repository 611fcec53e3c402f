#include "text/sentencepiece_model.h"

#include <sentencepiece_processor.h>

namespace cadre::text {
namespace {

class SentencePieceModel : public Model {
 public:
  Result<SentencePiece> Describe(const std::string& path, std::string_view bytes) {
    const auto status = processor_.LoadFromSerializedProto(absl::string_view(bytes.data(), bytes.size()));
    if (!status.ok()) return Fail(Code::kInvalidArgument, "{}: {}", path, status.ToString());
    SentencePiece piece;
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      vocab_.Add(processor_.IdToPiece(id), id);
      piece.is_special.push_back(processor_.IsControl(id) || processor_.IsUnknown(id));
    }
    if (processor_.bos_id() >= 0) piece.bos = processor_.IdToPiece(processor_.bos_id());
    if (processor_.eos_id() >= 0) piece.eos = processor_.IdToPiece(processor_.eos_id());
    // Decoding takes a space away where encoding would put one: ask the model what it does.
    std::vector<std::string> pieces;
    if (processor_.Encode("a", &pieces).ok() && !pieces.empty()) {
      piece.adds_space = pieces.front().starts_with("\xE2\x96\x81");
    }
    return piece;
  }

  void Encode(std::string_view text, Scratch& scratch, std::vector<int32_t>& out) const override {
    scratch.pieces.clear();
    // It fails for nothing that a text can hold (damaged UTF-8 was repaired before).
    if (!processor_.Encode(absl::string_view(text.data(), text.size()), &scratch.pieces).ok()) return;
    out.insert(out.end(), scratch.pieces.begin(), scratch.pieces.end());
  }

 private:
  sentencepiece::SentencePieceProcessor processor_;
};

}  // namespace

Result<SentencePiece> LoadSentencePiece(const std::string& path, std::string_view bytes) {
  auto model = std::make_unique<SentencePieceModel>();
  CADRE_ASSIGN(SentencePiece piece, model->Describe(path, bytes));
  piece.model = std::move(model);
  return piece;
}

}  // namespace cadre::text
