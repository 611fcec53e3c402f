#pragma once
// For tests: many SSE streams at once through a server and a client of this room.
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "http/client.h"
#include "http/server.h"
#include "http/sse.h"

namespace cadre::http {

struct StreamLoad {
  int num_streams = 0;
  int num_events = 0;
  std::chrono::milliseconds interval{};
  bool half_vanish = false;  ///< every other client cancels after its first event
};

struct StreamLoadResult {
  int num_complete = 0;     ///< streams that ended well with all events in order
  int num_events = 0;       ///< of those
  int num_disconnects = 0;  ///< heard by the server
  int64_t num_connections_after = 0;
};

class LoadSink final : public ResponseSink {
 public:
  explicit LoadSink(const StreamLoad& load) : load_(load) {}
  void OnHead(int status, const Headers&) override { ok_ = status == 200; }
  void OnBody(std::string_view bytes) override {
    reader_.Push(bytes, [this](std::string_view data) {
      ok_ = ok_ && data == std::to_string(num_events);
      ++num_events;
    });
    if (num_events > 0 && vanish != nullptr) std::exchange(vanish, nullptr)->Cancel();
  }
  void OnDone(Status status) override {
    complete = ok_ && status.has_value() && num_events == load_.num_events;
    done = true;
  }

  int num_events = 0;
  std::shared_ptr<ClientCall> vanish;
  std::atomic<bool> complete{false}, done{false};

 private:
  const StreamLoad& load_;
  SseReader reader_;
  bool ok_ = false;
};

/// One thread writes to all streams in turn, as an engine does.
inline StreamLoadResult RunStreamLoad(const StreamLoad& load) {
  std::mutex mutex;
  std::vector<std::shared_ptr<ResponseWriter>> writers;
  std::atomic<int> disconnects{0};
  ServerOptions options;
  options.host = "127.0.0.1";
  options.port = 0;
  options.num_threads = 2;
  const auto server = std::move(*Server::Start(options, [&](Request, std::shared_ptr<ResponseWriter> writer) {
    writer->OnDisconnect([&] { ++disconnects; });
    writer->StartStream(200, "text/event-stream", {});
    const std::lock_guard lock(mutex);
    writers.push_back(std::move(writer));
  }));
  ClientOptions to;
  to.port = server->port();
  to.num_threads = 2;
  auto client = std::move(*Client::Create(to));
  std::vector<std::shared_ptr<LoadSink>> sinks;
  for (int i = 0; i < load.num_streams; ++i) {
    sinks.push_back(std::make_shared<LoadSink>(load));
    const auto call = client->Send({"GET", "/"}, sinks.back());
    if (load.half_vanish && i % 2 == 1) sinks.back()->vanish = call;
  }
  const auto num_writers = [&] {
    const std::lock_guard lock(mutex);
    return static_cast<int>(writers.size());
  };
  const TimePoint limit = Now() + std::chrono::seconds(60);
  while (num_writers() < load.num_streams && Now() < limit)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  for (int event = 0; event < load.num_events; ++event) {
    for (const auto& writer : writers) writer->Write("data: " + std::to_string(event) + "\n\n");
    std::this_thread::sleep_for(load.interval);
  }
  while (load.half_vanish && disconnects < load.num_streams / 2 && Now() < limit)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  for (const auto& writer : writers) writer->End();
  StreamLoadResult result;
  for (const auto& sink : sinks) {
    while (!sink->done && Now() < limit) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (!sink->complete) continue;
    ++result.num_complete;
    result.num_events += sink->num_events;
  }
  writers.clear();
  client.reset();
  while (server->num_connections() > 0 && Now() < limit)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  result.num_connections_after = server->num_connections();
  result.num_disconnects = disconnects;
  return result;
}

}  // namespace cadre::http
