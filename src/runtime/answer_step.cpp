#include "runtime/answer_step.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/stopwatch.h"
#include "prefill/mixing.h"
#include "runtime/auxiliary_turn.h"
#include "runtime/draft_choice.h"

namespace kvcast {
namespace {

/// Rows refined together while nothing is decoded beside them.
constexpr int64_t kRowsAlone = 64;
/// Rows that a step of write_answers refines at most, whatever its answers ask for together.
constexpr int64_t kMostRows = 512;

struct Blocks {
  std::vector<RefineBlock> blocks;
  std::vector<size_t> answers;  // whose
  int64_t rows = 0;
  RefinePace::Depth depth = RefinePace::Depth::kAllLayers;
};

RefinePace::Depth depth_of(const Sequence& sequence) {
  return sequence.base.kept_residual().rows > 0 ? RefinePace::Depth::kLastLayers
                                                : RefinePace::Depth::kAllLayers;
}

Blocks choose_blocks(const Models& models, std::span<const Answering> answers, int64_t most_rows,
                     int64_t decode_rows) {
  Blocks chosen;
  int64_t free_rows = -1;  // asked for once, if at all
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto& [sequence, writer, refiner, drafter, may_refine] = answers[i];
    if (refiner == nullptr || !may_refine || inexact_rows(*sequence) == 0) continue;
    // What a step takes is known of rows of one depth.
    if (chosen.rows == 0) chosen.depth = depth_of(*sequence);
    int64_t rows = refiner->options().rows;
    if (decode_rows == 0) {
      rows = kRowsAlone;
    } else if (rows == kRefineAuto) {
      if (depth_of(*sequence) != chosen.depth) continue;
      if (free_rows < 0) free_rows = models.pace->rows(decode_rows, chosen.depth);
      rows = std::max<int64_t>(0, free_rows - chosen.rows);
    }
    const RefineBlock block = refiner->block(std::min(rows, most_rows - chosen.rows));
    if (block.rows <= 0) continue;
    chosen.rows += block.rows;
    chosen.blocks.push_back(block);
    chosen.answers.push_back(i);
  }
  return chosen;
}

/// The rows of the answers that go on.
struct Decoding {
  std::vector<size_t> answers;  // whose
  std::vector<DecodeRows> rows;
  int64_t pending = 0, drafted = 0;      // rows of these kinds
  std::vector<AuxiliaryRows> auxiliary;  // [rows], with the drafts that these refer to

  [[nodiscard]] size_t outputs() const { return rows.size() + static_cast<size_t>(drafted); }
};

Decoding choose_rows(std::span<const Answering> answers) {
  Decoding chosen;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (answers[i].writer->finished()) continue;
    chosen.answers.push_back(i);
    chosen.rows.push_back({answers[i].sequence});
    chosen.pending += answers[i].sequence->pending_tokens();
  }
  return chosen;
}

StepCosts& costs_of(const Models& models, const Sequence& sequence) {
  return sequence.answerer == Sequence::Answerer::kBase ? *models.base_costs
                                                        : *models.auxiliary_costs;
}

/// While a forecast is refined, an answer that comes in fewer steps comes over other rows. Only a
/// revised greedy one is the same all the same.
bool may_draft(const Answering& answer) {
  if (answer.drafter == nullptr) return false;
  if (answer.refiner == nullptr || inexact_rows(*answer.sequence) == 0) return true;
  return answer.refiner->options().revise && answer.writer->is_greedy();
}

/// Drafts from the text and from auxiliaries, and what these have to say where answers mix.
/// `refined`: rows beside these.
void add_drafts(const Models& models, std::span<const Answering> answers, int64_t refined,
                Decoding& decoding, PrefillWorkspace& workspace) {
  std::vector<Draftable> draftable;
  for (const size_t i : decoding.answers) {
    const Answering& answer = answers[i];
    const ModelConfig& model = answer.sequence->answering_model(models).config();
    draftable.push_back({may_draft(answer) ? answer.drafter : nullptr,
                         answer.writer->tokens_left(*answer.sequence, model) - 1});
    if (draftable.back().drafter != nullptr) answer.drafter->follow(answer.sequence->tokens);
  }
  const int64_t rows = decoding.pending + refined;
  auto drafts = choose_drafts(costs_of(models, *decoding.rows.front().sequence), draftable, rows);
  int64_t from_text = 0;
  for (size_t i = 0; i < draftable.size(); ++i) {
    from_text += std::ssize(drafts[i]);
    decoding.auxiliary.push_back({.sequence = decoding.rows[i].sequence,
                                  .drafter = draftable[i].drafter,
                                  .most = draftable[i].most,
                                  .drafts = std::move(drafts[i])});
  }
  run_auxiliaries(models, decoding.auxiliary, rows + from_text, workspace);
  for (size_t i = 0; i < draftable.size(); ++i) {
    decoding.rows[i].drafts = decoding.auxiliary[i].drafts;
    decoding.drafted += std::ssize(decoding.auxiliary[i].drafts);
  }
}

