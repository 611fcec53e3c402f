#pragma once
// The decoders of decoder.h as a chain of stages that pass pieces of text on.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/decoder.h"

namespace cadre::text {

/// A chain for `steps`, which must outlive it.
std::unique_ptr<DecodeStream> StartStages(const std::vector<DecoderStep>& steps, size_t max_held_bytes);

/// The byte of a token written <0xHH>, or -1.
int ByteOfToken(std::string_view token);

/// Appends `text` with `content` in place of every match.
void ReplaceMatches(const Pattern& pattern, std::string_view content, std::string_view text,
                    std::string& out);

}  // namespace cadre::text
