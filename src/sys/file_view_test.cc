#include "sys/file_view.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <thread>
#include <vector>

#include "sys/fd.h"

namespace cadre::sys {
namespace {

constexpr int64_t kMiB = 1 << 20;

class Views : public testing::Test {
 protected:
  Views() {
    std::string pattern = testing::TempDir() + "/view_XXXXXX";
    fd_ = Fd(mkstemp(pattern.data()));
    unlink(pattern.c_str());
    const std::vector<char> bytes(kMiB, 'a');
    EXPECT_EQ(write(fd_.get(), bytes.data(), bytes.size()), kMiB);
  }
  Fd fd_;
};

TEST_F(Views, WhatIsInMemoryIsShown) {
  const FileView view = *FileView::Map(fd_.get(), kMiB);
  const std::byte* all = view.Cached(0, kMiB);
  if (all == nullptr) GTEST_SKIP() << "this file system does not say what is in memory";
  EXPECT_TRUE(std::all_of(all, all + kMiB, [](std::byte b) { return b == std::byte{'a'}; }));
  EXPECT_EQ(view.Cached(7, 100), all + 7);
  EXPECT_EQ(view.Cached(kMiB - 1, 2), nullptr);  // past the end
  EXPECT_EQ(view.Cached(5, 0), nullptr);
  EXPECT_TRUE(view.whole());
  EXPECT_EQ(FileView().Cached(0, 1), nullptr);
  EXPECT_TRUE(FileView().whole());
}

TEST_F(Views, AFileThatIsCutShowsZerosAndIsNotWhole) {
  FileView first = *FileView::Map(fd_.get(), kMiB);
  const FileView second = *FileView::Map(fd_.get(), kMiB);
  const std::byte* all = first.Cached(0, kMiB);
  if (all == nullptr) GTEST_SKIP() << "this file system does not say what is in memory";
  ASSERT_EQ(ftruncate(fd_.get(), kMiB / 2), 0);
  EXPECT_EQ(second.Cached(kMiB / 2, 100), nullptr);
  std::vector<std::jthread> lookers;
  for (int i = 0; i < 4; ++i) {
    lookers.emplace_back([all] {
      EXPECT_EQ(all[kMiB / 2 - 1], std::byte{'a'});
      EXPECT_TRUE(std::all_of(all + kMiB / 2, all + kMiB, [](std::byte b) { return b == std::byte{0}; }));
    });
  }
  lookers.clear();
  EXPECT_FALSE(first.whole());
  EXPECT_FALSE(second.whole());
  const FileView moved = std::move(first);
  // As long as before: the size says nothing any more, but what was seen was missing.
  ASSERT_EQ(ftruncate(fd_.get(), kMiB), 0);
  EXPECT_FALSE(moved.whole());
  EXPECT_TRUE(second.whole());
}

// A page that holds the last byte shows zeros behind it, and no signal comes.
TEST_F(Views, ACutInsideTheLastPageIsNoticed) {
  const FileView view = *FileView::Map(fd_.get(), kMiB);
  ASSERT_EQ(ftruncate(fd_.get(), kMiB - 10), 0);
  EXPECT_FALSE(view.whole());
}

TEST_F(Views, OthersFaultsEndTheProcessStill) {
  const auto fault = [this] {
    const FileView view = *FileView::Map(fd_.get(), kMiB);
    auto* place = static_cast<volatile char*>(mmap(nullptr, kMiB, PROT_READ, MAP_SHARED, fd_.get(), 0));
    if (ftruncate(fd_.get(), 0) == 0) (void)place[kMiB / 2];
  };
  EXPECT_DEATH(fault(), "");
}

}  // namespace
}  // namespace cadre::sys
