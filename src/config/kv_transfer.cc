#include "config/kv_transfer.h"

#include <utility>

namespace cadre::config {
namespace {

constexpr std::string_view kFlag = "--kv-transfer-config";
constexpr double kMaxSeconds = 1e6;

std::string Member(std::string_view key) {
  return Format("{}.{}", kFlag, key);
}

Status CheckConnector(const KvTransferOptions& kv) {
  const std::string flag = Member("kv_connector");
  if (kv.connector.empty()) {
    return FailParam(Code::kInvalidArgument, flag,
                     "{} is not there; write '{{\"kv_connector\":\"NixlConnector\","
                     "\"kv_role\":\"kv_both\"}}'",
                     flag);
  }
  if (kv.connector != "NixlConnector" && kv.connector != "P2pNcclConnector") {
    return FailParam(Code::kUnsupported, flag,
                     "{} {} is not built; use NixlConnector, or P2pNcclConnector where pairs meet by "
                     "their request id",
                     flag, Excerpt(kv.connector));
  }
  if (kv.role.empty()) {
    return FailParam(Code::kInvalidArgument, Member("kv_role"),
                     "Please specify kv_role when kv_connector is set, supported roles are kv_producer, "
                     "kv_consumer, kv_both");
  }
  return {};
}

// The names are of NIXL's plug-ins.
Status NoteBackends(const Json& backends, std::vector<Notice>& notices) {
  const std::string flag = Member("kv_connector_extra_config.backends");
  std::string names;
  if (!backends.is_array() && !backends.is_string())
    return FailParam(Code::kInvalidArgument, flag, "{} must be a list of names, found {}", flag,
                     backends.TypeName());
  if (backends.is_string()) names = Excerpt(backends.AsString());
  for (const Json& name : backends.is_array() ? backends.AsArray() : Json::Array()) {
    if (!name.is_string())
      return FailParam(Code::kInvalidArgument, flag, "{} must be a list of names, found {} in it", flag,
                       name.TypeName());
    names += (names.empty() ? "" : ", ") + Excerpt(name.AsString());
  }
  if (!names.empty()) {
    notices.push_back({false, Format("{}: {} not used; KV blocks travel through shared memory within a host "
                                     "and over TCP between hosts",
                                     flag, names)});
  }
  return {};
}

Status TakeExtra(const Settlement& settled, KvTransferOptions& kv, std::vector<Notice>& notices) {
  if (kv.extra.is_null()) return {};
  for (const auto& [key, value] : kv.extra.AsObject()) {
    const std::string flag = Member("kv_connector_extra_config." + key);
    if (key == "backends") {
      CADRE_TRY(NoteBackends(value, notices));
    } else if (key == "kv_lease_duration") {
      if (!value.is_number())
        return FailParam(Code::kInvalidArgument, flag, "{} must be a number of seconds, found {}", flag,
                         value.TypeName());
      const Given* config = settled.Find("kv-transfer-config");
      if (config != nullptr && config->value.Find("kv_lease_duration") != nullptr)
        return FailParam(Code::kInvalidArgument, flag, "{} and {} are one setting; give one of them", flag,
                         Member("kv_lease_duration"));
      kv.lease_s = value.AsDouble();
    } else if (key == "max_bytes_per_second") {
      if (!value.is_number() || !(value.AsDouble() >= 1e4 && value.AsDouble() <= 1e12))
        return FailParam(Code::kInvalidArgument, flag, "{} must be a number from 1e4 to 1e12, found {}", flag,
                         Excerpt(value.Dump()));
      kv.max_bytes_per_s = value.AsDouble();
    } else if (key == "bidirectional") {
      if (!value.is_bool())
        return FailParam(Code::kInvalidArgument, flag, "{} must be true or false, found {}", flag,
                         value.TypeName());
      kv.bidirectional = value.AsBool();
    } else {
      notices.push_back({false, Format("{}: no effect here", Excerpt(flag))});
    }
  }
  return {};
}

}  // namespace

Status SettleKvTransfer(const Settlement& settled, KvTransferOptions& kv, std::vector<Notice>& notices) {
  const Given* config = settled.Find("kv-transfer-config");
  if (config == nullptr || !config->value.is_object() || config->value.AsObject().empty()) return {};
  CADRE_TRY(CheckConnector(kv));
  if (config->value.Find("kv_connector_module_path") != nullptr) {
    return FailParam(Code::kUnsupported, Member("kv_connector_module_path"),
                     "{}: no Python is run; NixlConnector and P2pNcclConnector are built in",
                     Member("kv_connector_module_path"));
  }
  if (kv.port > 65535)
    return FailParam(Code::kInvalidArgument, Member("kv_port"), "kv_port must be at most 65535, got {}",
                     kv.port);
  for (const char* key : {"kv_buffer_size", "kv_rank", "kv_parallel_size", "enable_permute_local_kv"}) {
    if (config->value.Find(key) != nullptr)
      notices.push_back({false, Format("{}: no effect here", Member(key))});
  }
  if (const Json* device = config->value.Find("kv_buffer_device"); device && *device == Json("cuda")) {
    notices.push_back({false, Format("{} cuda: no effect here; blocks lie in the host's memory",
                                     Member("kv_buffer_device"))});
  }
  CADRE_TRY(TakeExtra(settled, kv, notices));
  if (!(kv.lease_s >= 0.1 && kv.lease_s <= kMaxSeconds)) {
    return FailParam(Code::kInvalidArgument, Member("kv_lease_duration"),
                     "kv_lease_duration must be between 0.1 and {:.0f} seconds, got {}", kMaxSeconds,
                     kv.lease_s);
  }
  return {};
}

}  // namespace cadre::config
