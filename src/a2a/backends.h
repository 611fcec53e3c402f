#pragma once
// The algorithms as Create knows them: how to make each, and the bytes of buffers it takes on a rank.
// Algorithm by algorithm in the file of its name; all are for two ranks and more.
#include <memory>

#include "a2a/a2a.h"

namespace cadre::a2a {

Result<std::unique_ptr<AllToAll>> CreatePplx(const Options& options);
Result<std::unique_ptr<AllToAll>> CreateDeepEpHighThroughput(const Options& options);
Result<std::unique_ptr<AllToAll>> CreateDeepEpLowLatency(const Options& options);
Result<std::unique_ptr<AllToAll>> CreateFlashInfer(const Options& options);
Result<std::unique_ptr<AllToAll>> CreateMori(const Options& options);

int64_t PplxBytes(const Options& options);
int64_t DeepEpHighThroughputBytes(const Options& options);
int64_t DeepEpLowLatencyBytes(const Options& options);
int64_t FlashInferBytes(const Options& options);
int64_t MoriBytes(const Options& options);

}  // namespace cadre::a2a
