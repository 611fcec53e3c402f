// LoRA adapters at run time: vLLM's two routes, and prime-rl's, which replaces an adapter of the same name.
#include "base/caught.h"
#include "serve/api.h"
#include "serve/errors.h"
#include "serve/openai/request.h"

namespace cadre::serve {
namespace {

using engine::ControlState;
using engine::WeightOrder;

constexpr int64_t kTimeoutSeconds = 720;  // as of an update of the weights

constexpr Field kLoadFields[] = {
    {.name = "lora_name", .type = FieldType::kString},
    {.name = "lora_path", .type = FieldType::kString},
    {.name = "load_inplace", .type = FieldType::kBool},
    {.name = "is_3d_lora_weight",
     .type = FieldType::kBool,
     .use = FieldUse::kRefused,
     .note = "LoRA on experts is not built",
     .neutral = "false"},
};
constexpr Field kUnloadFields[] = {
    {.name = "lora_name", .type = FieldType::kString},
    {.name = "lora_int_id",
     .type = FieldType::kInt,
     .use = FieldUse::kNoEffect,
     .note = "adapters are known by their names"},
};

Status CheckOpen(const Api& api, bool of_vllm) {
  if (!api.options.enable_lora)
    return Fail(Code::kInvalidArgument, "LoRA is not enabled; start the server with --enable-lora");
  if (of_vllm && !api.options.allow_runtime_lora) {
    return Fail(Code::kNotFound,
                "Not Found: adapters are loaded at run time with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in the "
                "server's environment");
  }
  return {};
}

Result<Json> BodyOf(Api& api, const http::Request& request, std::span<const Field> fields) {
  return ParseBody(request.body.empty() ? std::string_view("{}") : std::string_view(request.body), fields,
                   api.notes);
}

Result<WeightOrder> LoadOrder(Api& api, const http::Request& request) {
  CADRE_ASSIGN(const Json body, BodyOf(api, request, kLoadFields));
  WeightOrder order{.kind = WeightOrder::Kind::kLoadAdapter,
                    .folder = GetString(body, "lora_path"),
                    .timeout_s = kTimeoutSeconds,
                    .name = GetString(body, "lora_name"),
                    .in_place = GetBool(body, "load_inplace", false)};
  if (order.name.empty() || order.folder.empty()) {
    return FailParam(Code::kInvalidArgument, order.name.empty() ? "lora_name" : "lora_path",
                     "Both 'lora_name' and 'lora_path' must be provided.");
  }
  if (IsServedName(api, order.name)) {
    return FailParam(Code::kInvalidArgument, "lora_name", "'{}' is the name of the model itself",
                     Excerpt(order.name));
  }
  return order;
}

// A folder that is missing is a 404 here, as in vLLM and in prime-rl, whose clients try again then.
Status Give(Api& api, WeightOrder order, const WriterPtr& writer, http::Response answer) {
  api.session.engine().Control({.kind = engine::ControlKind::kWeights, .weights = std::move(order)},
                               [writer, answer = std::move(answer)](Result<ControlState> state) {
                                 try {
                                   if (state) return writer->Send(answer);
                                   Error error = std::move(state).error();
                                   if (error.code == Code::kDataLoss) error.code = Code::kInvalidArgument;
                                   writer->Send(ErrorResponse(error));
                                 } catch (...) {
                                   writer->Send(ErrorResponse(CaughtError()));
                                 }
                               });
  return {};
}

http::Response Plain(std::string text) {
  return {200, "text/plain; charset=utf-8", {}, std::move(text)};
}

}  // namespace

Status LoadLoraAdapter(Api& api, const http::Request& request, const WriterPtr& writer) {
  CADRE_TRY(CheckOpen(api, true));
  CADRE_ASSIGN(WeightOrder order, LoadOrder(api, request));
  const std::string said = Format("Success: LoRA adapter '{}' added successfully.", order.name);
  return Give(api, std::move(order), writer, Plain(said));
}

Status LoadLoraInPlace(Api& api, const http::Request& request, const WriterPtr& writer) {
  CADRE_TRY(CheckOpen(api, false));
  CADRE_ASSIGN(WeightOrder order, LoadOrder(api, request));
  order.in_place = true;
  return Give(api, std::move(order), writer, {200, "application/json", {}, R"({"status":"ok"})"});
}

Status UnloadLoraAdapter(Api& api, const http::Request& request, const WriterPtr& writer) {
  CADRE_TRY(CheckOpen(api, true));
  CADRE_ASSIGN(const Json body, BodyOf(api, request, kUnloadFields));
  WeightOrder order{.kind = WeightOrder::Kind::kUnloadAdapter,
                    .timeout_s = kTimeoutSeconds,
                    .name = GetString(body, "lora_name")};
  if (order.name.empty()) {
    return FailParam(Code::kInvalidArgument, "lora_name",
                     "'lora_name' needs to be provided to unload a LoRA adapter.");
  }
  const std::string said = Format("Success: LoRA adapter '{}' removed successfully.", order.name);
  return Give(api, std::move(order), writer, Plain(said));
}

}  // namespace cadre::serve
