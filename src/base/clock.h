#pragma once
// Monotonic time and deadlines. A deadline travels in the request; nothing below makes one up.
#include <chrono>

namespace cadre {

using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;
using Duration = Clock::duration;

inline TimePoint Now() { return Clock::now(); }
inline double Seconds(Duration d) { return std::chrono::duration<double>(d).count(); }
inline double SecondsSince(TimePoint start) { return Seconds(Now() - start); }

}  // namespace cadre
