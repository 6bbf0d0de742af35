#include "runtime/auxiliary_turn.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/stopwatch.h"
#include "kvcast/session.h"
#include "prefill/gate.h"
#include "prefill/mixing.h"
#include "runtime/draft_choice.h"

namespace kvcast {
namespace {

/// Guesses of the auxiliary in a step, of one answer: each is a pass of its own.
constexpr int64_t kMostOwnGuesses = 8;
/// Tokens that auxiliaries read in a step for the sake of guessing, of all answers together.
constexpr int64_t kMostUnread = 64;
/// A draft that is less probable is not run.
constexpr double kLeastProbability = 0.2;

/// Guesses stand in their sequence while the auxiliary reads them.
class GuessedTokens {
 public:
  explicit GuessedTokens(Sequence& sequence)
      : sequence_(&sequence), tokens_(sequence.tokens.size()) {}
  GuessedTokens(GuessedTokens&& other) noexcept
      : sequence_(std::exchange(other.sequence_, nullptr)), tokens_(other.tokens_) {}
  GuessedTokens& operator=(GuessedTokens&&) = delete;
  ~GuessedTokens() {
    if (sequence_ != nullptr) sequence_->tokens.resize(tokens_);
  }

 private:
  Sequence* sequence_;
  size_t tokens_;
};

/// The tokens that an answer's drafts are expected to bring.
double expected_tokens(const AuxiliaryRows& answer) {
  if (answer.drafts.empty()) return 0;
  double tokens = 0;
  for (const Guess& guess : answer.drafter->guesses(std::ssize(answer.drafts))) {
    tokens += guess.probability;
  }
  return tokens;
}

/// Tokens a second of the step as it is planned so far, and whether more guesses raise them.
class Gain {
 public:
  Gain(const Models& models, std::span<const AuxiliaryRows> answers, int64_t base_rows)
      : models_(models), left_(kMostDraftRows), tokens_(static_cast<double>(answers.size())) {
    for (const AuxiliaryRows& answer : answers) {
      left_ -= std::ssize(answer.drafts);
      tokens_ += expected_tokens(answer);
    }
    if (const auto ms = models.base_costs->ms(base_rows)) {
      base_ms_ = ms_ = *ms;
      relative_ = models.base_costs->relative(base_rows, kMostDraftRows);
    }
  }

  /// Whether it is known what the base's step takes.
  [[nodiscard]] bool known() const { return !relative_.empty(); }
  /// Drafts that the step may still take.
  [[nodiscard]] int64_t left() const { return left_; }
  /// What a pass of one row takes, of the base's step.
  [[nodiscard]] double relative_pass() const { return pass_ms(1) / base_ms_; }
  /// How many of the first of these answers, by the tokens that each may expect of one guess more,
  /// should go on, in a pass beside `rows` others, so that tokens a second rise.
  [[nodiscard]] size_t worthwhile(std::span<const double> tokens, int64_t rows) const {
    if (!known()) return 0;
    size_t best = 0;
    double more = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      more += tokens[i];
      const auto count = static_cast<int64_t>(i) + 1;
      const double before = rows > 0 ? pass_ms(rows) : 0;
      const double ms = pass_ms(rows + count) - before + draft_ms(count);
      if (more * ms_ > kWorthwhileDrafts * tokens_ * ms) best = i + 1;
    }
    return best;
  }
  void add_pass(int64_t rows) {
    if (known()) ms_ += pass_ms(rows);
  }
  void add_draft(double probability) {
    if (known()) ms_ += draft_ms(1);
    ++drafts_;
    --left_;
    tokens_ += probability;
  }
  /// These drafts from the text are not run.
  void drop(const AuxiliaryRows& answer) {
    left_ += std::ssize(answer.drafts);
    tokens_ -= expected_tokens(answer);
  }

 private:
  /// Until it was seen, by the weights that are read.
  [[nodiscard]] double pass_ms(int64_t rows) const {
    if (const auto ms = models_.auxiliary_costs->ms(rows)) return *ms;
    const auto bytes = [](const Transformer& model) {
      return static_cast<double>(model.weights().bytes());
    };
    return base_ms_ * bytes(*models_.auxiliary) / bytes(*models_.base);
  }
  [[nodiscard]] double draft_ms(int64_t more) const {
    const auto last = std::ssize(relative_) - 1;
    const auto at = [&](int64_t drafts) {
      return relative_[static_cast<size_t>(std::min(drafts, last))];
    };
    return base_ms_ * (at(drafts_ + more) - at(drafts_));
  }

  const Models& models_;
  int64_t drafts_ = 0, left_;
  double tokens_, ms_ = 0, base_ms_ = 0;
  std::vector<double> relative_;  // of the base's step with 0, 1, ... more rows; empty: not known
};

/// An answer whose auxiliary runs.
struct Running {
  AuxiliaryRows* rows;
  bool mixes = false;
  int64_t most = 0;        // guesses of its own
  bool guesses = false;    // its drafts are its own
  double probability = 1;  // that all drafts come true

