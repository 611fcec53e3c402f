#pragma once
// The algorithms as Create knows them: how to make each, and the bytes of buffers it takes on a rank.
// Algorithm by algorithm in the file of its name; all are for two ranks and more, on one host or several.
#include <memory>

#include "a2a/a2a.h"
#include "fabric/fabric.h"

namespace cadre::a2a {

Result<std::unique_ptr<AllToAll>> CreateAllGatherReduceScatter(const Options& options,
                                                               const fabric::GroupHosts& hosts);
Result<std::unique_ptr<AllToAll>> CreateNaive(const Options& options, const fabric::GroupHosts& hosts);
Result<std::unique_ptr<AllToAll>> CreatePplx(const Options& options, const fabric::GroupHosts& hosts);
Result<std::unique_ptr<AllToAll>> CreateDeepEpHighThroughput(const Options& options,
                                                             const fabric::GroupHosts& hosts);
Result<std::unique_ptr<AllToAll>> CreateDeepEpLowLatency(const Options& options,
                                                         const fabric::GroupHosts& hosts);
Result<std::unique_ptr<AllToAll>> CreateFlashInfer(const Options& options, const fabric::GroupHosts& hosts);
Result<std::unique_ptr<AllToAll>> CreateMori(const Options& options, const fabric::GroupHosts& hosts);

int64_t AllGatherReduceScatterBytes(const Options& options, const fabric::GroupHosts& hosts);
int64_t NaiveBytes(const Options& options, const fabric::GroupHosts& hosts);
int64_t PplxBytes(const Options& options, const fabric::GroupHosts& hosts);
int64_t DeepEpHighThroughputBytes(const Options& options, const fabric::GroupHosts& hosts);
int64_t DeepEpLowLatencyBytes(const Options& options, const fabric::GroupHosts& hosts);
int64_t FlashInferBytes(const Options& options, const fabric::GroupHosts& hosts);
int64_t MoriBytes(const Options& options, const fabric::GroupHosts& hosts);

}  // namespace cadre::a2a
