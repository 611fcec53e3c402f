#pragma once
// What the parent and its acceptors (API server processes) say to each other, over a Unix socket. The parent
// may ask an acceptor for its part of the figures, and an acceptor the parent for everybody else's.
#include <cstdint>

namespace cadre::deploy {

constexpr int kAcceptorControlFd = 3;   ///< in the child: the socket to the parent
constexpr int kAcceptorListenerFd = 4;  ///< in the child: the listening socket, which all share
constexpr int kAcceptorPeersFd = 5;     ///< in the child: PeerConnections

enum AcceptorFrame : uint32_t {
  // to the acceptor
  kStarting = 1,   ///< text: why the port is not ready
  kBoard,          ///< descriptor of the load board
  kLinks,          ///< u32 count, i32 each: ranks; a descriptor for each
  kServe,          ///< all links have been sent
  kPartWanted,     ///< u64 ticket
  kPartsOfOthers,  ///< u64 ticket, u32 count, parts
  kFailed,         ///< text: why the deployment is over
  kStop,           ///< i64 milliseconds until what still runs is aborted
  // from it
  kOpened = 64,  ///< text: the address
  kNotOpened,    ///< i32 code, text message, text parameter
  kServing,      ///< empty
  kNotServing,   ///< as kNotOpened
  kPart,         ///< u64 ticket, a part: i64 requests in flight, text metrics
  kPartsWanted   ///< u64 ticket
};

constexpr uint32_t kMaxLinksPerFrame = 200;  // sys::kMaxFrameFds is more
constexpr unsigned kMaxAcceptorFrame = 256u << 20;

}  // namespace cadre::deploy
