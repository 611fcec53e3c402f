#pragma once
// The UCX that is installed, loaded when it is first wanted and not linked: a machine without it runs Cadre,
// and one that has it is spared its start-up work and its signal handlers where nothing uses it.
#include <string>
#include <vector>

#include "base/error.h"

namespace cadre::fabric {

class UcxLibrary {
 public:
  /// `purpose` begins the message: "hosts cannot be linked by UCX". Errors: kUnsupported.
  static Result<UcxLibrary> Open(std::string purpose);

  /// Finds a function of libucp or of what it is made of.
  template <typename Function>
  UcxLibrary& Get(Function*& function, const char* name) {
    function = reinterpret_cast<Function*>(Find(name));
    return *this;
  }
  /// Whether all that was looked for is there. Errors: kUnsupported, with the name of what is not.
  Status Complete() const;

 private:
  UcxLibrary(std::string purpose, void* library) : purpose_(std::move(purpose)), library_(library) {}
  void* Find(const char* name);

  std::string purpose_;
  void* library_;
  std::string missing_;
};

/// The network devices that have these addresses, as UCX wants them listed; "" if one is not found.
std::string NetworkDevicesOf(const std::vector<std::string>& addresses);

}  // namespace cadre::fabric
