// Everything a program needs: load a model or bundle, prefill with a chosen strategy, stream
// tokens.
#pragma once

#include "kvcast/batch.h"
#include "kvcast/chat.h"
#include "kvcast/macros.h"
#include "kvcast/model.h"
#include "kvcast/result.h"
#include "kvcast/sampling.h"
#include "kvcast/session.h"
#include "kvcast/version.h"
