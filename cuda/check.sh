#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# On a machine with an NVIDIA GPU, in one command: builds for its architecture, runs the GPU's tests, compute-sanitizer
# on the small ones, and the benches; writes JSON to bench/results. Needs no network. Exits 3 without a GPU.
#   cuda/check.sh               all of it
#   cuda/check.sh --bundle DIR  on a machine with a network: what the other one may lack, into DIR
#   cuda/check.sh --with DIR    uses such a bundle
set -eu
cd -- "$(dirname -- "$0")/.."

say() { printf '%s\n' "cuda/check.sh: $*"; }
stop() { printf '%s\n' "cuda/check.sh: $*" >&2; exit 1; }

benchmark_version=1.8.3
bundle=
case ${1:-} in
  --bundle)
    to=${2:?--bundle needs a directory}
    [ ! -e "$to" ] || stop "$to exists already"
    [ -d /usr/src/googletest ] || stop "/usr/src/googletest is missing (Debian and Ubuntu: googletest)"
    [ -d /usr/include/eigen3 ] || stop "/usr/include/eigen3 is missing (Debian and Ubuntu: libeigen3-dev)"
    [ -d /usr/include/nlohmann ] || stop "/usr/include/nlohmann is missing (Debian and Ubuntu: nlohmann-json3-dev)"
    mkdir -p "$(dirname -- "$to")"
    part=$(mktemp -d "$to.XXXXXX")
    trap 'rm -rf "$part"' EXIT
    cp -R /usr/src/googletest "$part/googletest"
    mkdir -p "$part/eigen/include" "$part/eigen/share/eigen3"
    cp -R /usr/include/eigen3 "$part/eigen/include/"
    cp -R /usr/share/eigen3/cmake "$part/eigen/share/eigen3/"
    mkdir -p "$part/json/include"
    cp -R /usr/include/nlohmann "$part/json/include/"
    curl -fsSL "https://github.com/google/benchmark/archive/refs/tags/v$benchmark_version.tar.gz" |
      tar -xz -C "$part" || stop "Google Benchmark $benchmark_version could not be fetched from GitHub"
    mv "$part/benchmark-$benchmark_version" "$part/benchmark"
    chmod 755 "$part"
    mv "$part" "$to"
    say "bundled into $to"
    exit 0
    ;;
  --with) bundle=$(cd -- "${2:?--with needs a directory}" && pwd) ;;
  '') ;;
  *) stop "unknown argument $1" ;;
esac

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L 2>/dev/null | grep -q .; then
  say "no NVIDIA GPU here: nothing was run"
  exit 3
fi
command -v nvcc >/dev/null || PATH=$PATH:/usr/local/cuda/bin
command -v nvcc >/dev/null || stop "there is no nvcc (CUDA toolkit 13)"

jobs=$(getconf _NPROCESSORS_ONLN)
prefix=
if [ -n "$bundle" ]; then
  prefix=$PWD/build/gpu-prefix
  for package in googletest benchmark; do
    cmake -S "$bundle/$package" -B "build/gpu-$package" -DCMAKE_BUILD_TYPE=Release \
      -DCMAKE_INSTALL_PREFIX="$prefix" -DBENCHMARK_ENABLE_TESTING=OFF >/dev/null
    cmake --build "build/gpu-$package" -j "$jobs" --target install >/dev/null
  done
  prefix="$prefix;$bundle/eigen;$bundle/json"
fi

cmake -S . -B build/gpu -DCMAKE_BUILD_TYPE=Release -DKVAST_CUDA_ONLY=ON \
  -DCMAKE_CUDA_ARCHITECTURES=native "-DCMAKE_PREFIX_PATH=$prefix" >/dev/null
cmake --build build/gpu -j "$jobs" --target test_gpu test_gpu_decoder bench-gpu

# Small cases that launch every kernel: a sanitizer makes them 10 to 100 times as slow. Tests fill memory with NaN, which
# initcheck takes for written: of that, results tell.
small='Append.*:Plan.*:Pool.*:Gather.*:Quantized/*:Rotate.*:Fragments.*:GpuAttend.*'
small="$small:Attend.NothingToSee*:Attend.DeadTokens*:Attend.Windows*:Attend.CompactedPositions*"
small="$small:AttendCodesOptions.Windows*:AttendCodesWidths/*:GpuRotatedOptions.*:Weights.OfCodes*:Weights.OfAStep*:Weights.OfManyQueries*:Weights.BehindASliding*"
small="$small:GpuSelect.*:GpuAllocate.*:GpuPoolRanks.*:GpuShareRanks.*:GpuRepack.FourBits*:GpuPolicies.WithoutAttention"
small="$small:GpuHeads.Wrapped:GpuComposed.ByHead:GpuComposed.ByPhase"
small="$small:GpuPolicies.Scissorhands:GpuFastGen.ByAttend:GpuKeyformer.ByAttend:GpuConvert.*:GpuCache.ADropped*:GpuCache.OldHeads*:GpuCache.StreamingLLM*:GpuCache.Settling*:GpuCacheFailure.*"

export KVAST_REQUIRE_GPU=1  # tests and benches that find none fail
failed=
build/gpu/tests/test_gpu || failed="$failed tests"
KVAST_LONG_TESTS=1 build/gpu/tests/test_gpu \
  --gtest_filter='GpuPolicies.*:GpuBytes.*:GpuFastGen.*:GpuKeyformer.*:GpuHeads.M*' || failed="$failed long-tests"
KVAST_LONG_TESTS=1 build/gpu/tests/test_gpu_decoder || failed="$failed decoder"
for tool in memcheck racecheck synccheck initcheck; do
  say "compute-sanitizer $tool"
  compute-sanitizer --tool "$tool" --error-exitcode 1 build/gpu/tests/test_gpu \
    --gtest_filter="$small" ||
    failed="$failed $tool"
done
say "compute-sanitizer memcheck of the decoder"
compute-sanitizer --tool memcheck --error-exitcode 1 build/gpu/tests/test_gpu_decoder \
  --gtest_filter='*h2o*rotated_kivi_bits_4*' || failed="$failed decoder-memcheck"

device=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
toolkit=$(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
result=bench/results/gpu-$(printf '%s' "$device" | tr ' /' '--').json
rm -f "$result"
build/gpu/bin/bench-gpu --benchmark_out="$result" --benchmark_out_format=json \
  "--benchmark_context=device=$device,driver=$driver,toolkit=$toolkit,commit=$commit" ||
  failed="$failed bench"
rm -f bench/results/gpu-peers.json
if command -v python3 >/dev/null; then
  python3 bench/peers/gpu_attention.py --out "bench/results/gpu-peers.json" \
    --driver "$driver" --toolkit "$toolkit" --commit "$commit" || failed="$failed peers"
fi
if [ -s "$result" ]; then say "figures are in $result"; else failed="$failed no-figures"; fi
[ -z "$failed" ] || stop "FAILED:$failed"
say "passed"
