// SPDX-License-Identifier: Apache-2.0
// Storages on the device with their formats as types and all else as values: Kivi, Int8, Int4 and
// Rotated of these differ in what a LayerFormat says, so they are one instantiation.
#pragma once

#include <vector>

#include "bench/quality/on_device.h"
#include "kvast/gpu/on_gpu.cuh"

namespace kvast::quality {

/// Layers whose sealed keys and values have these formats; the dense ones are Dense<...>.
template <class KeyFormat, class ValueFormat>
struct CodedLayers {
  std::vector<gpu::LayerFormat> layers;
  void validate(Caller) const {}  // the storage that it was read from did
};

template <class Kept>
Kept kept_layers(const DeviceStorage& storage) {
  Kept kept;
  if constexpr (requires { kept.layers; }) {
    for (const DeviceStorage::Layer& layer : storage.layers)
      kept.layers.push_back({.coded = layer.coded,
                             .residual = layer.residual,
                             .first_coded = layer.first_coded,
                             .rotates = layer.rotates,
                             .seed = layer.seed});
  }
  return kept;
}

}  // namespace kvast::quality

namespace kvast::gpu {

template <class KeyFormat, class ValueFormat>
struct DeviceFormats<quality::CodedLayers<KeyFormat, ValueFormat>>
    : detail::CodedFormats<KeyFormat, ValueFormat> {
  static LayerFormat of(const quality::CodedLayers<KeyFormat, ValueFormat>& storage, int layer) {
    return storage.layers[static_cast<std::size_t>(layer)];
  }
};

}  // namespace kvast::gpu

namespace kvast::quality {

template <class Kept>
bool keeps(const DeviceStorage& storage) {
  using Formats = gpu::DeviceFormats<Kept>;
  return storage.keys == Formats::Keys::kName && storage.values == Formats::Values::kName;
}

}  // namespace kvast::quality