  [[nodiscard]] Sequence& sequence() const { return *rows->sequence; }
  [[nodiscard]] bool is_fixed() const { return rows->drafter->most() != kDraftsAuto; }
  /// Tokens before the last one that the auxiliary does not know.
  [[nodiscard]] int64_t unread() const {
    const KVCache& cache = sequence().auxiliary;
    return std::max<int64_t>(
        0, std::ssize(sequence().tokens) - 1 - cache.rows_in_first(cache.n_layers()));
  }
  [[nodiscard]] bool is_full() const { return std::ssize(rows->drafts) >= most; }
  /// Tokens to be expected of its next guess, where it is one more draft.
  [[nodiscard]] double next() const {
    return probability * (mixes && !rows->choices.empty() ? 1 : rows->drafter->trust());
  }
};

class Turn {
 public:
  Turn(const Models& models, std::span<AuxiliaryRows> answers, int64_t base_rows,
       PrefillWorkspace& workspace)
      : models_(models),
        gain_(models, answers, base_rows),
        workspace_(workspace),
        vocab_(static_cast<size_t>(models.auxiliary->config().vocab_size)) {
    for (AuxiliaryRows& answer : answers) join(answer);
    choose_who_guesses();
  }

  void run() {
    if (running_.empty()) return;
    size_t rows = running_.size();
    if (std::ranges::any_of(running_, &Running::guesses)) {
      rows += static_cast<size_t>(std::max<int64_t>(gain_.left(), 0));
    }
    for (const Running& answer : running_) {
      cut_auxiliary(answer.sequence(), std::ssize(answer.sequence().tokens) - 1);
      guessed_.emplace_back(answer.sequence());
      if (answer.mixes) append(answer, answer.rows->drafts);
      rows += answer.rows->drafts.size();
    }
    next_ = workspace_.auxiliary_logits.ensure(rows * vocab_);
    while (!running_.empty()) {
      pass();
      choose_who_goes_on();
    }
  }

 private:
  /// Takes the answer in if it mixes, or if it may guess.
  void join(AuxiliaryRows& answer) {
    const Sequence& sequence = *answer.sequence;
    const auto tokens = std::ssize(sequence.tokens);
    const int64_t room = models_.auxiliary->config().max_context_tokens - tokens;
    Running found{.rows = &answer, .mixes = mixes(models_, sequence)};
    if (answer.drafter != nullptr && answer.drafter->asks_auxiliary()) {
      const int64_t wanted = found.is_fixed() ? answer.drafter->most() : kMostOwnGuesses;
      found.most = std::min({wanted, kMostOwnGuesses, answer.most, room});
      found.guesses = found.most > 0 && !is_better_from_text(found) && catches_up(found);
    }
    // One that is asked nothing for long would have too much to read when it is.
    const int64_t unread = found.unread();
    const bool reads_on = !found.mixes && !found.guesses && found.most > 0 &&
                          unread > kMostUnread / 2 && !answer.drafts.empty() && catches_up(found) &&
                          gain_.worthwhile(std::array{answer.drafter->trust()}, 0) > 0;
    if (found.mixes || found.guesses || reads_on) running_.push_back(found);
  }

  /// A guess from the text costs no pass of the auxiliary.
  [[nodiscard]] bool is_better_from_text(const Running& answer) const {
    if (answer.rows->drafts.empty()) return false;
    if (answer.is_fixed() || !gain_.known()) return true;
    return answer.rows->drafter->guesses(1).front().probability >=
           answer.rows->drafter->trust() - gain_.relative_pass();
  }

  /// Whether there is room in this step for what the auxiliary has yet to read.
  bool catches_up(const Running& answer) {
    const int64_t unread = answer.unread();
    if (unread_ + unread > kMostUnread) return false;
    unread_ += unread;
    return true;
  }

  /// Of those that run for their guesses alone, the most certain, as far as it pays. The drafts
  /// from the text are dropped of those that guess.
  void choose_who_guesses() {
    std::vector<Running> chosen, candidates;
    for (const Running& answer : running_) {
      const bool runs = answer.mixes || !answer.guesses || answer.is_fixed();
      (runs ? chosen : candidates).push_back(answer);
    }
    keep_worthwhile(candidates, std::ssize(chosen));
    chosen.insert(chosen.end(), candidates.begin(), candidates.end());
    running_ = std::move(chosen);
    for (const Running& answer : running_) {
      if (!answer.guesses) continue;
      gain_.drop(*answer.rows);
      answer.rows->drafts.clear();
    }
  }