/// What the step took, for later ones.
void observe(const Models& models, const Decoding& decoding, const Blocks& blocks, bool refines,
             double ms) {
  const auto answers = std::ssize(decoding.rows);
  models.auxiliary_costs->age();
  if (refines && decoding.drafted == 0) {
    models.pace->observe(decoding.pending, blocks.rows, blocks.depth, ms);
  }
  if (answers == 0 || decoding.pending != answers) return;  // a prompt's last run is among them
  costs_of(models, *decoding.rows.front().sequence)
      .observe(answers + decoding.drafted + blocks.rows, ms);
}

/// The auxiliaries' share of `logits` [decoding.outputs(), vocab], where answers mix still.
void mix_in(const Models& models, const Decoding& decoding, float* logits, size_t vocab) {
  for (const AuxiliaryRows& answer : decoding.auxiliary) {
    const bool still = !answer.logits.empty() && mixes(models, *answer.sequence);
    for (size_t row = 0; row <= answer.drafts.size(); ++row, logits += vocab) {
      if (still) mix_into({logits, vocab}, answer.logits[row], answer.sequence->mix);
    }
  }
}

/// Hands out `logits` [rows.outputs(), vocab], as far as the answer takes what was guessed; the
/// caches keep no other rows.
void hand_out(const Answering& answer, const DecodeRows& rows, const AuxiliaryRows& auxiliary,
              const float* logits, size_t vocab,
              const std::function<void(std::span<const float>)>& on_logits) {
  // Without a drafter it may be the answer's first token, with which the sequence may be gone.
  if (answer.drafter == nullptr) return on_logits({logits, vocab});
  Sequence& sequence = *rows.sequence;
  int64_t accepted = 0;
  for (int64_t i = 0; i < rows.outputs(); ++i) {
    const auto row = static_cast<size_t>(i);
    const size_t tokens = sequence.tokens.size();
    on_logits({logits + row * vocab, vocab});
    if (sequence.tokens.size() != tokens + 1) break;
    const int32_t token = sequence.tokens.back();
    if (row < auxiliary.choices.size()) {
      const AuxiliaryRows::Choice& choice = auxiliary.choices[row];
      answer.drafter->judge(choice.probability, choice.token == token);
    } else {
      answer.drafter->pass();
    }
    if (row == rows.drafts.size() || token != rows.drafts[row]) break;
    ++accepted;
    if (answer.writer->finished()) break;
  }
  if (rows.drafts.empty()) return;
  answer.drafter->count(std::ssize(rows.drafts), accepted);
  const int64_t known = std::ssize(sequence.tokens) - 1;
  sequence.answering_cache().truncate(known);
  sequence.auxiliary.truncate(known);
}

}  // namespace

