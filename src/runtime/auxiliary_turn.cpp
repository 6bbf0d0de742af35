#include "runtime/auxiliary_turn.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/stopwatch.h"
#include "kvcast/session.h"
#include "prefill/gate.h"
#include "prefill/mixing.h"
#include "runtime/draft_choice.h"

namespace kvcast {
namespace {

/// Guesses of the auxiliary in a step, of one answer, where their number is not fixed.
constexpr int64_t kMostGuesses = 8;
/// Tokens that an auxiliary reads for the sake of guessing.
constexpr int64_t kMostUnread = 32;
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

/// Tokens a second of the step as it is planned so far, and whether more guesses raise them.
class Gain {
 public:
  Gain(const Models& models, std::span<const AuxiliaryRows> answers, int64_t base_rows)
      : models_(models), base_rows_(base_rows), tokens_(static_cast<double>(answers.size())) {
    left_ = kMostDraftRows;
    for (const AuxiliaryRows& answer : answers) left_ -= std::ssize(answer.drafts);
    if (const auto ms = models.base_costs->ms(base_rows)) {
      base_ms_ = ms_ = *ms;
      relative_ = models.base_costs->relative(base_rows, std::max<int64_t>(left_, 0));
    }
  }

  /// Drafts that the step may still take.
  [[nodiscard]] int64_t left() const { return left_; }
  /// What a pass of the auxiliaries takes, of the base's step.
  [[nodiscard]] double relative_pass(int64_t rows) const { return pass_ms(rows) / base_ms_; }
  /// Of a pass of `rows` rows, that many more drafts, and that many more tokens to be expected.
  [[nodiscard]] bool raised_by(double tokens, int64_t rows, int64_t drafts) const {
    if (relative_.empty()) return false;
    const double more = pass_ms(rows) + draft_ms(drafts);
    return tokens * ms_ > kWorthwhileDrafts * tokens_ * more;
  }
  void add_pass(int64_t rows) { ms_ += relative_.empty() ? 0 : pass_ms(rows); }
  void add_draft(double probability) {
    ms_ += relative_.empty() ? 0 : draft_ms(1);
    ++drafts_;
    --left_;
    tokens_ += probability;
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
    const auto last = relative_.size() - 1;
    const size_t now = std::min(static_cast<size_t>(drafts_), last);
    const size_t then = std::min(static_cast<size_t>(drafts_ + more), last);
    return base_ms_ * (relative_[then] - relative_[now]);
  }

  const Models& models_;
  int64_t base_rows_, drafts_ = 0, left_ = 0;
  double tokens_, ms_ = 0, base_ms_ = 0;
  std::vector<double> relative_;  // of the base's step with 0, 1, ... more rows; empty: not known
};

/// An answer whose auxiliary runs.
struct Running {
  AuxiliaryRows* rows;
  int64_t most = 0;      // guesses of its own, with those that it has
  bool guesses = false;  // its drafts are its own
  bool mixes = false;
  double probability = 1;  // that all drafts come true
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
    drop_those_that_do_not_pay();
  }

  void run() {
    size_t most_rows = 0;
    for (const Running& answer : running_) {
      cut_auxiliary(*answer.rows->sequence, std::ssize(answer.rows->sequence->tokens) - 1);
      guessed_.emplace_back(*answer.rows->sequence);
      append(answer, answer.rows->drafts);
      most_rows += 1 + static_cast<size_t>(std::max(answer.most, std::ssize(answer.rows->drafts)));
    }
    next_ = workspace_.auxiliary_logits.ensure(most_rows * vocab_);
    while (!running_.empty()) {
      pass();
      choose_those_that_go_on();
    }
  }

 private:
  [[nodiscard]] static bool is_fixed(const AuxiliaryRows& answer) {
    return answer.drafter->most() != kDraftsAuto;
  }

  /// Takes the answer in if it mixes, or if it may guess.
  void join(AuxiliaryRows& answer) {
    const Sequence& sequence = *answer.sequence;
    const auto tokens = std::ssize(sequence.tokens);
    const int64_t room = models_.auxiliary->config().max_context_tokens - tokens;
    Running found{.rows = &answer, .mixes = mixes(models_, sequence)};
    if (found.mixes && std::ssize(answer.drafts) > room) {
      answer.drafts.resize(static_cast<size_t>(room));
    }
    const KVCache& cache = sequence.auxiliary;
    const int64_t unread = tokens - 1 - cache.rows_in_first(cache.n_layers());
    if (answer.drafter != nullptr && unread <= kMostUnread && !is_better_from_text(answer)) {
      const int64_t wanted = is_fixed(answer) ? answer.drafter->most() : kMostGuesses;
      answer.drafts.clear();
      found.most = std::min({wanted, answer.most, room, gain_.left()});
      found.guesses = found.most > 0;
    }
    if (found.mixes || found.guesses) running_.push_back(found);
  }

