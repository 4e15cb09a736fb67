// SPDX-License-Identifier: Apache-2.0
// The rows of the table of policies, by translation unit.
#pragma once

namespace kvast::bench {

void add_recency_rows();
void add_attention_rows();
void add_prompt_rows();

}  // namespace kvast::bench
