// SPDX-License-Identifier: Apache-2.0
// Memory on the device for the decoder.
#pragma once

#include <cstddef>

#include "examples/decoder/device_error.h"
#include "kvast/gpu/device.h"

namespace kvast::decoder {

/// Throws DeviceError for anything but success.
inline void require_device(const Status& status) {
  if (!status) throw DeviceError("the GPU: " + status.message());
}

/// `count` numbers in device memory, ordered on one stream.
template <class DeviceType, class Number>
class DeviceArray {
 public:
  using Stream = typename DeviceType::Stream;

  explicit DeviceArray(Stream stream) : stream_(stream) {}
  DeviceArray(DeviceArray&& other) noexcept
      : stream_(other.stream_), memory_(other.memory_), count_(other.count_) {
    other.memory_ = nullptr;
    other.count_ = 0;
  }
  DeviceArray& operator=(DeviceArray&&) = delete;
  ~DeviceArray() {
    if (memory_ != nullptr) DeviceType::release(memory_, stream_);
  }

  /// Room for so many, with whatever is in it. Where it fails the array is as it was.
  Status provide(std::size_t count) {
    if (count <= count_) return {};
    void* memory = nullptr;
    if (Status status = DeviceType::allocate(memory, count * sizeof(Number), stream_); !status)
      return status;
    if (memory_ != nullptr) DeviceType::release(memory_, stream_);
    memory_ = memory;
    count_ = count;
    return {};
  }
  /// Provides them and sends them there; `from` must stay until the stream has passed.
  Status send(const Number* from, std::size_t count) {
    Status status = provide(count);
    status.then([&] { return DeviceType::copy(memory_, from, count * sizeof(Number), stream_); });
    return status;
  }
  Number* data() const { return static_cast<Number*>(memory_); }
  std::size_t count() const { return count_; }

 private:
  Stream stream_;
  void* memory_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace kvast::decoder
