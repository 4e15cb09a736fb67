# SPDX-License-Identifier: Apache-2.0
# The steps of ./dev check, read by ./dev: each is a function step_<name> that fails with a message.
# shellcheck shell=sh disable=SC2154,SC2086,SC2016  # variables of ./dev; lists of words; a script in quotes

check_steps='formatting caps headers cuda package noexcept portable asan'

# check [steps]: runs them all, each in a shell of its own, and fails at the end when one did. A step that cannot run
# here says why and returns 77.
check() {
  [ $# -gt 0 ] || set -- $check_steps
  passed=0
  skipped=
  failed=
  for step; do
    case " $check_steps " in *" $step "*) ;; *) stop "check: no step '$step'; there are: $check_steps" ;; esac
    say "check: $step"
    start=$(date +%s)
    # In a process of its own: as a condition, the step would go on after its first failed command.
    set +e
    (set -e; "step_$step")
    status=$?
    set -e
    if [ $status = 0 ]; then
      passed=$((passed + 1))
      say "check: $step passed in $(($(date +%s) - start)) s"
    elif [ $status = 77 ]; then
      skipped="$skipped $step"
    else
      failed="$failed $step"
      say "check: $step FAILED" >&2
    fi
  done
  set -- $failed
  say "check: $passed passed, $# failed${failed:+:$failed}${skipped:+, skipped:$skipped}"
  [ $# = 0 ]
}

# Sources that are in the repository or about to be.
sources() {
  git ls-files -co --exclude-standard "$@" | while read -r file; do
    if [ -f "$file" ]; then echo "$file"; fi
  done
}

step_formatting() {
  unformatted=$(sources '*.h' '*.cpp' '*.cuh' '*.cu' | xargs -P "$jobs" -n 16 sh -c '
    for file; do clang-format-14 --dry-run --Werror "$file" 2>/dev/null || echo "  $file"; done' each)
  [ -z "$unformatted" ] || stop "./dev format repairs these:
$unformatted"
}

step_caps() {
  bad=$(mktemp)
  sources '*.h' '*.cpp' '*.cuh' '*.cu' '*.py' '*.sh' '*.cmake' '*CMakeLists.txt' dev | while read -r file; do
    lines=$(wc -l <"$file")
    [ "$lines" -le 400 ] || echo "$file has $lines lines, at most 400 are allowed"
    case $file in
      tests/compile_fail/*.cpp | tests/compile_fail/*.cu) ;;
      *.h | *.cpp | *.cuh | *.cu)
        head -n 1 "$file" | grep -qx '// SPDX-License-Identifier: Apache-2.0' ||
          echo "$file: the first line must be // SPDX-License-Identifier: Apache-2.0"
        ;;
    esac
  done >"$bad"
  sources 'include/*' 'cuda/*' | xargs grep -nE '^[[:space:]]*#[[:space:]]*define' | grep -vE 'define KVAST_HD( |$)' |
    sed 's/$/   <- the only macro may be KVAST_HD/' >>"$bad" || true
  sources 'include/*' |
    xargs grep -niE '#[[:space:]]*include[[:space:]]*[<"](cuda|cub/|thrust/|nv|cooperative_groups|mma|device_)' |
    sed 's/$/   <- include\/ must not include CUDA headers/' >>"$bad" || true
  cat "$bad" >&2
  [ ! -s "$bad" ] || { rm -f "$bad"; return 1; }
  rm -f "$bad"
}

warnings='-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror'

# Every header alone; whether it names all that it includes is the same for each compiler. Then all of them together
# with each compiler and set of instructions, which chooses among *_portable.h, *_avx2.h and *_avx512.h.
step_headers() {
  export CXX="${CXX:-g++}" warnings
  [ -n "$(sources 'include/*.h')" ] || stop "there are no headers"
  x86=
  [ "$(uname -m)" != x86_64 ] || x86=yes
  sources 'include/*.h' | sed 's,^include/,,' | xargs -P "$jobs" -n 1 sh -c '
    flags=
    case $1 in
      *_avx2.h) flags=-march=x86-64-v3 ;;
      *_avx512.h) flags=-march=x86-64-v4 ;;
      */openmp*) flags=-fopenmp ;;
      *calibrate* | */eigen*) flags="-isystem /usr/include/eigen3" ;;
    esac
    case $0:$1 in :*_avx*.h) exit 0 ;; esac
    printf "#include \"%s\"\n" "$1" | "$CXX" -std=c++20 $warnings -Iinclude $flags -fsyntax-only -x c++ - ||
      { echo "$1 does not compile alone: $CXX $flags" >&2; exit 1; }
  ' "$x86"
  variants="$CXX: clang++:"
  [ -z "$x86" ] || variants="$variants $CXX:-march=x86-64-v3 $CXX:-march=x86-64-v4 clang++:-march=x86-64-v3 clang++:-march=x86-64-v4"
  for variant in $variants; do
    sources 'include/*.h' | grep -vE '_(avx[0-9]+|portable)[.]h$' | sed 's,^include/\(.*\),#include "\1",' |
      "${variant%%:*}" -std=c++20 $warnings -Iinclude ${variant#*:} -isystem /usr/include/eigen3 -fopenmp \
        -fsyntax-only -x c++ - || stop "the headers do not compile together: $variant"
  done
}