  /// A guess from the text costs no pass of the auxiliary.
  [[nodiscard]] bool is_better_from_text(const AuxiliaryRows& answer) const {
    if (answer.drafts.empty()) return false;
    if (is_fixed(answer)) return true;
    return answer.drafter->guesses(1).front().probability >=
           answer.drafter->trust() - gain_.relative_pass(1);
  }

  /// Those that only guess, unless their number is fixed.
  void drop_those_that_do_not_pay() {
    const auto only_guesses = [](const Running& r) { return !r.mixes && !is_fixed(*r.rows); };
    double tokens = 0;
    int64_t count = 0;
    for (const Running& answer : running_) {
      if (!only_guesses(answer)) continue;
      tokens += answer.rows->drafter->trust();
      ++count;
    }
    if (count > 0 && !gain_.raised_by(tokens, count, count)) std::erase_if(running_, only_guesses);
  }

  static void append(const Running& answer, std::span<const int32_t> tokens) {
    auto& all = answer.rows->sequence->tokens;
    all.insert(all.end(), tokens.begin(), tokens.end());
  }

  /// All that the running ones have not read; a row of logits for each draft and one before.
  void pass() {
    const Transformer& auxiliary = *models_.auxiliary;
    TokenPass behind, now;
    std::vector<int64_t> rows;
    for (const Running& answer : running_) {
      Sequence* const sequence = answer.rows->sequence;
      const auto end = std::ssize(sequence->tokens);
      const int64_t outputs = answer.guesses ? 1 : 1 + std::ssize(answer.rows->drafts);
      now.sequences.push_back(sequence);
      now.ends.push_back(end);
      rows.push_back(outputs);
      if (sequence->auxiliary.next_position() >= end - outputs) continue;
      behind.sequences.push_back(sequence);
      behind.ends.push_back(end - outputs);
    }
    const Stopwatch watch;
    run_without_output(auxiliary, &Sequence::auxiliary, behind.sequences, behind.ends, {},
                       workspace_.auxiliary);
    const float* const hidden = run_tokens(
        {&auxiliary, &Sequence::auxiliary, now.sequences, now.ends, {}}, workspace_.auxiliary);
    int64_t total = 0;
    for (const int64_t outputs : rows) total += outputs;
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

  /// Takes what was guessed as drafts; those whose next guess pays, too, stay. An answer that mixes
  /// has a draft run by the auxiliary as well, or not at all.
  void choose_those_that_go_on() {
    std::vector<Running> going_on;
    double tokens = 0;
    int64_t automatic = 0;
    for (Running answer : running_) {
      if (!answer.guesses || std::ssize(answer.rows->drafts) >= answer.most) continue;
      const AuxiliaryRows::Choice& choice = answer.rows->choices.back();
      Drafter& drafter = *answer.rows->drafter;
      answer.probability *= drafter.trust(choice.probability);
      const bool fixed = is_fixed(*answer.rows);
      if (gain_.left() <= 0 || (!fixed && answer.probability < kLeastProbability)) continue;
      if (!answer.mixes) take(answer);
      if (!answer.mixes && std::ssize(answer.rows->drafts) >= answer.most) continue;
      going_on.push_back(answer);
      if (fixed) continue;
      tokens += answer.probability * (answer.mixes ? 1 : drafter.trust());
      ++automatic;
    }
    if (automatic > 0 && !gain_.raised_by(tokens, automatic, automatic)) {
      std::erase_if(going_on, [](const Running& r) { return !is_fixed(*r.rows); });
    }
    std::erase_if(going_on, [&](const Running& answer) {
      if (!answer.mixes) return false;
      if (gain_.left() <= 0) return true;
      take(answer);
      return false;
    });
    for (const Running& answer : going_on) {
      append(answer, std::span(answer.rows->drafts).last(1));
    }
    running_ = std::move(going_on);
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
  std::vector<GuessedTokens> guessed_;
  float* next_ = nullptr;  // where the next row of logits goes
};

}  // namespace

void run_auxiliaries(const Models& models, std::span<AuxiliaryRows> answers, int64_t base_rows,
                     PrefillWorkspace& workspace) {
  if (!models.auxiliary_answers()) return;
  if (answers.front().sequence->answerer != Sequence::Answerer::kBase) return;
  Turn(models, answers, base_rows, workspace).run();
}

}  // namespace kvcast
