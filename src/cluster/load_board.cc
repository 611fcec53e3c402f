#include "cluster/load_board.h"

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <bit>

namespace cadre::cluster {
namespace {

constexpr uint64_t kMagic = 0x4452414F42444143;           // "CADBOARD"
constexpr size_t kLine = 64 / sizeof(int64_t);            // a front's cells of one rank have a cache line
constexpr int64_t kMinBlocks = 1024, kMaxBlocks = 65536;  // of a rank's table of blocks
constexpr int64_t kAllBlocks = int64_t{8} << 20;          // of all tables: 64 MiB, touched only where used
constexpr int kMaxFronts = 4096, kMaxRanks = 65536;

template <typename T>
std::atomic_ref<T> Atomic(T* cell) {
  static_assert(std::atomic_ref<T>::is_always_lock_free);
  return std::atomic_ref<T>(*cell);
}

}  // namespace

struct LoadBoard::Header {
  uint64_t magic;
  int64_t num_fronts, num_ranks, blocks_per_rank;
  uint64_t turn;
  uint64_t unused[3];

  size_t cells_bytes() const { return static_cast<size_t>(num_fronts * num_ranks) * 64; }
  size_t bytes() const {
    return sizeof(Header) + cells_bytes() + static_cast<size_t>(num_ranks * blocks_per_rank) * 8;
  }
  bool sane() const {
    return magic == kMagic && num_fronts >= 1 && num_fronts <= kMaxFronts && num_ranks >= 1 &&
           num_ranks <= kMaxRanks && blocks_per_rank >= 1 && blocks_per_rank <= kMaxBlocks &&
           std::has_single_bit(static_cast<uint64_t>(blocks_per_rank));
  }
};

Result<std::shared_ptr<LoadBoard>> LoadBoard::Create(const BoardShape& shape) {
  // Twice the rank's blocks: of a full table one in e slots would be free, and as many blocks displaced.
  const int64_t wanted = std::clamp(2 * shape.num_kv_blocks, kMinBlocks, kMaxBlocks);
  const int64_t fair = std::max<int64_t>(kAllBlocks / std::max(shape.num_ranks, 1), 1);
  const auto blocks = static_cast<int64_t>(
      std::min(std::bit_ceil(static_cast<uint64_t>(wanted)), std::bit_floor(static_cast<uint64_t>(fair))));
  const Header header{.magic = kMagic,
                      .num_fronts = shape.num_fronts,
                      .num_ranks = shape.num_ranks,
                      .blocks_per_rank = std::min(blocks, kMaxBlocks),
                      .turn = 0,
                      .unused = {}};
  if (!header.sane()) {
    return Fail(Code::kInvalidArgument, "no load board for {} fronts and {} ranks", shape.num_fronts,
                shape.num_ranks);
  }
  CADRE_ASSIGN(sys::Segment segment, sys::CreateSegment("cadre-load", header.bytes(), false));
  std::shared_ptr<LoadBoard> board(new LoadBoard(std::move(segment)));
  board->header() = header;
  return board;
}

Result<std::shared_ptr<LoadBoard>> LoadBoard::Map(sys::Fd fd) {
  struct stat info = {};
  if (fstat(fd.get(), &info) != 0 || info.st_size < static_cast<off_t>(sizeof(Header))) {
    return Fail(Code::kDataLoss, "the descriptor is no load board");
  }
  const auto bytes = static_cast<size_t>(info.st_size);
  CADRE_ASSIGN(sys::Region region, sys::MapSegment(fd.get(), bytes, sys::Access::kReadWrite));
  std::shared_ptr<LoadBoard> board(new LoadBoard({std::move(fd), std::move(region)}));
  if (!board->header().sane() || board->header().bytes() > bytes) {
    return Fail(Code::kDataLoss, "the descriptor is no load board of this build");
  }
  return board;
}

LoadBoard::Header& LoadBoard::header() const {
  return *reinterpret_cast<Header*>(segment_.region.data());
}

int64_t* LoadBoard::Cell(int front, int rank) const {
  auto* cells = reinterpret_cast<int64_t*>(segment_.region.data() + sizeof(Header));
  return cells +
         (static_cast<size_t>(rank) * static_cast<size_t>(header().num_fronts) + static_cast<size_t>(front)) *
             kLine;
}

uint64_t* LoadBoard::Block(int rank, uint64_t block) const {
  const auto per_rank = static_cast<uint64_t>(header().blocks_per_rank);
  auto* blocks =
      reinterpret_cast<uint64_t*>(segment_.region.data() + sizeof(Header) + header().cells_bytes());
  return blocks + static_cast<uint64_t>(rank) * per_rank +
         ((block >> 1) & (per_rank - 1));  // all names are odd
}

int LoadBoard::num_fronts() const {
  return static_cast<int>(header().num_fronts);
}
int LoadBoard::num_ranks() const {
  return static_cast<int>(header().num_ranks);
}

LoadBoard::Load LoadBoard::Of(int rank) const {
  Load all;
  for (int front = 0; front < num_fronts(); ++front) {
    int64_t* cell = Cell(front, rank);
    all.requests += Atomic(cell).load(std::memory_order_relaxed);
    all.work += Atomic(cell + 1).load(std::memory_order_relaxed);
  }
  return {std::max<int64_t>(all.requests, 0), std::max<int64_t>(all.work, 0)};
}

void LoadBoard::Add(int front, int rank, const Load& more) {
  int64_t* cell = Cell(front, rank);
  Atomic(cell).fetch_add(more.requests, std::memory_order_relaxed);
  Atomic(cell + 1).fetch_add(more.work, std::memory_order_relaxed);
}

void LoadBoard::ClearFront(int front) {
  for (int rank = 0; rank < num_ranks(); ++rank) {
    Atomic(Cell(front, rank)).store(0, std::memory_order_relaxed);
    Atomic(Cell(front, rank) + 1).store(0, std::memory_order_relaxed);
  }
}

void LoadBoard::RememberBlock(int rank, uint64_t block) {
  Atomic(Block(rank, block)).store(block, std::memory_order_relaxed);
}

bool LoadBoard::HoldsBlock(int rank, uint64_t block) const {
  return Atomic(Block(rank, block)).load(std::memory_order_relaxed) == block;
}

void LoadBoard::ForgetBlocks() {
  uint64_t* first = Block(0, 0);
  const auto all = static_cast<size_t>(header().num_ranks * header().blocks_per_rank);
  for (size_t i = 0; i < all; ++i) {
    // Reading first keeps pages that were never used out of memory.
    if (Atomic(first + i).load(std::memory_order_relaxed) != 0)
      Atomic(first + i).store(0, std::memory_order_relaxed);
  }
}

uint64_t LoadBoard::NextTurn() {
  return Atomic(&header().turn).fetch_add(1, std::memory_order_relaxed);
}

}  // namespace cadre::cluster
