// SPDX-License-Identifier: Apache-2.0
#include "tests/simt/fibers.h"

#include <sys/mman.h>

#include <bit>
#include <boost/context/fiber.hpp>
#include <cstring>
#include <map>
#include <new>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace kvast::test {

namespace {

constexpr std::size_t kPage = 4096;
// Frames under sanitizers are several times as large. Pages that nobody touches do not exist.
constexpr std::size_t kStackBytes = std::size_t{256} << 10U;

/// A stack above a page that cannot be touched.
struct GuardedStack {
  boost::context::stack_context allocate() {
    void* memory = mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kPage, PROT_NONE) != 0) throw std::bad_alloc();
    boost::context::stack_context context;
    context.size = kStackBytes;
    context.sp = static_cast<std::byte*>(memory) + kPage + kStackBytes;
    return context;
  }
  void deallocate(boost::context::stack_context& context) {
    munmap(static_cast<std::byte*>(context.sp) - kStackBytes - kPage, kStackBytes + kPage);
  }
};

// Sanitizers must know which stack is in use.
void start_switch([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* bottom,
                  [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fake_stack, bottom, bytes);
#endif
}
void finish_switch([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** bottom,
                   [[maybe_unused]] std::size_t* bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, bottom, bytes);
#endif
}

bool same(const char* one, const char* other) {
  return one == other || std::strcmp(one, other) == 0;
}

std::string place(const Meeting& meeting) {
  return kvast::detail::join_text(meeting.what, " at ", std::string_view(meeting.site.file), ":",
                                  meeting.site.line);
}

}  // namespace

struct Fibers::Fiber {
  boost::context::fiber own;   // where it goes on
  boost::context::fiber main;  // where the scheduler goes on
  const void* stack = nullptr;
  void* fake_stack = nullptr;
  const Meeting* waits = nullptr;
  bool ended = true;
};

Fibers::Fibers() = default;
Fibers::~Fibers() {
  closing_ = true;
  for (std::size_t thread = 0; thread < fibers_.size(); ++thread) enter(static_cast<int>(thread));
}

void Fibers::make(int thread) {
  fibers_.push_back(std::make_unique<Fiber>());
  Fiber& fiber = at(thread);
  GuardedStack stacks;
  const boost::context::stack_context stack = stacks.allocate();
  fiber.stack = static_cast<std::byte*>(stack.sp) - stack.size;
  fiber.own = boost::context::fiber(std::allocator_arg,
                                    boost::context::preallocated(stack.sp, stack.size, stack),
                                    stacks, [this, thread](boost::context::fiber&& main) {
                                      at(thread).main = std::move(main);
                                      finish_switch(nullptr, &main_stack_, &main_stack_bytes_);
                                      loop(thread);
                                      start_switch(nullptr, main_stack_, main_stack_bytes_);
                                      return std::move(at(thread).main);
                                    });
}

// A fiber runs one body after another, each for another block.
void Fibers::loop(int thread) {
  while (!closing_) {
    try {
      if (!abandoning_) (*body_)(thread);
    } catch (const Abandoned&) {
    } catch (...) {
      if (!error_) error_ = std::current_exception();
    }
    at(thread).ended = true;
    --running_;
    set_ready(thread, false);
    leave(thread);
  }
}

void Fibers::enter(int thread) {
  Fiber& fiber = at(thread);
  start_switch(&main_fake_stack_, fiber.stack, kStackBytes);
  fiber.own = std::move(fiber.own).resume();
  finish_switch(main_fake_stack_, nullptr, nullptr);
}

void Fibers::leave(int thread) {
  Fiber& fiber = at(thread);
  start_switch(&fiber.fake_stack, main_stack_, main_stack_bytes_);
  fiber.main = std::move(fiber.main).resume();
  finish_switch(fiber.fake_stack, &main_stack_, &main_stack_bytes_);
}

void Fibers::set_ready(int thread, bool ready) {
  std::uint64_t& word = ready_[static_cast<std::size_t>(thread / 64)];
  const std::uint64_t bit = std::uint64_t{1} << (thread % 64);
  word = ready ? word | bit : word & ~bit;
}

int Fibers::next(Order order, Random& random) const {
  const int words = static_cast<int>(ready_.size());
  const int begin = order == Order::random ? random.below(words) : 0;
  for (int step = 0; step < words; ++step) {
    const int at = order == Order::reverse ? words - 1 - step : (begin + step) % words;
    const std::uint64_t word = ready_[static_cast<std::size_t>(at)];
    if (word == 0) continue;
    if (order == Order::forward) return at * 64 + std::countr_zero(word);
    if (order == Order::reverse) return at * 64 + 63 - std::countl_zero(word);
    const int turn = random.below(64);
    return at * 64 + (turn + std::countr_zero(std::rotr(word, turn))) % 64;
  }
  return -1;
}

void Fibers::run(int count, Order order, std::uint64_t seed, const std::string& where,
                 const std::function<void(int)>& body) {
  while (static_cast<int>(fibers_.size()) < count) make(static_cast<int>(fibers_.size()));
  ready_.assign(static_cast<std::size_t>((count + 63) / 64), 0);
  body_ = &body;
  error_ = nullptr;
  where_ = where;
  count_ = count;
  running_ = count;
  for (int thread = 0; thread < count; ++thread) {
    at(thread).ended = false;
    at(thread).waits = nullptr;
    set_ready(thread, true);
  }
  Random random(seed);
  while (running_ > 0 && !error_) {
    const int thread = next(order, random);
    if (thread < 0) {
      error_ =
          std::make_exception_ptr(SimtError(where_ + ": threads wait for ever: " + who_waits()));
    } else {
      enter(thread);
    }
  }
  if (running_ > 0) abandon();
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Fibers::meet(int thread, Meeting& meeting, const char* what, Caller site) {
  if (meeting.arrived == 0) {
    meeting.what = what;
    meeting.site = site;
  } else if (meeting.site.line != site.line || !same(meeting.what, what) ||
             !same(meeting.site.file, site.file)) {
    Meeting here = meeting;
    here.what = what;
    here.site = site;
    throw SimtError(kvast::detail::join_text(where_, ": threads diverge: thread ", thread,
                                             " is in ", place(here), " while others are in ",
                                             place(meeting)));
  }
  if (++meeting.arrived == meeting.size) {
    meeting.arrived = 0;
    ++meeting.round;
    for (int other = meeting.first; other < meeting.first + meeting.size; ++other) {
      if (other == thread) continue;
      at(other).waits = nullptr;
      set_ready(other, true);
    }
    return;
  }
  at(thread).waits = &meeting;
  set_ready(thread, false);
  leave(thread);
  if (abandoning_) throw Abandoned{};
}

std::string Fibers::who_waits() const {
  std::map<std::string, int> places;
  int ended = 0;
  for (int thread = 0; thread < count_; ++thread) {
    const Fiber& fiber = *fibers_[static_cast<std::size_t>(thread)];
    ended += fiber.ended ? 1 : 0;
    if (fiber.waits != nullptr) ++places[place(*fiber.waits)];
  }
  std::string text;
  for (const auto& [where, threads] : places)
    text += kvast::detail::join_text(text.empty() ? "" : ", ", threads, " in ", where);
  return kvast::detail::join_text(text, ", ", ended, " have ended");
}

// Those that wait are unwound, so that what they own is freed and their fibers can be used again.
void Fibers::abandon() {
  abandoning_ = true;
  for (int thread = 0; thread < count_; ++thread) {
    if (!at(thread).ended) enter(thread);
  }
  abandoning_ = false;
}

}  // namespace kvast::test
