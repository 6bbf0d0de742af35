// Scores of generated text against references. Strings are UTF-8.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace kvcast {

/// Without white space at both ends (Python's str.strip for what occurs in text: ASCII white space,
/// U+0085, U+00A0 and the U+2000 family).
std::string_view strip(std::string_view text);

/// The form in which LM Evaluation Harness compares answers with ignore_case and
/// ignore_punctuation: lower case, ASCII punctuation removed; white space stays.
std::string normalise_answer(std::string_view text);

/// Whether the stripped answer equals any reference, all in normalised form.
bool matches_any(std::string_view answer, std::span<const std::string> references);

/// 1 - Levenshtein distance / length of the longer text, over code points; 1 for two empty texts.
double edit_similarity(std::string_view a, std::string_view b);

/// Unbiased estimate of pass@k (Chen et al. 2021): the chance that at least one of k completions
/// drawn from `samples`, `correct` of which pass, passes. k <= samples.
double pass_at_k(int64_t samples, int64_t correct, int64_t k);

/// Code points of a text.
int64_t length_in_characters(std::string_view text);

}  // namespace kvcast
