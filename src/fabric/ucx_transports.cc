#include "fabric/ucx_transports.h"

#include <dlfcn.h>
#include <uct/api/uct.h>

#include <memory>

#include "base/format.h"

namespace cadre::fabric {
namespace {

// What is used of libuct, UCX's lower layer, which alone can list its transports; and of libucp.
struct Uct {
  decltype(&uct_query_components) query_components;
  decltype(&uct_release_component_list) release_component_list;
  decltype(&uct_component_query) component_query;
  decltype(&uct_md_config_read) md_config_read;
  decltype(&uct_config_release) config_release;
  decltype(&uct_md_open) md_open;
  decltype(&uct_md_close) md_close;
  decltype(&uct_md_query_tl_resources) query_tl_resources;
  decltype(&uct_release_tl_resource_list) release_tl_resource_list;
  const char* (*version_string)();
};

Result<Uct> Load() {
  void* ucp = dlopen("libucp.so.0", RTLD_NOW | RTLD_LOCAL);
  void* library = ucp == nullptr ? nullptr : dlopen("libuct.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return Fail(Code::kUnsupported, "UCX is not installed ({})", dlerror());
  Uct uct = {};
  const char* missing = nullptr;
  const auto get = [&](void* from, auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(from, name));
    if (function == nullptr) missing = name;
  };
  get(library, uct.query_components, "uct_query_components");
  get(library, uct.release_component_list, "uct_release_component_list");
  get(library, uct.component_query, "uct_component_query");
  get(library, uct.md_config_read, "uct_md_config_read");
  get(library, uct.config_release, "uct_config_release");
  get(library, uct.md_open, "uct_md_open");
  get(library, uct.md_close, "uct_md_close");
  get(library, uct.query_tl_resources, "uct_md_query_tl_resources");
  get(library, uct.release_tl_resource_list, "uct_release_tl_resource_list");
  get(ucp, uct.version_string, "ucp_get_version_string");
  if (missing != nullptr) return Fail(Code::kUnsupported, "the UCX that is installed has no {}", missing);
  return uct;
}

void AddDomain(const Uct& uct, uct_component_h component, const char* name, std::vector<UcxTransport>& to) {
  uct_md_config_t* config = nullptr;
  if (uct.md_config_read(component, nullptr, nullptr, &config) != UCS_OK) return;
  uct_md_h domain = nullptr;
  const ucs_status_t opened = uct.md_open(component, name, config, &domain);
  uct.config_release(config);
  if (opened != UCS_OK) return;  // its device is not there, or may not be used
  uct_tl_resource_desc_t* resources = nullptr;
  unsigned count = 0;
  if (uct.query_tl_resources(domain, &resources, &count) == UCS_OK) {
    for (unsigned i = 0; i < count; ++i) {
      to.push_back({.transport = resources[i].tl_name,
                    .device = resources[i].dev_name,
                    .network = resources[i].dev_type == UCT_DEVICE_TYPE_NET});
    }
    uct.release_tl_resource_list(resources);
  }
  uct.md_close(domain);
}

void AddComponent(const Uct& uct, uct_component_h component, std::vector<UcxTransport>& to) {
  uct_component_attr_t attributes = {};
  attributes.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCE_COUNT;
  if (uct.component_query(component, &attributes) != UCS_OK) return;
  std::vector<uct_md_resource_desc_t> domains(attributes.md_resource_count);
  if (domains.empty()) return;
  attributes.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCES;
  attributes.md_resources = domains.data();
  if (uct.component_query(component, &attributes) != UCS_OK) return;
  for (const uct_md_resource_desc_t& domain : domains) AddDomain(uct, component, domain.md_name, to);
}

}  // namespace

Result<UcxInfo> ListUcxTransports() {
  CADRE_ASSIGN(const Uct uct, Load());
  UcxInfo info{.version = uct.version_string(), .transports = {}};
  uct_component_h* components = nullptr;
  unsigned count = 0;
  if (const ucs_status_t status = uct.query_components(&components, &count); status != UCS_OK) {
    return Fail(Code::kUnsupported, "UCX {} cannot list its parts (status {})", info.version,
                static_cast<int>(status));
  }
  for (unsigned i = 0; i < count; ++i) AddComponent(uct, components[i], info.transports);
  uct.release_component_list(components);
  return info;
}

}  // namespace cadre::fabric
