#include "sys/file_view.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <utility>

#include "base/check.h"

namespace cadre::sys {
namespace {

// What the handler knows: no locks, no memory of the heap.
struct Slot {
  std::atomic<uintptr_t> begin = 0, end = 0;  // begin 0: free
  std::atomic<bool> cut = false;
};
std::array<Slot, 4096> slots;
std::mutex claiming;
struct sigaction earlier;

void PassOn(int number, siginfo_t* info, void* context) {
  if ((earlier.sa_flags & SA_SIGINFO) != 0 && earlier.sa_sigaction != nullptr)
    return earlier.sa_sigaction(number, info, context);
  if (earlier.sa_handler != SIG_DFL && earlier.sa_handler != SIG_IGN) return earlier.sa_handler(number);
  signal(SIGBUS, SIG_DFL);  // the access happens again, and ends the process as it should
}

void OnBusError(int number, siginfo_t* info, void* context) {
  const int error = errno;
  const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Slot& slot : slots) {
    const uintptr_t begin = slot.begin.load(), end = slot.end.load();
    if (begin == 0 || at < begin || at >= end) continue;
    slot.cut = true;
    const uintptr_t page = at & ~static_cast<uintptr_t>(sysconf(_SC_PAGESIZE) - 1);
    void* const zeros = mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    errno = error;
    if (zeros != MAP_FAILED) return;
    break;
  }
  PassOn(number, info, context);
}

void SetHandler() {
  struct sigaction action {};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  CADRE_CHECK(sigaction(SIGBUS, &action, &earlier) == 0);
}

int Claim(uintptr_t begin, uintptr_t end) {
  static std::once_flag once;
  std::call_once(once, SetHandler);
  const std::lock_guard lock(claiming);
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].begin.load() != 0) continue;
    slots[i].cut = false;
    slots[i].end = end;
    slots[i].begin = begin;
    return static_cast<int>(i);
  }
  return -1;
}

bool InMemory(int fd, int64_t at) {
  char byte = 0;
  iovec to{&byte, 1};
  return preadv2(fd, &to, 1, at, RWF_NOWAIT) == 1;
}

}  // namespace

FileView::FileView(FileView&& other) noexcept {
  *this = std::move(other);
}

FileView& FileView::operator=(FileView&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(slot_, other.slot_);
  std::swap(data_, other.data_);
  std::swap(num_bytes_, other.num_bytes_);
  return *this;
}

FileView::~FileView() {
  if (data_ == nullptr) return;
  slots[static_cast<size_t>(slot_)].begin = 0;
  munmap(const_cast<std::byte*>(data_), static_cast<size_t>(num_bytes_));
}

Result<FileView> FileView::Map(int fd, int64_t num_bytes) {
  FileView view;
  if (num_bytes <= 0) return view;
  void* const place = mmap(nullptr, static_cast<size_t>(num_bytes), PROT_READ, MAP_SHARED, fd, 0);
  if (place == MAP_FAILED) return Fail(Code::kUnavailable, "cannot map a file: {}", strerror(errno));
  const auto begin = reinterpret_cast<uintptr_t>(place);
  view.slot_ = Claim(begin, begin + static_cast<uintptr_t>(num_bytes));
  if (view.slot_ < 0) {
    munmap(place, static_cast<size_t>(num_bytes));
    return Fail(Code::kUnavailable, "cannot map a file: {} are mapped already", slots.size());
  }
  view.fd_ = fd;
  view.data_ = static_cast<const std::byte*>(place);
  view.num_bytes_ = num_bytes;
  return view;
}

const std::byte* FileView::Cached(int64_t begin, int64_t num_bytes) const {
  CADRE_CHECK(begin >= 0 && num_bytes >= 0);
  if (data_ == nullptr || num_bytes == 0 || begin + num_bytes > num_bytes_) return nullptr;
  return InMemory(fd_, begin) && InMemory(fd_, begin + num_bytes - 1) ? data_ + begin : nullptr;
}

bool FileView::whole() const {
  if (data_ == nullptr) return true;
  struct stat info {};
  return !slots[static_cast<size_t>(slot_)].cut && fstat(fd_, &info) == 0 && info.st_size >= num_bytes_;
}

}  // namespace cadre::sys