  /// Leaves the most certain whose next guess pays in a pass beside `rows` others.
  void keep_worthwhile(std::vector<Running>& answers, int64_t rows) const {
    std::ranges::stable_sort(answers, std::ranges::greater{}, &Running::next);
    std::vector<double> tokens;
    for (const Running& answer : answers) tokens.push_back(answer.next());
    const size_t kept = gain_.worthwhile(tokens, rows);
    answers.erase(answers.begin() + static_cast<std::ptrdiff_t>(kept), answers.end());
  }

  static void append(const Running& answer, std::span<const int32_t> tokens) {
    auto& all = answer.sequence().tokens;
    all.insert(all.end(), tokens.begin(), tokens.end());
  }

  /// All that the running ones have not read; a row of logits for each draft and one before.
  void pass() {
    const Transformer& auxiliary = *models_.auxiliary;
    TokenPass behind, now;
    std::vector<int64_t> rows;
    for (const Running& answer : running_) {
      Sequence* const sequence = &answer.sequence();
      const auto end = std::ssize(sequence->tokens);
      rows.push_back(answer.guesses || !answer.mixes ? 1 : 1 + std::ssize(answer.rows->drafts));
      now.sequences.push_back(sequence);
      now.ends.push_back(end);
      if (sequence->auxiliary.next_position() >= end - rows.back()) continue;
      behind.sequences.push_back(sequence);
      behind.ends.push_back(end - rows.back());
    }
    const Stopwatch watch;
    run_without_output(auxiliary, &Sequence::auxiliary, behind.sequences, behind.ends, {},
                       workspace_.auxiliary);
    const float* const hidden = run_tokens(
        {&auxiliary, &Sequence::auxiliary, now.sequences, now.ends, {}}, workspace_.auxiliary);
    const int64_t total = std::accumulate(rows.begin(), rows.end(), int64_t{0});
    auxiliary.logits(hidden, total, next_, workspace_.auxiliary);
    if (behind.sequences.empty()) models_.auxiliary_costs->observe(total, watch.elapsed_ms());
    gain_.add_pass(total);
    for (size_t i = 0; i < running_.size(); ++i) {
      AuxiliaryRows& answer = *running_[i].rows;
      for (int64_t row = 0; row < rows[i]; ++row, next_ += vocab_) {
        if (running_[i].mixes) answer.logits.push_back(next_);
      }
      if (!running_[i].guesses) continue;
      const GreedyChoice choice = greedy_choice({next_ - vocab_, vocab_});
      answer.choices.push_back({choice.token, std::exp(choice.log_probability)});
    }
  }

  /// Takes what was guessed as drafts. Those whose next guess pays, too, stay; an answer that mixes
  /// has a draft run by the auxiliary as well, or not at all.
  void choose_who_goes_on() {
    std::vector<Running> fixed, automatic;
    for (Running answer : running_) {
      if (!answer.guesses || answer.is_full() || gain_.left() <= 0) continue;
      answer.probability *= answer.rows->drafter->trust(answer.rows->choices.back().probability);
      if (answer.probability < kLeastProbability) continue;
      if (!answer.mixes) {
        take(answer);
        if (answer.is_full()) continue;
      }
      (answer.is_fixed() ? fixed : automatic).push_back(answer);
    }
    keep_worthwhile(automatic, std::ssize(fixed));
    running_.clear();
    for (const std::vector<Running>& of_kind : {fixed, automatic}) {
      for (const Running& answer : of_kind) {
        if (answer.mixes) {
          if (gain_.left() <= 0) continue;
          take(answer);
        }
        append(answer, std::span(answer.rows->drafts).last(1));
        running_.push_back(answer);
      }
    }
  }

  void take(const Running& answer) {
    answer.rows->drafts.push_back(answer.rows->choices.back().token);
    gain_.add_draft(answer.probability);
  }

  const Models& models_;
  Gain gain_;
  PrefillWorkspace& workspace_;
  size_t vocab_;
  std::vector<Running> running_;
  int64_t unread_ = 0;  // rows that auxiliaries have to catch up with
  std::vector<GuessedTokens> guessed_;
  float* next_ = nullptr;  // where the next row of logits goes
};

}  // namespace

void run_auxiliaries(const Models& models, std::span<AuxiliaryRows> answers, int64_t base_rows,
                     PrefillWorkspace& workspace) {
  if (!models.auxiliary_answers()) return;
  if (answers.front().sequence->answerer != Sequence::Answerer::kBase) return;
  for (AuxiliaryRows& answer : answers) {
    if (!mixes(models, *answer.sequence)) continue;  // each draft is mixed, too
    const int64_t room =
        models.auxiliary->config().max_context_tokens - std::ssize(answer.sequence->tokens);
    answer.drafts.resize(std::min(answer.drafts.size(), static_cast<size_t>(room)));
  }
  Turn(models, answers, base_rows, workspace).run();
}

}  // namespace kvcast
