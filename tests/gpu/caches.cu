// SPDX-License-Identifier: Apache-2.0
// Whole caches, compiled and not run.
#include "kvast/gpu/convert.cuh"
#include "kvast/policy/ada_heads.h"
#include "kvast/policy/composites.h"
#include "kvast/policy/fastgen.h"
#include "kvast/policy/full.h"
#include "kvast/policy/h2o.h"
#include "kvast/policy/keyformer.h"
#include "kvast/policy/snapkv.h"
#include "kvast/policy/streaming_llm.h"

namespace kvast {

template class KVCache<StreamingLLM, OnGpu<Kivi<4, 2>>>;
template class KVCache<FastGen, OnGpu<Dense<float>>>;
template class KVCache<Keyformer, OnGpu<Dense<float>>>;
template class KVCache<AdaHeads<SnapKV>, OnGpu<Dense<float>>>;
template class KVCache<PerLayer<PerHead<Full, H2O>, PrefillThenDecode<SnapKV, StreamingLLM>>,
                       OnGpu<Dense<half>>>;

namespace gpu {

template Status to_device(KVCache<SnapKV, Kivi<4>>&, KVCache<SnapKV, OnGpu<Kivi<4>>>&, int, Caller);
template Status to_host(KVCache<SnapKV, OnGpu<Kivi<4>>>&, int, KVCache<SnapKV, Kivi<4>>&, Caller);

}  // namespace gpu
}  // namespace kvast
