#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>

namespace kvcast {

struct Models;

/// Part of a prefill whose time is estimated.
struct PrefillWork {
  enum class Kind {
    kExact,             ///< `rows` of the base's own
    kForecast,          ///< `rows` that are forecast, by auxiliary and predictor alone
    kForecastWithTail,  ///< the same, and the base's tail carried along (TailRun::kMostRows)
  };
  Kind kind = Kind::kExact;
  int64_t start = 0;  ///< rows that were there before
  int64_t rows = 0;
  int64_t tail = 1;  ///< kForecastWithTail: the base's own rows
};

/// How fast this machine reads prompts with these models, exactly and by forecast: measured once,
/// kept up to date by what is observed. A prefill takes the time of its products with weights,
/// whose speed depends on how many rows share them, of attention, whose operations all take alike,
/// and what every prompt takes beside these; the first two longer while the machine has other work.
/// Thread-safe.
class PrefillPace {
 public:
  /// Measures prompts of a few lengths, unless that has been done. Takes as long as they take.
  void measure_once(const Models& models);

  /// This work took so long: corrects each term by its share of the estimate.
  void observe(const Models& models, const PrefillWork& work, double ms);
  /// A prefill took so long beside its work, until the first token: allocation, sampling.
  void observe_overhead(double ms);
  /// A whole prefill that was estimated took so long.
  void observe_error(double estimated_ms, double ms);

  /// None: nothing has been measured.
  [[nodiscard]] std::optional<double> estimate_ms(const Models& models,
                                                  const PrefillWork& work) const;
  [[nodiscard]] double overhead_ms() const;
  /// By which factor a prefill may take longer than estimated, as estimates have gone so far.
  [[nodiscard]] double margin() const;

 private:
  /// Operations per millisecond at prompts of 2^i to 2^(i+1) rows.
  struct Speeds {
    struct Point {
      double log_rows = 0, log_speed = 0;
      int64_t count = 0;  ///< 0: not known
    };
    std::array<Point, 24> points;
    [[nodiscard]] std::optional<double> log_speed(double log_rows) const;
  };
  struct Estimate {
    double products_ms = 0, attention_ms = 0;
    [[nodiscard]] double total() const { return products_ms + attention_ms; }
  };
  [[nodiscard]] std::optional<Estimate> estimate(const Models& models,
                                                 const PrefillWork& work) const;
  void measure_attention(const Models& models);

  std::once_flag measured_;
  mutable std::mutex mutex_;
  std::array<Speeds, 3> speeds_;  // by PrefillWork::Kind
  /// Milliseconds per operation of attention's products; 0: not known.
  double attention_ms_ = 0;
  double log_slower_ = 0;  // to the base 2: than the terms say, lately, whatever is read
  std::array<double, 4> overhead_ms_{};
  int64_t overheads_ = 0;
  double mean_error_ = 0.05;  // of estimates' logarithms to the base 2, without sign
};

}  // namespace kvcast
