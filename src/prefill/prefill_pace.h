#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>

namespace kvcast {

struct Models;

/// How fast this machine reads prompts with these models, exactly and by forecast: measured once,
/// kept up to date by what is observed. Thread-safe.
class PrefillPace {
 public:
  enum class Kind { kExact, kForecast };

  /// Measures prompts of a few lengths, unless that has been done. Takes as long as they take.
  void measure_once(const Models& models);

  /// A prefill of so many rows behind `start` rows took this long. A forecast's rows are those
  /// forecast; the base's last row is part of it.
  void observe(const Models& models, Kind kind, int64_t start, int64_t rows, double ms);

  /// None: nothing has been measured.
  [[nodiscard]] std::optional<double> estimate_ms(const Models& models, Kind kind, int64_t start,
                                                  int64_t rows) const;

 private:
  /// Operations per millisecond at prompts of 2^i to 2^(i+1) rows; 0: not known.
  struct Speeds {
    struct Point {
      double log_rows = 0, log_speed = 0;
      int64_t count = 0;
    };
    std::array<Point, 24> points;
  };
  std::once_flag measured_;
  mutable std::mutex mutex_;
  std::array<Speeds, 2> speeds_;  // by Kind
};

}  // namespace kvcast
