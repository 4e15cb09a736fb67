// SPDX-License-Identifier: Apache-2.0
// Every kernel of the library, compiled and not run: ./dev check cuda does it for sm_80, sm_90a and
// sm_100.
#include "kvast/format/codebook.h"
#include "kvast/gpu/allocate.cuh"
#include "kvast/gpu/attend_weights.cuh"
#include "kvast/gpu/convert.cuh"
#include "kvast/gpu/kv_cache.cuh"
#include "kvast/gpu/plan.cuh"
#include "kvast/gpu/pool_ranks.cuh"
#include "kvast/gpu/quantize.cuh"
#include "kvast/gpu/repack.cuh"
#include "kvast/gpu/select.cuh"
#include "kvast/gpu/share_ranks.cuh"
#include "kvast/policy/fastgen.h"
#include "kvast/policy/h2o.h"
#include "kvast/policy/keyformer.h"
#include "kvast/policy/layer_budgets.h"
#include "kvast/policy/snapkv.h"
#include "kvast/policy/streaming_llm.h"
#include "kvast/policy/wrappers.h"
#include "tests/simt/near_mean.h"

namespace kvast {
namespace gpu {

template Status launch(const AddSlab&, Grid, cudaStream_t);
template Status launch(const MoveLists&, Grid, cudaStream_t);
template Status launch(const ClearHeads&, Grid, cudaStream_t);
template Status launch(const SetRows&, Grid, cudaStream_t);
template Status launch(const EndPass&, Grid, cudaStream_t);
template Status launch(const TakeBack&, Grid, cudaStream_t);
template Status launch(const MergeParts&, Grid, cudaStream_t);
template Status launch(const Drop<StreamingLLM>&, Grid, cudaStream_t);
template Status launch(const Drop<StreamingLLM, PartHeads>&, Grid, cudaStream_t);
template Status launch(const Compact&, Grid, cudaStream_t);
template Status launch(const ChooseSealed&, Grid, cudaStream_t);
template Status launch(const EncodeSealed<Int<4>, Part::keys>&, Grid, cudaStream_t);
template Status launch(const EncodeSealed<Int<2>, Part::values>&, Grid, cudaStream_t);
template Status launch(const Export<Part::keys, F16, Int<4>>&, Grid, cudaStream_t);
template Status launch(const Export<Part::values, F16, F16>&, Grid, cudaStream_t);
template Status launch(const Plan&, Grid, cudaStream_t);
template Status launch(const Append<F32>&, Grid, cudaStream_t);
template Status launch(const Append<BF16>&, Grid, cudaStream_t);
template Status launch(const Attend<F16, 64, 8>&, Grid, cudaStream_t);
template Status launch(const Attend<F16, 256, 16>&, Grid, cudaStream_t);
template Status launch(const Attend<BF16, 128, 16>&, Grid, cudaStream_t);
template Status launch(const Attend<F32, 128, 8>&, Grid, cudaStream_t);
template Status launch(const Attend<F32, 256, 8>&, Grid, cudaStream_t);
template Status launch(const Attend<Codes<Int<8>, Int<8>>, 128, 8>&, Grid, cudaStream_t);
template Status launch(const Attend<Codes<Int<4>, Int<4>>, 128, 8>&, Grid, cudaStream_t);
template Status launch(const Attend<Codes<Int<2>, Int<2>>, 128, 8>&, Grid, cudaStream_t);
template Status launch(const Attend<Codes<Int<8>, Int<4>>, 128, 16>&, Grid, cudaStream_t);
template Status launch(const Attend<Codes<Fp8<E4M3>, Fp8<E4M3>>, 256, 16>&, Grid, cudaStream_t);
template Status launch(const AgainWeights<Codes<Int<4>, Int<2>>, 128, WriteWeights>&, Grid,
                       cudaStream_t);
template Status launch(const AgainWeights<F16, 128, WriteWeights>&, Grid, cudaStream_t);
template Status launch(const SavedWeights<WriteWeights>&, Grid, cudaStream_t);
template Status launch(const CountVisible&, Grid, cudaStream_t);
template Status launch(const EncodeSealed<Int<8>, Part::keys>&, Grid, cudaStream_t);
template Status launch(const EncodeSealed<Fp8<E4M3>, Part::values>&, Grid, cudaStream_t);
template Status launch(const Repack<Int<8>, Int<8>>&, Grid, cudaStream_t);
template Status launch(const Repack<Int<4>, Int<2>>&, Grid, cudaStream_t);
template Status launch(const Repack<Fp8<E4M3>, Fp8<E4M3>>&, Grid, cudaStream_t);
template Status launch(const Repack<Int<3>, Int<3>>&, Grid, cudaStream_t);
template Status launch(const detail::Quantize<Codebook<3>, Part::keys>&, Grid, cudaStream_t);
template Status launch(const detail::Quantize<Int<3>, Part::values>&, Grid, cudaStream_t);
template Status launch(const detail::Dequantize<Codebook<3>, Part::values>&, Grid, cudaStream_t);
template Status launch(const detail::Gather&, Grid, cudaStream_t);
template Status launch(const PoolRanks&, Grid, cudaStream_t);
template Status launch(const ShareRanks&, Grid, cudaStream_t);
template Status launch(const AllocateBudget&, Grid, cudaStream_t);
template Status launch(const Select&, Grid, cudaStream_t);
template Status launch(const Rank<H2O>&, Grid, cudaStream_t);
template Status launch(const Rank<FastGen>&, Grid, cudaStream_t);
template Status launch(const Rank<test::NearMean>&, Grid, cudaStream_t);
template Status launch(const Rank<H2O, PartHeads>&, Grid, cudaStream_t);
template Status launch(const Rank<Every<H2O, 8>>&, Grid, cudaStream_t);
template Status launch(const Rank<Pyramid<SnapKV>>&, Grid, cudaStream_t);
template Status launch(const Rank<PerLayerBudget<H2O>>&, Grid, cudaStream_t);
template Status launch(const SavedWeights<ObserveStates<H2O>>&, Grid, cudaStream_t);
template Status launch(const AgainWeights<F16, 128, ObserveStates<H2O>>&, Grid, cudaStream_t);
template Status launch(const ObserveGiven<ObserveStates<H2O>>&, Grid, cudaStream_t);
template Status launch(const Mark<FastGen>&, Grid, cudaStream_t);
template Status launch(const Choose<FastGen>&, Grid, cudaStream_t);
template Status launch(const ObserveGiven<ProfileBlocks<FastGen>>&, Grid, cudaStream_t);
template Status launch(const ObserveGiven<SumWeighed<Keyformer>>&, Grid, cudaStream_t);
template Status launch(const ObserveGiven<ObserveWeighed<Keyformer>>&, Grid, cudaStream_t);
template Status launch(const SumRows&, Grid, cudaStream_t);
template Status launch(const ListSlots&, Grid, cudaStream_t);
template Status launch(const MoveImage&, Grid, cudaStream_t);

}  // namespace gpu
}  // namespace kvast
