// `ridge`: the closed-form predictor between two models, alone as a bundle or as the start of
// `kvp`.
#pragma once

#include "train/data/recipe.h"
#include "train/data/window_sampler.h"
#include "train/pair.h"

namespace kvcast::train {

struct ClosedForm {
  TensorMap predictor;    ///< named as predictor_parameter_specs has them; f32, CPU
  double held_out_error;  ///< unexplained share of the variance under the layer map, mean of layers
};

/// Fits the predictor on the sampler's first windows, and sets pair.layer_map first if the recipe
/// lets the fit choose it. Both models run exactly, in f32.
ClosedForm fit_closed_form(Pair& pair, const PairRecipe& recipe, const RidgeFitRecipe& fit,
                           const WindowSampler& sampler, const at::Device& device);

/// Writes the bundle of two models as they are and this predictor.
void train_ridge(const RidgeRecipe& recipe, const at::Device& device, bool quiet);

}  // namespace kvcast::train
