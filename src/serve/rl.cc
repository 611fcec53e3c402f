// What a trainer asks of the servers that sample for it: pause, go on, take other weights. Paths, bodies and
// answers are those of vLLM's rl routes and of prime-rl's server, which overlap; see docs/rl.md.
#include "base/caught.h"
#include "serve/api.h"
#include "serve/errors.h"

namespace cadre::serve {
namespace {

using engine::ControlKind;
using engine::ControlState;
using engine::WeightOrder;

constexpr int64_t kDefaultTimeoutSeconds = 720;  // prime-rl's
constexpr int64_t kMaxTimeoutSeconds = 24 * 3600;

constexpr Field kUpdateFields[] = {
    {.name = "weight_dir", .type = FieldType::kString},
    {.name = "update_info", .type = FieldType::kObject},
    {.name = "timeout", .type = FieldType::kInt, .min = 1, .max = kMaxTimeoutSeconds},
};
constexpr Field kUpdateInfoFields[] = {
    {.name = "weight_dir", .type = FieldType::kString},
    {.name = "names", .type = FieldType::kStrings},
    {.name = "dtype_names", .type = FieldType::kStrings},
    {.name = "shapes"},
    {.name = "packed",
     .type = FieldType::kBool,
     .use = FieldUse::kNoEffect,
     .note = "each rank reads the parts that it needs, as large as they are"},
};
constexpr Field kBroadcasterFields[] = {
    {.name = "host", .type = FieldType::kString},
    {.name = "master_address", .type = FieldType::kString},
    {.name = "port", .type = FieldType::kInt, .min = 1, .max = 65535},
    {.name = "master_port", .type = FieldType::kInt, .min = 1, .max = 65535},
    {.name = "server_rank", .type = FieldType::kInt, .min = 0, .max = 1 << 20},
    {.name = "num_inference_server", .type = FieldType::kInt, .min = 1, .max = 1 << 20},
    {.name = "rank_offset", .type = FieldType::kInt, .min = 0, .max = 1 << 20},
    {.name = "inference_world_size", .type = FieldType::kInt, .min = 1, .max = 1 << 20},
    {.name = "world_size", .type = FieldType::kInt, .min = 2, .max = 1 << 20},
    {.name = "timeout", .type = FieldType::kInt, .min = 1, .max = kMaxTimeoutSeconds},
    {.name = "session_id",
     .type = FieldType::kString,
     .use = FieldUse::kNoEffect,
     .note = "a connection is a session"},
    {.name = "quantize_in_weight_transfer",
     .type = FieldType::kBool,
     .use = FieldUse::kRefused,
     .note = "weights arrive as bfloat16, float16 or float32",
     .neutral = "false"},
};

http::Response Answer(Json::Object members) {
  return {200, "application/json", {}, Json(std::move(members)).Dump()};
}

// Gives the engine an order and answers when it has been carried out. A thing of the request's that does not
// fit is a 400 and never a 404, which clients take for a server without this route.
void Order(Api& api, engine::ControlRequest request, const WriterPtr& writer,
           std::function<http::Response(const ControlState&)> answer) {
  api.session.engine().Control(std::move(request),
                               [writer, answer = std::move(answer)](Result<ControlState> state) {
                                 try {
                                   if (state) return writer->Send(answer(*state));
                                   Error error = std::move(state).error();
                                   if (error.code == Code::kNotFound || error.code == Code::kDataLoss)
                                     error.code = Code::kInvalidArgument;
                                   writer->Send(ErrorResponse(error));
                                 } catch (...) {
                                   writer->Send(ErrorResponse(CaughtError()));
                                 }
                               });
}

// An empty body is an empty object.
Result<Json> BodyOf(Api& api, const http::Request& request, std::span<const Field> fields) {
  return ParseBody(request.body.empty() ? std::string_view("{}") : std::string_view(request.body), fields,
                   api.notes);
}

Result<bool> QueryFlag(const http::Request& request, std::string_view name, bool otherwise) {
  const std::string value = request.QueryValue(name);
  if (value.empty()) return otherwise;
  for (const std::string_view yes : {"true", "1", "yes", "on"})
    if (http::EqualNoCase(value, yes)) return true;
  for (const std::string_view no : {"false", "0", "no", "off"})
    if (http::EqualNoCase(value, no)) return false;
  return FailParam(Code::kInvalidArgument, std::string(name), "{} must be true or false, got '{}'", name,
                   Excerpt(value));
}

Result<WeightOrder> UpdateOrder(Api& api, const Json& body) {
  WeightOrder order{.timeout_s = GetInt(body, "timeout", kDefaultTimeoutSeconds)};
  const Json* info = GetField(body, "update_info");
  const Json* weight_dir = GetField(body, "weight_dir");
  Json checked;
  if (info != nullptr) {
    CADRE_ASSIGN(checked, ParseBody(info->Dump(), kUpdateInfoFields, api.notes));
    if (weight_dir == nullptr) weight_dir = GetField(checked, "weight_dir");
  } else if (body.Find("weight_dir") == nullptr) {
    return FailParam(
        Code::kInvalidArgument, "update_info",
        "Missing 'update_info' in request body; or send 'weight_dir': a folder with safetensors, or null "
        "to receive from the sender that /init_broadcaster has named");
  }
  if (weight_dir != nullptr) {
    if (weight_dir->AsString().empty())
      return FailParam(Code::kInvalidArgument, "weight_dir", "weight_dir is empty; wanted a folder, or null");
    order.folder = weight_dir->AsString();
    return order;
  }
  order.kind = WeightOrder::Kind::kReceive;
  const Json* names = GetField(checked, "names");
  if (names == nullptr) return order;
  const Json *types = GetField(checked, "dtype_names"), *shapes = GetField(checked, "shapes");
  const size_t count = names->AsArray().size();
  const auto fits = [&](const Json* list) {
    return list != nullptr && list->is_array() && list->AsArray().size() == count;
  };
  if (!fits(types) || !fits(shapes)) {
    return FailParam(Code::kInvalidArgument, "update_info",
                     "update_info has {} names; wanted as many entries in dtype_names and in shapes", count);
  }
  Json::Array expected;
  for (size_t i = 0; i < count; ++i) {
    const Json& shape = shapes->AsArray()[i];
    const auto is_int = [](const Json& dim) { return dim.is_int(); };
    if (!shape.is_array() || !std::ranges::all_of(shape.AsArray(), is_int))
      return FailParam(Code::kInvalidArgument, "shapes", "entry {} of shapes must be a list of integers", i);
    std::string type = types->AsArray()[i].AsString();
    if (type.starts_with("torch.")) type.erase(0, 6);
    expected.push_back(Json::Array{names->AsArray()[i], std::move(type), shape});
  }
  order.expected = Json(std::move(expected)).Dump();
  return order;
}

// The first receiver's number and the world's size, in whichever way the client has counted.
Status FillPlaces(const Api& api, const Json& body, WeightOrder& order) {
  const int64_t here = api.options.num_ranks;
  const int64_t servers = GetInt(body, "num_inference_server", 1), server = GetInt(body, "server_rank", 0);
  const bool by_offset = GetField(body, "rank_offset") || GetField(body, "inference_world_size");
  if (!by_offset && server >= servers) {
    return FailParam(Code::kInvalidArgument, "server_rank",
                     "server_rank {} is not below num_inference_server {}", server, servers);
  }
  const int64_t world = by_offset ? GetInt(body, "inference_world_size", here) + 1 : servers * here + 1;
  order.world_size = static_cast<int32_t>(GetInt(body, "world_size", world));
  // vLLM's offsets count the trainer too, prime-rl's do not.
  const bool counts_trainer = GetField(body, "world_size") != nullptr;
  order.first_receiver = static_cast<int32_t>(
      by_offset ? GetInt(body, "rank_offset", counts_trainer ? 1 : 0) + (counts_trainer ? 0 : 1)
                : server * here + 1);
  if (order.first_receiver < 1 || order.first_receiver + here > order.world_size) {
    return FailParam(
        Code::kInvalidArgument, by_offset ? "rank_offset" : "server_rank",
        "this server has {} ranks, which would be receivers {} to {} of a world of {} (0 is the sender)",
        here, order.first_receiver, order.first_receiver + here - 1, order.world_size);
  }
  return {};
}

Result<WeightOrder> ConnectOrder(const Api& api, const Json& body) {
  WeightOrder order{.kind = WeightOrder::Kind::kConnect, .timeout_s = GetInt(body, "timeout", 60)};
  order.host = GetString(body, "host");
  if (order.host.empty()) order.host = GetString(body, "master_address");
  order.port = static_cast<int32_t>(GetInt(body, "port", GetInt(body, "master_port", 0)));
  if (order.host.empty() || order.port == 0) {
    return FailParam(Code::kInvalidArgument, order.host.empty() ? "host" : "port",
                     "wanted the host and port at which the sender of weights listens");
  }
  CADRE_TRY(FillPlaces(api, body, order));
  return order;
}

Status OrderWeights(Api& api, WeightOrder order, const WriterPtr& writer, std::string_view key,
                    std::string_view value) {
  Order(api, {.kind = ControlKind::kWeights, .weights = std::move(order)}, writer,
        [key = std::string(key), value = std::string(value)](const ControlState& state) {
          return Answer({{key, value},
                         {"generation", state.generation},
                         {"seconds", state.seconds},
                         {"bytes", state.bytes}});
        });
  return {};
}

}  // namespace

Status Pause(Api& api, const http::Request& request, const WriterPtr& writer) {
  engine::ControlRequest order{.kind = ControlKind::kPause};
  const std::string mode = request.QueryValue("mode");
  CADRE_ASSIGN(order.clear_cache, QueryFlag(request, "clear_cache", true));
  CADRE_ASSIGN(const bool waits,
               QueryFlag(request, "wait_for_inflight_requests", false));  // vLLM's older spelling
  if (mode == "wait" || (mode.empty() && waits)) {
    order.mode = engine::PauseMode::kWait;
  } else if (mode == "keep") {
    order.mode = engine::PauseMode::kKeep;
  } else if (!mode.empty() && mode != "abort") {
    return FailParam(Code::kInvalidArgument, "mode", "mode must be abort, wait or keep, got '{}'",
                     Excerpt(mode));
  }
  Order(api, order, writer, [](const ControlState&) { return Answer({{"status", "paused"}}); });
  return {};
}

Status Resume(Api& api, const http::Request&, const WriterPtr& writer) {
  Order(api, {.kind = ControlKind::kResume}, writer, [](const ControlState&) {
    return Answer({{"status", "resumed"}});
  });
  return {};
}

Status IsPaused(Api& api, const http::Request&, const WriterPtr& writer) {
  Order(api, {.kind = ControlKind::kProbe}, writer, [](const ControlState& state) {
    return Answer({{"is_paused", state.paused}});
  });
  return {};
}

Status Liveness(Api& api, const http::Request&, const WriterPtr& writer) {
  return api.liveness.Ask(api.session.engine(), writer);
}

Status UpdateWeights(Api& api, const http::Request& request, const WriterPtr& writer) {
  CADRE_ASSIGN(const Json body, BodyOf(api, request, kUpdateFields));
  CADRE_ASSIGN(WeightOrder order, UpdateOrder(api, body));
  const bool vllm = GetField(body, "update_info") != nullptr;
  return vllm ? OrderWeights(api, std::move(order), writer, "message", "Weights updated")
              : OrderWeights(api, std::move(order), writer, "status", "ok");
}

Status ReloadWeights(Api& api, const http::Request& request, const WriterPtr& writer) {
  CADRE_TRY(BodyOf(api, request, {}));
  return OrderWeights(api, {.kind = WeightOrder::Kind::kReload, .timeout_s = kDefaultTimeoutSeconds}, writer,
                      "status", "ok");
}

Status InitBroadcaster(Api& api, const http::Request& request, const WriterPtr& writer) {
  CADRE_ASSIGN(const Json body, BodyOf(api, request, kBroadcasterFields));
  CADRE_ASSIGN(WeightOrder order, ConnectOrder(api, body));
  return OrderWeights(api, std::move(order), writer, "status", "ok");
}

Status InitWeightTransferEngine(Api& api, const http::Request& request, const WriterPtr& writer) {
  constexpr Field kFields[] = {{.name = "init_info", .type = FieldType::kObject}};
  CADRE_ASSIGN(const Json body, BodyOf(api, request, kFields));
  const Json* info = GetField(body, "init_info");
  if (info == nullptr)
    return FailParam(Code::kInvalidArgument, "init_info", "Missing 'init_info' in request body");
  CADRE_ASSIGN(const Json checked, ParseBody(info->Dump(), kBroadcasterFields, api.notes));
  CADRE_ASSIGN(WeightOrder order, ConnectOrder(api, checked));
  return OrderWeights(api, std::move(order), writer, "message", "Weight transfer initialized");
}

// An update is one order here, so there is nothing to begin or to end around it.
Result<http::Response> StartWeightUpdate(Api&, const http::Request&) {
  return Answer({{"message", "Weight update started"}});
}
Result<http::Response> FinishWeightUpdate(Api&, const http::Request&) {
  return Answer({{"message", "Weight update finished"}});
}

Result<http::Response> GetWorldSize(Api& api, const http::Request& request) {
  CADRE_ASSIGN(const bool all, QueryFlag(request, "include_dp", true));
  return Answer({{"world_size", all ? api.options.num_ranks : api.options.tensor_parallel_size}});
}

}  // namespace cadre::serve
