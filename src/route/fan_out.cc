#include "route/fan_out.h"

#include <algorithm>
#include <set>

#include "base/json.h"
#include "route/messages.h"

namespace cadre::route {
namespace {

constexpr size_t kMaxAnswerBytes = 4 << 20;

struct Gathering {
  std::vector<WorkerAnswer> answers;
  size_t missing = 0;
  std::function<void(std::vector<WorkerAnswer>)> then;
  void OneDone() {
    if (--missing == 0) then(std::move(answers));
  }
};

class AnswerSink final : public http::ResponseSink {
 public:
  AnswerSink(std::shared_ptr<Gathering> all, size_t at) : all_(std::move(all)), at_(at) {}
  void OnHead(int status, const http::Headers&) override { status_ = status; }
  void OnBody(std::string_view bytes) override {
    if (body_.size() + bytes.size() > kMaxAnswerBytes) too_long_ = true;
    if (!too_long_) body_ += bytes;
  }
  void OnDone(Status status) override {
    WorkerAnswer& answer = all_->answers[at_];
    if (!status) {
      answer.failure = status.error().message;
    } else if (too_long_) {
      answer.failure = Format("its answer is longer than {} bytes", kMaxAnswerBytes);
    } else {
      answer.status = status_;
      answer.body = std::move(body_);
    }
    all_->OneDone();
  }

 private:
  const std::shared_ptr<Gathering> all_;
  const size_t at_;
  int status_ = 0;
  std::string body_;
  bool too_long_ = false;
};

bool AllSay(const std::vector<WorkerAnswer>& answers, const std::function<bool(int)>& what) {
  return std::ranges::all_of(answers, [&](const WorkerAnswer& each) { return what(each.status); });
}

int GatheredStatus(const std::vector<WorkerAnswer>& answers) {
  if (AllSay(answers, [](int status) { return status / 100 == 2; })) return 200;
  const int first = answers.front().status;
  return first != 0 && AllSay(answers, [&](int status) { return status == first; }) ? first : 502;
}

}  // namespace

void AskAll(const std::vector<std::shared_ptr<Worker>>& workers,
            const std::function<Question(size_t)>& question,
            std::function<void(std::vector<WorkerAnswer>)> then) {
  if (workers.empty()) return then({});
  const auto all = std::make_shared<Gathering>();
  all->answers.resize(workers.size());
  all->missing = workers.size() + 1;  // and this function's own share: `then` runs once all have been asked
  all->then = std::move(then);
  for (size_t i = 0; i < workers.size(); ++i) {
    all->answers[i].worker = workers[i];
    Question asked = question(i);
    http::ClientRequest request;
    request.method = std::move(asked.method);
    request.target = std::move(asked.target);
    request.headers = std::move(asked.headers);
    request.body = std::move(asked.body);
    request.idle_timeout = request.total_timeout = std::max(
        std::chrono::duration_cast<std::chrono::milliseconds>(asked.timeout), std::chrono::milliseconds(1));
    if (workers[i]->Send(std::move(request), std::make_shared<AnswerSink>(all, i))) continue;
    all->answers[i].failure = "it has no connections: its name does not resolve, or it is leaving";
    all->OneDone();
  }
  all->OneDone();
}

bool IsForAll(std::string_view path) {
  constexpr std::string_view kPaths[] = {"/pause",
                                         "/resume",
                                         "/is_paused",
                                         "/sleep",
                                         "/wake_up",
                                         "/is_sleeping",
                                         "/reset_prefix_cache",
                                         "/reset_mm_cache",
                                         "/reset_encoder_cache",
                                         "/flush_cache",
                                         "/release_kv_cache_memory",
                                         "/update_weights",
                                         "/reload_weights",
                                         "/start_weight_update",
                                         "/finish_weight_update",
                                         "/update_weight_version",
                                         "/init_broadcaster",
                                         "/init_weight_transfer_engine",
                                         "/shutdown_weight_transfer_engine",
                                         "/load_lora_adapter",
                                         "/v1/load_lora_adapter",
                                         "/v1/unload_lora_adapter",
                                         "/start_profile",
                                         "/stop_profile",
                                         "/abort_requests",
                                         "/collective_rpc",
                                         "/liveness"};
  return std::ranges::find(kPaths, path) != std::end(kPaths);
}

http::Response GatheredResponse(const std::vector<WorkerAnswer>& answers) {
  const int status = GatheredStatus(answers);
  Json::Array workers;
  Json common;
  bool agree = true;
  for (const WorkerAnswer& answer : answers) {
    Json one = Json::Object{{"url", answer.worker->address().Url()},
                            {"role", RoleName(answer.worker->address().role)},
                            {"status", answer.status}};
    if (answer.status == 0) one.Set("error", answer.failure);
    auto body = Json::Parse(answer.body);
    Json value = body ? *std::move(body) : Json(Excerpt(answer.body, 1000));
    agree = agree && value.is_object() && (common.is_null() || common == value);
    if (answer.status != 0) one.Set("body", value);
    common = std::move(value);
    workers.push_back(std::move(one));
  }
  if (!agree) common = Json::Object{{"status", status == 200 ? "ok" : "failed"}};
  common.Set("workers", std::move(workers));
  http::Response response;
  response.status = status;
  response.body = common.Dump();
  return response;
}

http::Response MergedModels(const std::vector<WorkerAnswer>& answers) {
  Json::Array models;
  std::set<std::string> seen;
  bool any = false;
  for (const WorkerAnswer& answer : answers) {
    if (answer.status != 200) continue;
    const auto body = Json::Parse(answer.body);
    const Json* data = body ? body->Find("data") : nullptr;
    if (data == nullptr || !data->is_array()) continue;
    any = true;
    for (const Json& model : data->AsArray()) {
      const Json* id = model.Find("id");
      if (id != nullptr && id->is_string() && seen.insert(id->AsString()).second) models.push_back(model);
    }
  }
  if (!any) {
    for (const WorkerAnswer& answer : answers) {
      if (answer.status < 400 || answer.status >= 500) continue;  // a wrong key, most likely: their own words
      http::Response refused;
      refused.status = answer.status;
      refused.body = answer.body;
      return refused;
    }
    return ErrorResponse(503, "no worker that is healthy lists its models");
  }
  http::Response response;
  response.body = Json(Json::Object{{"object", "list"}, {"data", std::move(models)}}).Dump();
  return response;
}

Result<std::string> BroadcasterBody(const std::string& body, size_t worker, size_t count) {
  auto parsed = Json::Parse(body);
  if (!parsed || !parsed->is_object() || count == 1) return body;  // wrong ones are the workers' to refuse
  if (parsed->Find("rank_offset") != nullptr && parsed->Find("server_rank") == nullptr) {
    return Fail(
        Code::kInvalidArgument,
        "rank_offset is one worker's own, and here are {}: send /init_broadcaster to each of them, or "
        "server_rank and num_inference_server, which are filled in here",
        count);
  }
  parsed->Set("server_rank", static_cast<int64_t>(worker));
  parsed->Set("num_inference_server", static_cast<int64_t>(count));
  return parsed->Dump();
}

}  // namespace cadre::route