# Every header of the GPU backend alone (for the device only, which is half the time), and its kernels for old
# and new architectures. Needs no device.
step_cuda() {
  command -v nvcc >/dev/null || { say "check: cuda SKIPPED: there is no nvcc (CUDA toolkit 13)"; return 77; }
  mkdir -p build/check/cuda
  export nvcc_flags='-std=c++20 -Iinclude -Icuda -I. -Werror all-warnings -Xcompiler -Wall,-Wextra'
  { echo tests/gpu/kernels.cu; echo tests/gpu/caches.cu; echo bench/quality/gpu/device_model.cu; sources 'tests/compile_fail/*.cu'; sources 'cuda/*.cuh' 'cuda/*.h'; } | xargs -P "$jobs" -n 1 sh -c '
    case $1 in
      tests/compile_fail/*)
        said=build/check/cuda/$(basename "$1").txt
        expected=$(sed -n "1s,^// expect: ,,p" "$1")
        # with the flags of a user: a warning would not do
        if nvcc -std=c++20 -Iinclude -Icuda -I. -arch=sm_80 -c "$1" -o "$said.o" >"$said" 2>&1; then
          echo "$1 compiles, but must be refused with: $expected" >&2; exit 1
        fi
        grep -qF -- "$expected" "$said" ||
          { cat "$said"; echo "$1 is refused, but not with: $expected" >&2; exit 1; }
        ;;
      */caches.cu)
        nvcc $nvcc_flags -arch=sm_90a -c "$1" -o build/check/cuda/caches.o ||
          { echo "$1 does not compile for sm_90a" >&2; exit 1; }
        ;;
      *.cu)
        nvcc $nvcc_flags -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a \
          -gencode arch=compute_100,code=sm_100 -c "$1" -o "build/check/cuda/$(basename "$1" .cu).o" ||
          { echo "$1 does not compile for sm_80, sm_90a and sm_100" >&2; exit 1; }
        ;;
      *)
        alone=build/check/cuda/$(basename "$1").cu
        printf "#include \"%s\"\n" "${1#cuda/}" >"$alone"
        nvcc $nvcc_flags -arch=sm_80 -ptx "$alone" -o "$alone.ptx" ||
          { echo "$1 does not compile alone" >&2; exit 1; }
        rm -f "$alone" "$alone.ptx"
        ;;
    esac' cuda
}

# consumer <name> [cmake arguments]: configures, builds and runs tests/package in build/check/<name>.
consumer() {
  name=$1
  shift
  rm -rf "build/check/$name"
  cmake -S tests/package -B "build/check/$name" -G Ninja -DCMAKE_EXPORT_COMPILE_COMMANDS=ON "$@" >/dev/null
  ninja -C "build/check/$name" -j "$jobs"
  if grep -q 'march=native' "build/check/$name/compile_commands.json"; then
    stop "$name: our flags reach the user's targets"
  fi
  ctest --test-dir "build/check/$name" --output-on-failure --no-tests=error
}

step_package() {
  prefix=$root/build/check/prefix
  rm -rf "$prefix" build/check/library
  cmake -S . -B build/check/library -G Ninja -DKVAST_BUILD_TESTS=OFF -DKVAST_BUILD_BENCH=OFF \
    -DKVAST_BUILD_EXAMPLES=OFF "-DCMAKE_INSTALL_PREFIX=$prefix" >/dev/null
  cmake --install build/check/library >/dev/null
  consumer find_package "-DCMAKE_PREFIX_PATH=$prefix"
  if ! command -v nvcc >/dev/null; then
    say "check: package: kvast::gpu is left out: there is no nvcc (CUDA toolkit 13)"
  else
    consumer find_gpu "-DCMAKE_PREFIX_PATH=$prefix" -DKVAST_COMPONENTS=gpu -DCMAKE_CUDA_ARCHITECTURES=80
  fi
  consumer add_subdirectory "-DKVAST_SOURCE=$root"
}

step_noexcept() {
  build noexcept
  run_tests noexcept
}

# The fallbacks of the SIMD code: only what has them.
step_portable() {
  configure portable
  targets=$(ninja -C build/portable -t targets all | sed -n 's/^\(test_core\|test_format\|test_host\|test_storage\): .*/\1/p')
  [ -n "$targets" ] || stop "the tests of core, format, host and storage are not there"
  build portable $targets
  run_tests portable -R '^(core|format|host|storage)[.]'
}

# What touches memory: verbs, formats, storages, kernels on fibers, and every policy by way of the laws. The policies'
# own tests, calibration, the decoder and tools run the same code again, and compile for as long as all of it.
step_asan() {
  configure asan
  groups='core format storage host cache laws simt'
  build asan $(printf 'test_%s ' $groups)
  # long sequences and many runs take minutes here, and find what shorter ones do
  run_tests asan -R "^($(echo "$groups" | tr ' ' '|'))[.]" -E 'SplitsOfALongSequence|InstructionSets'
}
