// Every back end over several hosts against the reference, bit by bit: ranks are threads that share memory
// only with those of their host.
#include <gmock/gmock.h>

#include "a2a/a2a.h"
#include "a2a/exchange_testing.h"

namespace cadre::a2a {
namespace {

using namespace test;

const std::vector<std::vector<int>> kLayouts = {{1, 1}, {2, 1}, {1, 1, 1}, {2, 2},       {1, 3},
                                                {4, 1}, {4, 4}, {3, 1, 4}, {1, 1, 1, 1}, {1, 2, 2}};

void RunOver(Case c, const std::vector<int>& hosts, const std::string& link = "loop") {
  c.hosts = hosts;
  c.ranks = std::accumulate(hosts.begin(), hosts.end(), 0);
  fabric::RunHosts(hosts, link, [&](fabric::Rendezvous& r) { RunRank(c, r); });
}

TEST(Hosts, EveryBackendEqualsTheReferenceOverLayoutsLoadsAndTypes) {
  for (const char* backend : kBackends) {
    for (const auto& hosts : kLayouts) {
      for (const Load load : kLoads) {
        for (const bool sharded : {false, true}) {
          for (const DType type : {DType::kBf16, DType::kF32}) {
            Case c;
            c.backend = backend;
            c.load = load;
            c.sharded = sharded;
            c.type = type;
            c.hidden = load == Load::kFull ? 1301 : 47;  // odd: nothing is aligned by chance
            c.chunk_rows = type == DType::kF32 ? 4 : 0;
            c.first_round = 0xFFFFFFFE;
            c.rounds = 3;
            RunOver(c, hosts);
            if (testing::Test::HasFailure()) return;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace cadre::a2a
