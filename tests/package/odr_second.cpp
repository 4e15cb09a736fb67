// SPDX-License-Identifier: Apache-2.0
// The second of two translation units that include every header.
#include "everything.h"
#include "steps.h"

Outcome run_in_second();
Outcome run_in_second() { return run_steps(); }
