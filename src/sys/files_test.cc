#include "sys/files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>

namespace cadre::sys {
namespace {

class ReplacedFile : public testing::Test {
 protected:
  ReplacedFile() {
    std::string pattern = (std::filesystem::temp_directory_path() / "cadre_XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~ReplacedFile() override { std::filesystem::remove_all(folder_); }
  std::string folder_;
};

TEST_F(ReplacedFile, AFileIsReplacedWholeAndNothingStaysBeside) {
  const std::string path = folder_ + "/a";
  ASSERT_TRUE(ReplaceFile(path, "first"));
  EXPECT_EQ(*ReadFile(path, 100), "first");
  ASSERT_TRUE(ReplaceFile(path, ""));
  EXPECT_EQ(*ReadFile(path, 100), "");
  EXPECT_EQ(ListFolder(folder_)->size(), 1u);
}

TEST_F(ReplacedFile, WhatCannotBeWrittenLeavesTheOldFile) {
  const std::string path = folder_ + "/a";
  ASSERT_TRUE(ReplaceFile(path, "old"));
  // As a disk that is full in the middle of it.
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const Status written = ReplaceFile(path, std::string(10000, 'x'));
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  ASSERT_FALSE(written);
  EXPECT_NE(written.error().message.find(path), std::string::npos);
  EXPECT_EQ(*ReadFile(path, 100), "old");
  EXPECT_EQ(ListFolder(folder_)->size(), 1u);
  EXPECT_FALSE(ReplaceFile(folder_ + "/none/a", "x"));
  EXPECT_FALSE(ReplaceFile("/dev/null", "x"));
  struct stat info;
  ASSERT_EQ(stat("/dev/null", &info), 0);
  EXPECT_TRUE(S_ISCHR(info.st_mode));
}

}  // namespace
}  // namespace cadre::sys
