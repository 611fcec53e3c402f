#pragma once
// The devices that move or compute: network interfaces, RDMA devices and GPUs, as /sys shows them, and how
// far they are from each other. `root` stands before each path ("" in use; a folder in tests).
//
// Nothing here opens a device or loads a driver's library, so it is safe on any machine, and a device that
// its library would hide is still seen.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cadre::sys {

/// Where a device hangs on the PCI tree.
struct PciPlace {
  std::vector<std::string> chain;  ///< root complex ("pci0000:00"), bridges, the function itself; empty: none
  int numa_node = -1;              ///< -1: unknown
};

/// How far two devices are apart, nearest first; the words are those of `nvidia-smi topo -m`.
enum class PciDistance : uint8_t {
  kSame,     ///< X: one device
  kBridge,   ///< PIX: one PCI bridge between them
  kBridges,  ///< PXB: several bridges, but not the CPU's own
  kHost,     ///< PHB: through the CPU's PCI host bridge
  kNode,     ///< NODE: through another host bridge of the same NUMA node
  kSystem,   ///< SYS: through the link between NUMA nodes, or unknown
};
const char* PciDistanceName(PciDistance distance);
PciDistance DistanceOf(const PciPlace& a, const PciPlace& b);

struct NetworkDevice {
  std::string name;
  std::string driver;      ///< "" for a virtual one
  std::string state;       ///< the kernel's operstate: "up", "down", "unknown"
  int64_t speed_mbps = 0;  ///< 0: the driver does not say
  int64_t mtu = 0;
  bool loopback = false;
  PciPlace place;
};

/// Interfaces, up or not, by name.
std::vector<NetworkDevice> ListNetworkDevices(const std::string& root = "");

struct RdmaPort {
  int number = 1;
  std::string state;       ///< "ACTIVE", "DOWN", ...
  std::string link_layer;  ///< "InfiniBand", "Ethernet" (RoCE), "Unspecified" (EFA)
  double gbit = 0;         ///< 0: unknown
};

struct RdmaDevice {
  std::string name;    ///< "mlx5_0", "rdmap0s6"
  std::string driver;  ///< "mlx5_core", "efa"
  std::vector<RdmaPort> ports;
  std::vector<std::string> interfaces;  ///< network interfaces of the same PCI function
  PciPlace place;

  bool efa() const { return driver == "efa"; }
  bool active() const;
};

/// RDMA devices (InfiniBand, RoCE, EFA), by name.
std::vector<RdmaDevice> ListRdmaDevices(const std::string& root = "");

struct Gpu {
  std::string address;  ///< PCI address
  std::string vendor;   ///< "NVIDIA", "AMD", "Intel"
  std::string device;   ///< the PCI device id, "0x2330"
  std::string driver;   ///< "" if none is bound
  PciPlace place;
};

/// Accelerators and graphics cards of NVIDIA and AMD, and Intel's accelerators, by PCI address.
std::vector<Gpu> ListGpus(const std::string& root = "");

}  // namespace cadre::sys
