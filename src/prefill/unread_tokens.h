// What has to be read before a prompt can be forecast: the first positions by the base, and by the
// auxiliaries what came before.
#pragma once

#include <span>
#include <stop_token>

#include "prefill/token_runs.h"

namespace kvcast {

/// Layers of the auxiliary that run on what it reads: those that the predictor reads or, where the
/// auxiliary has a say in the answer, all.
int64_t reader_layers(const Models& models, double mix);

/// Rows that the auxiliary has in all of its first `layers` layers, at most the base's.
int64_t known_rows(const Models& models, const Sequence& sequence, int64_t layers);

/// A turn under kv-prediction may leave out layers of the auxiliary: rows that some layer misses
/// are to be run again.
void drop_incomplete_rows(KVCache& auxiliary);

/// A reader only has to leave K/V in the layers that the plan reads (method §3).
RunLayersOptions keys_and_values(int64_t layers, const std::stop_token& stop);

/// What the auxiliaries have not read yet, with their first `layers` layers, of the tokens before
/// their bases' positions, where forecasting starts; at most `max_rows` of each.
TokenPass unread(const Models& models, std::span<Sequence* const> sequences, int64_t layers,
                 int64_t max_rows);

/// The sequences that begin with positions which the plan leaves to the base, and where its run
/// ends.
TokenPass sinks(const Models& models, std::span<Sequence* const> sequences,
                std::span<const int64_t> ends);

/// The base reads these itself. False: stopped.
bool run_sinks(const Models& models, const TokenPass& sinks, PrefillWorkspace& workspace,
               const std::stop_token& stop);

/// The auxiliaries read these without anything being forecast. False: stopped.
bool read_unread(const Models& models, const TokenPass& behind, int64_t layers,
                 PrefillWorkspace& workspace, const std::stop_token& stop);

}  // namespace kvcast
