#pragma once

#include "io/json.h"
#include "model/forecast_plan.h"

namespace kvcast {

/// The plan's keys of a kvcast.json of format 2.
void write_plan(const ForecastPlan& plan, Json& json);

}  // namespace kvcast
