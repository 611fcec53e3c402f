// The HTTP front over an engine without a model: `serve_fake MODEL_FOLDER [--port N] [--script TEXT]
// [--step-us N]
// [--max-waiting N] [--api-key K]`. For tests of the API alone. Says TEXT, token by token, over and over to
// the limit.
#include <signal.h>

#include <cstdio>
#include <cstring>
#include <map>

#include "serve/server.h"
#include "session/fake_engine.h"
#include "session/hf_text.h"

int main(int argc, char** argv) {
  using namespace cadre;
  if (argc < 2) {
    fprintf(stderr,
            "usage: serve_fake MODEL_FOLDER [--port N] [--script TEXT] [--step-us N] [--max-waiting N] "
            "[--api-key K]\n");
    return 2;
  }
  std::map<std::string, std::string> flags;
  for (int i = 2; i + 1 < argc; i += 2) flags[argv[i]] = argv[i + 1];
  const auto number = [&](const char* name, int otherwise) {
    return flags.contains(name) ? atoi(flags[name].c_str()) : otherwise;
  };

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  const auto text = session::LoadHfText({argv[1], ""});
  if (!text.has_value()) {
    fprintf(stderr, "%s\n", text.error().message.c_str());
    return 1;
  }
  const std::string script =
      flags.contains("--script") ? flags["--script"] : "The quick brown fox jumps over the lazy dog. ";
  const std::vector<int32_t> ids = *(*text)->Encode(script, false);
  session::FakeEngineOptions options;
  options.model = {
      .vocab_size = (*text)->vocab_size(), .max_model_len = 4096, .num_kv_blocks = 1000, .block_size = 16};
  options.step_time = std::chrono::microseconds(number("--step-us", 0));
  options.max_waiting = static_cast<size_t>(number("--max-waiting", 1024));
  options.next_token = [ids](const engine::Request&, int i) {
    return ids[static_cast<size_t>(i) % ids.size()];
  };
  session::FakeEngine engine(options);
  const session::Session session({}, engine, *text);
  MetricsRegistry registry;
  serve::ServeOptions serve;
  serve.http.host = "127.0.0.1";
  serve.http.port = number("--port", 0);
  serve.served_model_names = {argv[1]};
  serve.model_root = argv[1];
  serve.version = "0.0.0-fake";
  if (flags.contains("--api-key")) serve.api_keys = {flags["--api-key"]};
  http::RaiseOpenFileLimit();
  const auto server = serve::ApiServer::Open(serve, registry);
  if (!server.has_value()) {
    fprintf(stderr, "%s\n", server.error().message.c_str());
    return 1;
  }
  (*server)->Serve(session);
  printf("ready: %s\n", (*server)->address().c_str());
  fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  (*server)->Stop(Now() + std::chrono::seconds(5));
  return 0;
}