Status step_answers(const Models& models, std::span<const Answering> answers, int64_t most_rows,
                    AlignedBuffer<float>& logits, PrefillWorkspace& workspace,
                    const AnswerEvents& events) {
  const bool refines =
      std::ranges::any_of(answers, [](const Answering& a) { return a.refiner != nullptr; });
  Decoding decoding = choose_rows(answers);
  const Blocks chosen =
      refines ? choose_blocks(models, answers, most_rows, decoding.pending) : Blocks{};
  if (!decoding.rows.empty()) add_drafts(models, answers, chosen.rows, decoding, workspace);
  size_t outputs = decoding.outputs();
  for (const RefineBlock& block : chosen.blocks) outputs += static_cast<size_t>(block.outputs);
  const ModelConfig& model = answers.front().sequence->answering_model(models).config();
  const auto vocab = static_cast<size_t>(model.vocab_size);
  float* const rows = logits.ensure(outputs * vocab);
  const Stopwatch watch;
  if (!chosen.blocks.empty() || decoding.drafted > 0) {
    decode_and_refine(models, decoding.rows, chosen.blocks, rows, workspace);
  } else if (!decoding.rows.empty()) {
    std::vector<Sequence*> sequences;
    for (const DecodeRows& of_answer : decoding.rows) sequences.push_back(of_answer.sequence);
    decode_step(models, sequences, rows, workspace);
  }
  observe(models, decoding, chosen, refines, watch.elapsed_ms());

  Status status;
  std::vector<bool> revised(answers.size());
  const float* next = rows + decoding.outputs() * vocab;
  for (size_t b = 0; b < chosen.blocks.size(); ++b) {
    const Answering& answer = answers[chosen.answers[b]];
    auto revision = answer.refiner->refined(chosen.blocks[b], next, *answer.writer, model);
    next += static_cast<size_t>(chosen.blocks[b].outputs) * vocab;
    if (!revision) {
      status = tl::unexpected(std::move(revision.error()));
    } else if (*revision) {
      revised[chosen.answers[b]] = true;
      if (answer.drafter != nullptr) {
        answer.drafter->take_back(std::ssize(answer.sequence->tokens) - 1);
      }
      events.on_revised(chosen.answers[b], **revision);
    }
  }
  mix_in(models, decoding, rows, vocab);  // not of what is exact by now
  next = rows;
  for (size_t i = 0; i < decoding.rows.size(); ++i) {
    const size_t answer = decoding.answers[i];
    if (!revised[answer]) {
      hand_out(answers[answer], decoding.rows[i], decoding.auxiliary[i], next, vocab,
               [&](std::span<const float> row) { events.on_logits(answer, row); });
    } else if (answers[answer].drafter != nullptr) {  // these are behind what was taken back
      answers[answer].drafter->count(std::ssize(decoding.rows[i].drafts), 0);
    }
    next += static_cast<size_t>(decoding.rows[i].outputs()) * vocab;
  }
  return status;
}

AnswerLoop::AnswerLoop(const Models& models, std::span<const Answering> answers,
                       std::vector<float> logits, PrefillWorkspace& workspace)
    : models_(models),
      answers_(answers.begin(), answers.end()),
      writing_(answers.size()),
      logits_(std::move(logits)),
      workspace_(workspace) {
  std::iota(writing_.begin(), writing_.end(), size_t{0});
}

Result<bool> AnswerLoop::step(const OnStep& on_step) {
  std::erase_if(writing_, [&](size_t i) { return answers_[i].over(); });
  if (writing_.empty()) return false;
  status_ = {};
  failed_.clear();
  if (!logits_.empty()) {
    const std::vector<float> logits = std::exchange(logits_, {});
    const size_t vocab = logits.size() / answers_.size();
    for (const size_t i : writing_) take(i, std::span(logits).subspan(i * vocab, vocab), on_step);
  } else {
    std::vector<Answering> stepping;
    for (const size_t i : writing_) stepping.push_back(answers_[i]);
    const Status stepped = step_answers(
        models_, stepping, kMostRows, rows_, workspace_,
        {.on_logits = [&](size_t i,
                          std::span<const float> next) { take(writing_[i], next, on_step); },
         .on_revised =
             [&](size_t i, const AnswerRefiner::Revision& revision) {
               on_step(writing_[i], revision.step);
             }});
    if (!stepped) status_ = stepped;
  }
  std::erase_if(writing_, [&](size_t i) { return std::ranges::find(failed_, i) != failed_.end(); });
  if (!status_) return tl::unexpected(status_.error());
  return true;
}

void AnswerLoop::take(size_t answer, std::span<const float> logits, const OnStep& on_step) {
  const auto& [sequence, writer, refiner, drafter, may_refine] = answers_[answer];
  const auto step = writer->take(logits, *sequence, sequence->answering_model(models_).config());
  if (!step) {
    status_ = tl::unexpected(step.error());
    failed_.push_back(answer);
    return;
  }
  if (refiner != nullptr) refiner->chosen(logits, *writer);
  on_step(answer, *step);
}

Status write_answers(const Models& models, std::span<const Answering> answers,
                     std::vector<float> logits, PrefillWorkspace& workspace,
                     const OnStep& on_step) {
  AnswerLoop loop(models, answers, std::move(logits), workspace);
  Status status;
  while (true) {
    const Result<bool> more = loop.step(on_step);
    if (!more) {
      status = tl::unexpected(more.error());
    } else if (!*more) {
      return status;
    }
  }
}

}  // namespace kvcast
