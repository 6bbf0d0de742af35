#include "runtime/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/macros.h"

namespace kvcast {
namespace {

constexpr float kLargest = std::numeric_limits<float>::max();
/// A token less likely than the likeliest by this many powers of e is never looked at: all of a
/// million such would change a probability by less than 5e-12.
constexpr double kNegligible = 40.0;
/// Of the likeliest token's probability.
constexpr double kLikely = 1e-3;

tl::unexpected<Error> out_of_range(std::string_view option, std::string_view range, double found) {
  return fail(fmt::format("{}: expected {}, found {:g}", option, range, found));
}

}  // namespace

Status validate(const SamplingOptions& options) {
  // Written so that NaN fails every comparison.
  if (!(options.temperature >= 0.0F && options.temperature <= kLargest)) {
    return out_of_range("temperature", "a finite number of at least 0", options.temperature);
  }
  if (options.top_k < 0) {
    return out_of_range("top_k", "0 or more", static_cast<double>(options.top_k));
  }
  if (!(options.top_p > 0.0F && options.top_p <= 1.0F)) {
    return out_of_range("top_p", "a number above 0 and at most 1", options.top_p);
  }
  if (!(options.min_p >= 0.0F && options.min_p <= 1.0F)) {
    return out_of_range("min_p", "a number from 0 to 1", options.min_p);
  }
  if (!(options.repetition_penalty > 0.0F && options.repetition_penalty <= kLargest)) {
    return out_of_range("repetition_penalty", "a finite number above 0",
                        options.repetition_penalty);
  }
  return {};
}

Result<int32_t> Sampler::sample(std::span<const float> logits,
                                std::span<const int32_t> previous_tokens) {
  KVCAST_CHECK(weigh(logits, previous_tokens));
  if (!is_greedy()) return draw();
  return std::max_element(
             candidates_.begin(), candidates_.end(),
             [](const Candidate& a, const Candidate& b) { return a.weight < b.weight; })
      ->token;
}

Result<std::optional<int32_t>> Sampler::verify(std::span<const float> exact,
                                               std::span<const float> drafted,
                                               std::span<const int32_t> previous_tokens,
                                               int32_t token) {
  if (is_greedy()) {
    KVCAST_TRY(const int32_t chosen, sample(exact, previous_tokens));
    return chosen == token ? std::nullopt : std::optional(chosen);
  }
  const auto total = [this] {
    double sum = 0;
    for (const Candidate& candidate : candidates_) sum += candidate.weight;
    return sum;
  };
  KVCAST_CHECK(weigh(drafted, previous_tokens));
  drafted_.assign(exact.size(), 0);
  const double drafted_total = total();
  for (const Candidate& c : candidates_) {
    drafted_[static_cast<size_t>(c.token)] = c.weight / drafted_total;
  }
  KVCAST_CHECK(weigh(exact, previous_tokens));
  const double exact_total = total();
  double probability = 0;  // of `token`
  for (Candidate& candidate : candidates_) {
    candidate.weight /= exact_total;
    if (candidate.token == token) probability = candidate.weight;
  }
  if (uniform() * drafted_[static_cast<size_t>(token)] < probability) return std::nullopt;
  for (Candidate& c : candidates_) {
    c.weight = std::max(0.0, c.weight - drafted_[static_cast<size_t>(c.token)]);
  }
  // Rounding may leave nothing where the two are equal: then the token may stay.
  return total() > 0 ? std::optional(draw()) : std::nullopt;
}

Status Sampler::weigh(std::span<const float> logits, std::span<const int32_t> previous_tokens) {
  gather_candidates(logits, previous_tokens);
  if (candidates_.empty()) {
    return fail(
        fmt::format("none of the {} logits is a number: the weights are damaged or not "
                    "those of this model",
                    logits.size()));
  }
  if (is_greedy()) return {};
  const double largest = std::ranges::max_element(candidates_, {}, &Candidate::weight)->weight;
  for (Candidate& candidate : candidates_) {
    candidate.weight = std::exp((candidate.weight - largest) / options_.temperature);
  }
  keep_most_probable();
  return {};
}

void Sampler::gather_candidates(std::span<const float> logits,
                                std::span<const int32_t> previous_tokens) {
  if (options_.repetition_penalty != 1.0F) {
    penalised_.assign(logits.begin(), logits.end());
    for (const int32_t token : previous_tokens) {
      if (token < 0 || static_cast<size_t>(token) >= logits.size()) continue;
      const float logit = logits[token];  // the original: a token seen twice is penalised once
      penalised_[token] =
          logit > 0.0F ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    }
    logits = penalised_;
  }
  // NaN and -inf are above nothing; +inf is cut so that differences stay numbers.
  float largest = -std::numeric_limits<float>::infinity();
  for (const float logit : logits) largest = logit > largest ? logit : largest;
  const double least =
      std::max<double>(-kLargest, std::min(largest, kLargest) - kNegligible * options_.temperature);
  candidates_.clear();
  for (size_t token = 0; token < logits.size(); ++token) {
    const float logit = logits[token];
    if (!(logit >= least)) continue;
    candidates_.push_back({std::min(logit, kLargest), static_cast<int32_t>(token)});
  }
}

// Leaves in candidates_ what top_k, top_p and min_p let through. Weights are relative to the most
// probable token, which has 1. The order left must not depend on the standard library, because
// draw() walks along it: hence sorts with ties broken by id, and no nth_element.
void Sampler::keep_most_probable() {
  const auto more_probable = [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
  };
  if (options_.top_k > 0 && static_cast<size_t>(options_.top_k) < candidates_.size()) {
    const auto end = candidates_.begin() + options_.top_k;
    std::partial_sort(candidates_.begin(), end, candidates_.end(), more_probable);
    candidates_.erase(end, candidates_.end());
  }
  if (options_.top_p < 1.0F) {
    double missing = 0.0;
    for (const Candidate& candidate : candidates_) missing += candidate.weight;
    missing *= options_.top_p;
    // Heaps instead of a sort, and the likely tokens before the others: usually a few of a large
    // vocabulary are enough.
    const auto less_probable = [&](const auto& a, const auto& b) { return more_probable(b, a); };
    kept_.clear();
    const auto keep_from = [&](auto first, auto last) {
      if (missing > 0.0) std::make_heap(first, last, less_probable);
      for (; missing > 0.0 && first != last; --last) {
        std::pop_heap(first, last, less_probable);
        kept_.push_back(*(last - 1));
        missing -= kept_.back().weight;
      }
    };
    const auto others = std::partition(candidates_.begin(), candidates_.end(),
                                       [](const Candidate& c) { return c.weight >= kLikely; });
    keep_from(candidates_.begin(), others);
    keep_from(others, candidates_.end());
    candidates_.swap(kept_);
  }
  if (options_.min_p > 0.0F) {
    std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < options_.min_p; });
  }
}

int32_t Sampler::draw() {
  double total = 0.0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  double remaining = uniform() * total;
  for (const Candidate& candidate : candidates_) {
    remaining -= candidate.weight;
    if (remaining < 0.0) return candidate.token;
  }
  // Rounding left a crumb: the last token that can be drawn at all.
  const auto last = std::find_if(candidates_.rbegin(), candidates_.rend(),
                                 [](const Candidate& c) { return c.weight > 0.0; });
  return last->token;
}

}  // namespace kvcast
