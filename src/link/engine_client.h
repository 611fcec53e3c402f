#pragma once
// The front's side: an Engine that lives in another process.
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "engine/engine.h"
#include "link/outbox.h"
#include "sys/fd.h"

namespace cadre::link {

struct EngineClientOptions {
  int rank = 0;
  int64_t max_queued_requests = 4096;
  /// Whether the engine ends with this front: it is the rank's first (engine_server.h).
  bool owns_engine = true;
};

class EngineClient : public engine::Engine {
 public:
  /// Waits for the rank's announcement. Errors: kDeadlineExceeded, kUnavailable when the rank closes first,
  /// kDataLoss for another version.
  static Result<std::unique_ptr<EngineClient>> Connect(sys::Fd connection, EngineClientOptions options,
                                                       TimePoint deadline);
  ~EngineClient() override;

  const engine::ModelInfo& model_info() const override { return model_info_; }
  Result<std::unique_ptr<engine::RequestHandle>> Submit(engine::Request request,
                                                        std::shared_ptr<engine::EventSink> sink) override;
  std::vector<engine::RankStats> Stats() const override;
  Status Health() const override;
  Result<engine::EplbState> Eplb(TimePoint deadline) const override;
  Status ResetPrefixCache() override;
  void Control(engine::ControlRequest request, engine::ControlDone done) override;
  void Prefixes(engine::PrefixQuery query, engine::PrefixDone done) override;
  /// Of an engine that others use too: refuses new requests here, and ends with those of this front.
  void Drain(TimePoint deadline) override;

  /// Lets the rank serve one more front: at the other end of `fd`, or, without one, where the rank's
  /// connector finds it by `where`. For the rank's first front.
  void AddFront(sys::Fd fd, std::string where);

  int rank() const { return options_.rank; }
  /// Requests handed over and not ended: fresh, where Stats() is as old as the rank's last message.
  int64_t num_in_flight() const;
  /// Drain has been called.
  bool draining() const;
  /// Ends every request with `error` and refuses new ones: the rank is known to be gone. Any thread.
  void Fail(const Error& error);

 private:
  struct State;
  EngineClient(sys::Fd connection, EngineClientOptions options, engine::ModelInfo model_info,
               engine::RankStats stats);
  void ReadLoop();
  void CancelAll();
  bool HandleFrame(uint32_t kind, std::string_view body);

  EngineClientOptions options_;
  engine::ModelInfo model_info_;
  std::shared_ptr<State> state_;
  std::thread reader_;
};

}  // namespace cadre::link
