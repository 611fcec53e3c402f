#pragma once
// What the brokers of several hosts say to each other goes over the connections of their parents, which
// another room holds (group/host_group.h).
#include <string>
#include <vector>

namespace cadre::fabric {

class Uplink {
 public:
  virtual ~Uplink() = default;
  /// Sends to the brokers of other hosts (Broker::Deliver). From any thread; does not wait. What one host
  /// sends arrives everywhere in causal order: nobody sees an answer before what it answers.
  virtual void Send(const std::vector<int>& hosts, const std::string& message) = 0;
};

}  // namespace cadre::fabric
