#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

namespace kvcast {

/// What a decode step takes by its rows, as steps took it: what a row more costs on this machine.
/// Thread-safe.
class StepCosts {
 public:
  /// Times of steps with `rows`, rows + 1, ... rows + `more` rows, relative to that with `rows`.
  /// What was not seen lately is taken between its neighbours, or as hopeful as to be tried. Empty:
  /// steps with `rows`, or with fewer and with more, must be seen first.
  [[nodiscard]] std::vector<double> relative(int64_t rows, int64_t more) const;
  /// What a step with `rows` rows takes; none: neither it nor steps with fewer and with more were
  /// seen lately.
  [[nodiscard]] std::optional<double> ms(int64_t rows) const;
  /// A step with so many rows took this long.
  void observe(int64_t rows, double ms);
  /// A step went by without one of these: what was seen grows old.
  void age();

 private:
  /// The least of the last times: what else the machine does only adds.
  struct Times {
    std::array<double, 4> ms{};
    int64_t count = 0;
    int64_t last_seen = 0;
    [[nodiscard]] double least() const;
  };
  /// Steps with `rows` rows, as the last times say.
  struct Seen {
    int64_t rows;
    double ms;
    bool certain;
  };
  [[nodiscard]] bool fresh(const Times& times) const;
  [[nodiscard]] std::vector<Seen> seen_lately() const;
  static double between(const Seen& a, const Seen& b, int64_t rows);
  static std::optional<double> ms_of(const std::vector<Seen>& seen, int64_t rows);

  mutable std::mutex mutex_;
  std::map<int64_t, Times> times_;  // by rows
  int64_t steps_ = 0;
};

}  // namespace kvcast
