// What a device can do at most, for the utilisation that the log reports.
#pragma once

#include "train/torch.h"

namespace kvcast::train {

/// Dense bf16 TFLOP/s by the makers' data sheets; 0 for devices that are not known.
double device_peak_teraflops(const at::Device& device);

}  // namespace kvcast::train
