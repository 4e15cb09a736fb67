// SPDX-License-Identifier: Apache-2.0
// The first of two translation units that include every header.
#include "everything.h"
#include "steps.h"

Outcome run_in_first();
Outcome run_in_first() { return run_steps(); }
