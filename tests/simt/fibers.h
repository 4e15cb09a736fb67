// SPDX-License-Identifier: Apache-2.0
// The threads of a block as fibers on one thread of the processor: they run until they meet.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kvast/core/error.h"
#include "tests/support/random.h"

namespace kvast::test {

/// Which of the threads that can go on does so next.
enum class Order : std::uint8_t { forward, reverse, random };

/// A kernel's mistake: threads that meet in different places, or wait for ever.
class SimtError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Where threads [first, first + size) wait for each other, again and again.
struct Meeting {
  int first = 0;
  int size = 0;
  int arrived = 0;
  std::uint64_t round = 0;  ///< how often all have met
  const char* what = "";
  Caller site{};
};

/// A pool of fibers; stacks are made once and kept. One run at a time, on one thread.
class Fibers {
 public:
  Fibers();
  ~Fibers();
  Fibers(const Fibers&) = delete;
  Fibers& operator=(const Fibers&) = delete;

  /// Runs body(thread) for all threads in [0, count), and returns when each has ended. Throws
  /// SimtError (with `where` in front) where they cannot, and what a body throws.
  void run(int count, Order order, std::uint64_t seed, const std::string& where,
           const std::function<void(int)>& body);

  /// From within a body: waits until all of the meeting are here.
  void meet(int thread, Meeting& meeting, const char* what, Caller site);

 private:
  struct Fiber;
  struct Abandoned {};

  Fiber& at(int thread) { return *fibers_[static_cast<std::size_t>(thread)]; }
  void make(int thread);
  void loop(int thread);
  void enter(int thread);
  void leave(int thread);
  int next(Order order, Random& random) const;
  void set_ready(int thread, bool ready);
  std::string who_waits() const;
  void abandon();

  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<std::uint64_t> ready_;  ///< a bit per thread
  const std::function<void(int)>* body_ = nullptr;
  std::exception_ptr error_;
  std::string where_;
  int count_ = 0;
  int running_ = 0;  ///< threads that have not ended
  bool abandoning_ = false;
  bool closing_ = false;
  void* main_fake_stack_ = nullptr;  ///< AddressSanitizer's
  const void* main_stack_ = nullptr;
  std::size_t main_stack_bytes_ = 0;
};

}  // namespace kvast::test
