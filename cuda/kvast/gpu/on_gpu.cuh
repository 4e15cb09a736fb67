// SPDX-License-Identifier: Apache-2.0
// OnGpu<S>: a storage whose blocks live in device memory, and which formats its kernels have.
#pragma once

#include "kvast/gpu/attend_shape.cuh"
#include "kvast/gpu/cuda_device.cuh"
#include "kvast/storage/dense.h"
#include "kvast/storage/float8.h"
#include "kvast/storage/integer.h"
#include "kvast/storage/kivi.h"
#include "kvast/storage/rotated.h"
#include "kvast/storage/weightless.h"

namespace kvast::gpu {

#if !defined(__CUDACC__)
struct CudaDevice;  // known to nvcc alone
#endif

/// How a layer's tokens are kept, as far as it is known at run time.
struct LayerFormat {
  bool coded = false;
  int residual = 0;
  int first_coded = 0;
  bool rotates = false;    ///< what is stored
  std::uint64_t seed = 0;  ///< of keys; values have the next one
};

/// Of a storage: the format of waiting tokens, and of sealed keys and values; whether attention
/// reads them, and as what. What has no specialisation has no layout on the device.
template <class StorageType>
struct DeviceFormats {
  static constexpr bool known = false;
};

template <class Element>
struct DeviceFormats<Dense<Element>> {
  static constexpr bool known = true;
  static constexpr bool codes = false;
  using Waiting = typename Dense<Element>::Format;
  using Keys = Waiting;
  using Values = Waiting;
  static constexpr bool attends = true;
  using Kept = Waiting;
  static LayerFormat of(const Dense<Element>&, int) { return {}; }
};

namespace detail {

template <class KeyFormat, class ValueFormat>
struct CodedFormats {
  static constexpr bool known = true;
  static constexpr bool codes = true;
  using Waiting = F16;
  using Keys = KeyFormat;
  using Values = ValueFormat;
  static constexpr bool attends = attends_codes<KeyFormat, ValueFormat>();
  using Kept = std::conditional_t<attends, Codes<KeyFormat, ValueFormat>, Waiting>;

  template <class StorageType>
  static LayerFormat of(const StorageType& storage, int layer) {
    if (storage.keep.layers.contains(layer)) return {};
    LayerFormat format{.coded = true, .first_coded = storage.keep.tokens};
    if constexpr (requires { storage.residual; }) format.residual = storage.residual;
    return format;
  }
};

}  // namespace detail

template <int KeyBits, int ValueBits>
struct DeviceFormats<Kivi<KeyBits, ValueBits>>
    : detail::CodedFormats<Int<KeyBits>, Int<ValueBits>> {};
template <int Bits>
struct DeviceFormats<kvast::detail::IntegerStorage<Bits>>
    : detail::CodedFormats<Int<Bits>, Int<Bits>> {};
template <class Kind>
struct DeviceFormats<Float8<Kind>> : detail::CodedFormats<Fp8<Kind>, Fp8<Kind>> {};
template <class Inner>
struct DeviceFormats<Weightless<Inner>> : DeviceFormats<Inner> {};
template <class Inner>
struct DeviceFormats<Rotated<Inner>> : DeviceFormats<Inner> {
  static LayerFormat of(const Rotated<Inner>& storage, int layer) {
    LayerFormat format = DeviceFormats<Inner>::of(storage, layer);
    format.rotates = format.coded;
    format.seed = storage.seed;
    return format;
  }
};

}  // namespace kvast::gpu

namespace kvast {

/// `S` on a GPU: KVCache<Policy, OnGpu<Kivi<4>>>. Codes and metadata are those of the CPU.
template <class S, class DeviceType = gpu::CudaDevice>
struct OnGpu {
  S storage{};
};

}  // namespace kvast
