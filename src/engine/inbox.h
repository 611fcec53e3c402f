#pragma once
#include "engine/local_engine.h"

namespace cadre::engine {

// What other threads may touch. Shared with the handles, which may outlive the engine.
struct LocalEngine::Inbox {
  struct Arrival {
    SeqId id;
    Request request;
    std::shared_ptr<EventSink> sink;
    TimePoint queued;
  };

  std::mutex mutex;
  std::condition_variable changed;   // wakes the engine thread
  std::condition_variable finished;  // the engine thread has ended
  std::vector<Arrival> arrivals;
  std::vector<SeqId> cancelled;
  int64_t num_waiting = 0;  // arrivals and sequences that wait in the scheduler
  bool draining = false;    // refuse new requests; end when nothing is left
  bool abort = false;       // end what is left at once
  bool reset_prefix_cache = false;
  bool agent_called = false;
  bool ended = false;
  Status health;
  Status broken;  // weights that are of no use, until others come
  std::vector<ControlCall> calls;
  AdapterList adapters;      // as the engine thread has them
  StepGate* gate = nullptr;  // null once the engine is gone

  void Wake() {
    changed.notify_one();
    if (gate != nullptr) gate->Wake();
  }
};

}  // namespace cadre::engine
