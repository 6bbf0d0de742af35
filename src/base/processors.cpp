#include "base/processors.h"

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>
#include <numeric>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>

namespace kvcast {
namespace {

namespace fs = std::filesystem;

/// First line of a file of the system's, empty if there is none.
std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::optional<int64_t> whole_number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// "0-3,8" to {0, 1, 2, 3, 8}; what is no such list is empty.
std::set<int> processor_list(const std::string& text) {
  constexpr int64_t kMost = 1 << 16;
  std::set<int> processors;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const size_t dash = part.find('-');
    const auto first = whole_number(std::string_view(part).substr(0, dash));
    const auto last =
        dash == std::string::npos ? first : whole_number(std::string_view(part).substr(dash + 1));
    if (!first || !last || *first < 0 || *last >= kMost) return {};
    for (int64_t i = *first; i <= *last; ++i) processors.insert(static_cast<int>(i));
  }
  return processors;
}

/// Processors per wall-clock second that one control group may use; infinite: any number. Version 2
/// has "quota period" or "max period" in one file, version 1 has two, where no quota is -1.
double quota_of(const fs::path& group) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  std::istringstream both(first_line(group / "cpu.max"));
  std::string quota, period;
  if (!(both >> quota >> period)) {
    quota = first_line(group / "cpu.cfs_quota_us");
    period = first_line(group / "cpu.cfs_period_us");
  }
  const auto time = whole_number(quota), of = whole_number(period);
  if (!time || !of || *time <= 0 || *of <= 0) return kNone;
  return static_cast<double>(*time) / static_cast<double>(*of);
}

/// The least of a group's quota and those around it. In a container the path may be the host's,
/// which is not there; its own group is then the mount itself.
double quota_within(const fs::path& mount, const fs::path& group) {
  double quota = quota_of(mount);
  fs::path at = mount;
  for (const fs::path& part : group.relative_path()) {
    at /= part;
    quota = std::min(quota, quota_of(at));
  }
  return quota;
}

/// /proc/self/cgroup has a line "number:controllers:path" for each hierarchy; version 2's has no
/// controllers.
double quota_of_process(const fs::path& root) {
  double quota = std::numeric_limits<double>::infinity();
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path mounts = root / "sys/fs/cgroup", group = line.substr(second + 1);
    if (controllers.empty()) {
      quota =
          std::min({quota, quota_within(mounts, group), quota_within(mounts / "unified", group)});
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      quota = std::min(
          {quota, quota_within(mounts / controllers, group), quota_within(mounts / "cpu", group)});
    }
  }
  return quota;
}

/// Of `allowed` those of the faster kind, if there are kinds. Intel's are listed, others have
/// capacities: a processor with half of the largest still takes its part.
std::vector<int> performance_processors(const std::vector<int>& allowed, const fs::path& root) {
  const fs::path devices = root / "sys/devices";
  std::set<int> listed;
  if (!first_line(devices / "cpu_atom/cpus").empty()) {
    listed = processor_list(first_line(devices / "cpu_core/cpus"));
  }
  const auto capacity = [&](int processor) {
    const fs::path cpu = devices / "system/cpu" / ("cpu" + std::to_string(processor));
    return whole_number(first_line(cpu / "cpu_capacity")).value_or(0);
  };
  int64_t largest = 0;
  for (const int processor : allowed) largest = std::max(largest, capacity(processor));
  std::vector<int> chosen;
  std::ranges::copy_if(allowed, std::back_inserter(chosen), [&](int processor) {
    return listed.empty() ? 2 * capacity(processor) >= largest : listed.contains(processor);
  });
  return chosen.empty() ? allowed : chosen;
}

/// Cores that the processors belong to.
size_t cores_of(const std::vector<int>& processors, const fs::path& root) {
  std::set<std::string> cores;
  for (const int processor : processors) {
    const std::string name = "cpu" + std::to_string(processor);
    const std::string siblings =
        first_line(root / "sys/devices/system/cpu" / name / "topology/thread_siblings_list");
    cores.insert(siblings.empty() ? name : siblings);
  }
  return cores.size();
}

}  // namespace

int available_processors(const std::vector<int>& allowed, const fs::path& root) {
  const std::vector<int> fast = performance_processors(allowed, root);
  // Two threads of a core that others do not match would wait for each other.
  const bool is_hybrid = fast.size() < allowed.size();
  const size_t processors = is_hybrid ? cores_of(fast, root) : allowed.size();
  const double paid = std::ceil(quota_of_process(root));
  const double most = std::min(static_cast<double>(processors), paid);
  return std::max(1, static_cast<int>(most));
}

int available_processors() {
  std::vector<int> allowed;
#ifdef __linux__
  cpu_set_t set;  // fewer than there are, in a container or under taskset
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &set)) allowed.push_back(i);
    }
  }
#endif
  if (allowed.empty()) {
    allowed.resize(std::max(1U, std::thread::hardware_concurrency()));
    std::iota(allowed.begin(), allowed.end(), 0);
  }
  return available_processors(allowed, "/");
}

}  // namespace kvcast
