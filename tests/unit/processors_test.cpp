// Thread counts on systems that are made up: files below a directory instead of /proc and /sys.
#include "base/processors.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>

#include "support/temporary_directory.h"

namespace kvcast {
namespace {

class Processors : public testing::Test {
 protected:
  static std::vector<int> first(int count) {
    std::vector<int> processors(static_cast<size_t>(count));
    std::iota(processors.begin(), processors.end(), 0);
    return processors;
  }
  int available(int count) const { return available_processors(first(count), root_.path()); }
  /// An Intel hybrid: `cores` performance cores of two threads each, then `small` of one.
  void write_hybrid(int cores, int small) const {
    const int threads = 2 * cores;
    root_.write("sys/devices/cpu_core/cpus", "0-" + std::to_string(threads - 1) + "\n");
    root_.write("sys/devices/cpu_atom/cpus",
                std::to_string(threads) + "-" + std::to_string(threads + small - 1) + "\n");
    for (int i = 0; i < threads + small; ++i) {
      const std::string pair = std::to_string(i / 2 * 2) + "-" + std::to_string(i / 2 * 2 + 1);
      root_.write(
          "sys/devices/system/cpu/cpu" + std::to_string(i) + "/topology/thread_siblings_list",
          (i < threads ? pair : std::to_string(i)) + "\n");
    }
  }
  void write_capacities(const std::vector<int>& capacities) const {
    for (size_t i = 0; i < capacities.size(); ++i) {
      root_.write("sys/devices/system/cpu/cpu" + std::to_string(i) + "/cpu_capacity",
                  std::to_string(capacities[i]) + "\n");
    }
  }

  TemporaryDirectory root_;
};

TEST_F(Processors, AreThoseAllowedWhereTheSystemSaysNothing) {
  EXPECT_EQ(available(1), 1);
  EXPECT_EQ(available(12), 12);
  EXPECT_EQ(available_processors({}, root_.path()), 1);
}

TEST_F(Processors, AQuotaIsRoundedUp) {
  root_.write("proc/self/cgroup", "0::/\n");
  for (const auto& [quota, expected] : {std::pair{"150000 100000", 2},
                                        {"100000 100000", 1},
                                        {"20000 100000", 1},
                                        {"350000 100000", 4},
                                        {"900000 100000", 8},
                                        {"max 100000", 8}}) {
    root_.write("sys/fs/cgroup/cpu.max", std::string(quota) + "\n");
    EXPECT_EQ(available(8), expected) << quota;
  }
}

TEST_F(Processors, TheTightestOfNestedGroupsCounts) {
  root_.write("proc/self/cgroup", "0::/user.slice/tool.scope\n");
  root_.write("sys/fs/cgroup/user.slice/cpu.max", "300000 100000\n");
  root_.write("sys/fs/cgroup/user.slice/tool.scope/cpu.max", "max 100000\n");
  EXPECT_EQ(available(8), 3);
  root_.write("sys/fs/cgroup/user.slice/tool.scope/cpu.max", "200000 100000\n");
  EXPECT_EQ(available(8), 2);
  root_.write("sys/fs/cgroup/cpu.max", "50000 100000\n");
  EXPECT_EQ(available(8), 1);
}

TEST_F(Processors, AContainerThatSeesTheHostsPathHasItsGroupAtTheMount) {
  root_.write("proc/self/cgroup", "0::/system.slice/docker-1234.scope\n");
  root_.write("sys/fs/cgroup/cpu.max", "200000 100000\n");
  EXPECT_EQ(available(8), 2);
}

TEST_F(Processors, VersionOneHasTheQuotaInTwoFiles) {
  root_.write("proc/self/cgroup",
              "12:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n3:cpuset:/\n0::/docker/1\n");
  root_.write("sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "250000\n");
  root_.write("sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(available(8), 3);
  root_.write("sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(available(8), 8);
}

TEST_F(Processors, OfAHybridAreItsPerformanceCores) {
  write_hybrid(6, 8);
  EXPECT_EQ(available(20), 6);
  // What is allowed may be the others alone, or some of each.
  EXPECT_EQ(available_processors({12, 13, 14}, root_.path()), 3);
  EXPECT_EQ(available_processors({0, 1, 2, 13}, root_.path()), 2);
}

TEST_F(Processors, OfAHybridAQuotaCountsToo) {
  write_hybrid(6, 8);
  root_.write("proc/self/cgroup", "0::/\n");
  root_.write("sys/fs/cgroup/cpu.max", "400000 100000\n");
  EXPECT_EQ(available(20), 4);
}

TEST_F(Processors, WithCapacitiesAreThoseOfAtLeastHalfTheLargest) {
  write_capacities({300, 300, 300, 300, 870, 870, 870, 1024});
  EXPECT_EQ(available(8), 4);
  write_capacities({1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024});
  EXPECT_EQ(available(8), 8);
}

TEST_F(Processors, WhatIsNotUnderstoodDoesNotRestrict) {
  root_.write("proc/self/cgroup", "0::/\nnonsense\n:\n");
  for (const char* text :
       {"", "x y", "100000", "-5 100000", "100000 0", "99999999999999999999 1"}) {
    root_.write("sys/fs/cgroup/cpu.max", text);
    EXPECT_EQ(available(8), 8) << text;
  }
  root_.write("sys/devices/cpu_atom/cpus", "4-7\n");
  for (const char* text : {"", "a-b", "3-", "-", "0-99999999999", "90-95"}) {
    root_.write("sys/devices/cpu_core/cpus", text);
    EXPECT_EQ(available(8), 8) << text;
  }
}

}  // namespace
}  // namespace kvcast
