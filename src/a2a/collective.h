#pragma once
#include <cstdint>
#include <span>
#include <vector>
#include "base/clock.h"
#include "base/error.h"
namespace cadre::a2a {
class Collective {
 public:
  virtual ~Collective() = default;
  virtual void BeginStep(int64_t step, TimePoint deadline) = 0;
  virtual int size() const = 0;
  virtual int rank() const = 0;
  virtual Status AllReduce(float* x, int64_t count) = 0;
  virtual Result<float*> Own(int64_t count) = 0;
  virtual Status Gather(int root, int64_t rows, int64_t own_width, float* out) = 0;
  virtual Status Send(const std::vector<int32_t>& words) = 0;
  virtual Result<std::vector<int32_t>> Receive() = 0;
};
}  // namespace cadre::a2a
