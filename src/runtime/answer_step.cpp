#include "runtime/answer_step.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/stopwatch.h"

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
    const auto& [sequence, writer, refiner, may_refine] = answers[i];
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

}  // namespace

Status step_answers(const Models& models, std::span<const Answering> answers, int64_t most_rows,
                    AlignedBuffer<float>& logits, PrefillWorkspace& workspace,
                    const AnswerEvents& events) {
  std::vector<Sequence*> sequences;
  std::vector<size_t> decoding;
  int64_t decode_rows = 0;
  bool refines = false;
  for (size_t i = 0; i < answers.size(); ++i) {
    refines = refines || answers[i].refiner != nullptr;
    if (answers[i].writer->finished()) continue;
    decoding.push_back(i);
    sequences.push_back(answers[i].sequence);
    decode_rows += answers[i].sequence->pending_tokens();
  }
  const Blocks chosen = refines ? choose_blocks(models, answers, most_rows, decode_rows) : Blocks{};
  size_t outputs = sequences.size();
  for (const RefineBlock& block : chosen.blocks) outputs += static_cast<size_t>(block.outputs);
  const ModelConfig& model = answers.front().sequence->answering_model(models).config();
  const auto vocab = static_cast<size_t>(model.vocab_size);
  float* const rows = logits.ensure(outputs * vocab);
  const Stopwatch watch;
  if (chosen.blocks.empty()) {
    if (!sequences.empty()) decode_step(models, sequences, rows, workspace);
  } else {
    decode_and_refine(models, sequences, chosen.blocks, rows, workspace);
  }
  if (refines) {
    models.pace->observe(decode_rows, chosen.rows, chosen.depth, watch.elapsed_ms());
  }

  Status status;
  std::vector<bool> revised(answers.size());
  const float* block_logits = rows + sequences.size() * vocab;
  for (size_t b = 0; b < chosen.blocks.size(); ++b) {
    const Answering& answer = answers[chosen.answers[b]];
    auto revision = answer.refiner->refined(chosen.blocks[b], block_logits, *answer.writer, model);
    block_logits += static_cast<size_t>(chosen.blocks[b].outputs) * vocab;
    if (!revision) {
      status = tl::unexpected(std::move(revision.error()));
    } else if (*revision) {
      revised[chosen.answers[b]] = true;
      events.on_revised(chosen.answers[b], **revision);
    }
  }
  for (size_t row = 0; row < decoding.size(); ++row) {
    if (revised[decoding[row]]) continue;  // these logits are of a token that was taken back
    events.on_logits(decoding[row], std::span(rows + row * vocab, vocab));
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
  const auto& [sequence, writer, refiner, may_refine] = answers_[answer];
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
