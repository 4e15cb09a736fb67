// SPDX-License-Identifier: Apache-2.0
// A device that does its work late, as CUDA's do: when somebody waits. What the host knows then is
// what it was told some passes ago.
#pragma once

#include <deque>
#include <map>
#include <set>

#include "tests/simt/device.h"

namespace kvast::test {

/// One state for all: tests are one after another.
struct QueueingDevice {
  using Stream = SimtDevice::Stream;
  using Work = SimtDevice::Work;

  inline static Work* captured = nullptr;  ///< where work goes that is captured, not queued

  static Status allocate(void*& memory, std::size_t bytes, Stream stream) {
    Status status = SimtDevice::allocate(memory, bytes, stream);
    if (status) sizes_[static_cast<std::byte*>(memory)] = bytes;
    return status;
  }
  static void release(void* memory, Stream stream) {
    queue_.push_back([=]() -> Status {
      sizes_.erase(static_cast<std::byte*>(memory));
      SimtDevice::release(memory, stream);
      return {};
    });
  }
  static Status allocate_host(void*& memory, std::size_t bytes) {
    Status status = SimtDevice::allocate_host(memory, bytes);
    if (status) pinned_.insert(memory);
    return status;
  }
  static void release_host(void* memory) {
    pinned_.erase(memory);
    SimtDevice::release_host(memory);
  }
  static Status copy(void* to, const void* from, std::size_t bytes, Stream stream) {
    if (!is_ours(from)) {  // read at once, as the host may change it
      const auto* begin = static_cast<const std::byte*>(from);
      return act([to, numbers = std::vector<std::byte>(begin, begin + bytes)]() -> Status {
        std::memcpy(to, numbers.data(), numbers.size());
        return {};
      });
    }
    if (is_ours(to)) return act([=] { return SimtDevice::copy(to, from, bytes, stream); });
    if (Status status = wait(stream); !status) return status;
    return SimtDevice::copy(to, from, bytes, stream);
  }
  static Status fill(void* memory, int byte, std::size_t bytes, Stream stream) {
    return act([=] { return SimtDevice::fill(memory, byte, bytes, stream); });
  }
  static Status wait(Stream) {
    if (captured != nullptr) return {StatusCode::device_failed, "wait: the stream is capturing"};
    while (!queue_.empty()) {
      const auto work = queue_.front();
      queue_.pop_front();
      if (Status status = work(); !status) return status;
    }
    return {};
  }
  static bool capturing(Stream) { return captured != nullptr; }
  template <class Kernel>
  static int together(gpu::Grid grid) {
    return SimtDevice::together<Kernel>(grid);
  }
  template <class Kernel>
  static Status launch(const Kernel& kernel, gpu::Grid grid, Stream stream) {
    return act([=] { return SimtDevice::launch(kernel, grid, stream); });
  }
  static void replay(const Work& work) { queue_.insert(queue_.end(), work.begin(), work.end()); }

 private:
  static Status act(std::function<Status()> work) {
    if (captured != nullptr) {
      captured->push_back(std::move(work));
    } else {
      queue_.push_back(std::move(work));
    }
    return {};
  }
  /// The device's, or host memory that copies reach at any time.
  static bool is_ours(const void* memory) {
    const auto* at = static_cast<const std::byte*>(memory);
    if (pinned_.count(const_cast<void*>(memory)) > 0) return true;
    auto after = sizes_.upper_bound(const_cast<std::byte*>(at));
    if (after == sizes_.begin()) return false;
    --after;
    return at < after->first + after->second;
  }

  inline static std::deque<std::function<Status()>> queue_;
  inline static std::map<std::byte*, std::size_t> sizes_;
  inline static std::set<void*> pinned_;
};
static_assert(gpu::Device<QueueingDevice>);

}  // namespace kvast::test
