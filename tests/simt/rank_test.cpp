// SPDX-License-Identifier: Apache-2.0
// The rank kernel writes what the policy says of each token, and says which heads act.
#include "tests/simt/histories.h"

namespace kvast {
namespace {

using test::TestDevice;

/// Its Head is a sum that depends on the order of its parts.
struct Nearest {
  int tokens_kept = 1 << 20;
  static constexpr Needs needs{.key_norms = true};
  struct State {};
  struct Head {
    float sum = 0.0F;
  };
  KVAST_HD Head summarize(Token token, State) const { return {token.key_norm}; }
  KVAST_HD Head merge(Head left, Head right) const { return {left.sum * 0.5F + right.sum}; }
  KVAST_HD float rank(Token token, State, Head head) const { return token.key_norm - head.sum; }
  KVAST_HD Budget budget(Layer) const { return tokens(tokens_kept); }
};

/// The rank of a token, of all tokens of its head in order of position.
template <class Policy>
float rank_of(const Policy& policy, const std::vector<test::TokenSeen>& all, std::size_t at) {
  const auto state_of = [&](std::size_t token) {
    typename Policy::State state{};
    if constexpr (!std::is_empty_v<typename Policy::State>)
      std::memcpy(&state, all[token].state, sizeof state);
    return state;
  };
  if constexpr (detail::RanksByHead<Policy>) {
    const std::size_t run = (all.size() + 127) / 128;  // runs of neighbours, 128 at most
    typename Policy::Head head{};
    for (std::size_t first = 0; first < all.size(); first += run) {
      auto part = policy.summarize(all[first].token, state_of(first));
      for (std::size_t token = first + 1; token < std::min(first + run, all.size()); ++token)
        part = policy.merge(part, policy.summarize(all[token].token, state_of(token)));
      head = first == 0 ? part : policy.merge(head, part);
    }
    return policy.rank(all[at].token, state_of(at), head);
  } else {
    return policy.rank(all[at].token, state_of(at));
  }
}

/// `keeps` lets all tokens stay; under `drops` heads act.
template <class Policy>
void check_ranks(Policy keeps, Policy drops, bool acts, int prompt = 100) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    test::Twins<Policy, Dense<float>, true> twins(test::kShapes, keeps, {});
    ASSERT_NO_FATAL_FAILURE(twins.pass({prompt, 37}, true));
    ASSERT_NO_FATAL_FAILURE(twins.pass({1, 1}, false));
    auto& device = twins.device();
    for (int layer = 0; layer < 2; ++layer) {
      const gpu::LayerView& view = device.view(layer);
      const test::DeviceVector<gpu::LayerView> views(1, view);
      using Kernel = gpu::Rank<Policy>;
      test::DeviceVector<int> slots(static_cast<std::size_t>(view.tables()) * 512);
      const Kernel kernel{.place = {views.data(), view.tables()},
                          .policy = drops,
                          .asked = {.layers = 2},
                          .orders = {slots.data(), 512}};
      ASSERT_TRUE(
          TestDevice::launch(kernel, {view.tables(), Kernel::kSharedBytes}, test::stream()));
      test::wait();
      for (int table = 0; table < view.tables(); ++table) {
        auto seen = test::tokens_of(device, drops, table / 2, layer, table % 2);
        ASSERT_EQ(seen.size(), static_cast<std::size_t>(table / 2 == 0 ? prompt + 1 : 38));
        for (test::TokenSeen& one : seen) ++one.token.age;  // the kernel takes a pass as open
        for (std::size_t at = 0; at < seen.size(); ++at) {
          ASSERT_EQ(seen[at].acts, acts);
          if (!acts) continue;
          ASSERT_EQ(bits_as<std::uint32_t>(seen[at].written),
                    bits_as<std::uint32_t>(rank_of(drops, seen, at)))
              << "token " << at << " of table " << table;
        }
      }
    }
  }
}
TEST(GpuRank, WritesWhatThePolicySays) {
  check_ranks(H2O{.heavy = 4000, .recent = 100}, H2O{.heavy = 10, .recent = 5}, true);
  check_ranks(L2Norm{.tokens_kept = 4000, .skip = {}, .when = When::step()},
              L2Norm{.tokens_kept = 20, .skip = {}, .when = When::step()}, true);
  check_ranks(Nearest{}, Nearest{.tokens_kept = 8}, true);
  check_ranks(Nearest{}, Nearest{.tokens_kept = 8}, true, 300);  // runs of three
}
TEST(GpuRank, HeadsWithinTheirBudgetDoNotAct) {
  check_ranks(H2O{.heavy = 4000, .recent = 100}, H2O{.heavy = 96, .recent = 5}, false);
}

}  // namespace
}  // namespace kvast
