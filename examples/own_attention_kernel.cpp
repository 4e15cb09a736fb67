// SPDX-License-Identifier: Apache-2.0
// An engine with its own attention kernel and its own K/V memory: kvast only says who stays and
// what to move. The engine checks that it and the cache stay of one mind.
#include <kvast/kvast.h>

#include <cmath>
#include <cstdio>
#include <random>
#include <span>
#include <vector>

namespace {

constexpr int kHeads = 2;
constexpr int kGroup = 2;  // query heads per head
constexpr int kDim = 32;
constexpr int kSlots = 80;  // what the engine has memory for, per head
constexpr int kTokens = 600;
constexpr kvast::H2O kPolicy{.heavy = 48,
                             .recent = 16};  // 64 tokens, and one more while a step lasts

using Vector = std::vector<float>;

/// The engine's memory of one head; `position` is only here for the check.
struct HeadMemory {
  std::vector<Vector> keys = std::vector<Vector>(kSlots);
  std::vector<Vector> values = std::vector<Vector>(kSlots);
  std::vector<int> position = std::vector<int>(kSlots, -1);
  int used = 0;

  void write(const Vector& key, const Vector& value, int token) {
    const auto slot = static_cast<std::size_t>(used++);
    keys.at(slot) = key;
    values.at(slot) = value;
    position.at(slot) = token;
  }
  /// What a commit asks for: overwrite slots, in order; the ones at the end become free.
  void apply(std::span<const kvast::Move> moves, int tokens) {
    for (const kvast::Move move : moves) {
      const auto from = static_cast<std::size_t>(move.from);
      const auto to = static_cast<std::size_t>(move.to);
      keys.at(to) = keys.at(from);
      values.at(to) = values.at(from);
      position.at(to) = position.at(from);
    }
    used = tokens;
  }
};

/// The engine's kernel: one query over one head. Writes the weight of each slot.
Vector attend(const HeadMemory& memory, const Vector& query, float* weights) {
  float sum = 0.0F;
  for (int slot = 0; slot < memory.used; ++slot) {
    float logit = 0.0F;
    for (std::size_t dim = 0; dim < kDim; ++dim)
      logit += query[dim] * memory.keys[static_cast<std::size_t>(slot)][dim];
    weights[slot] = std::exp(logit / std::sqrt(static_cast<float>(kDim)));
    sum += weights[slot];
  }
  Vector output(kDim, 0.0F);
  for (int slot = 0; slot < memory.used; ++slot) {
    weights[slot] /= sum;
    for (std::size_t dim = 0; dim < kDim; ++dim)
      output[dim] += weights[slot] * memory.values[static_cast<std::size_t>(slot)][dim];
  }
  return output;
}

}  // namespace

int main() {
  const kvast::Shape shape{.query_heads = kHeads * kGroup, .heads = kHeads, .head_dim = kDim};
  kvast::BlockPool pool;
  kvast::KVCache<kvast::H2O, kvast::External> cache(shape, kPolicy, {}, pool);
  // The same model through the library's own kernel and memory: both must keep the same tokens.
  kvast::KVCache<kvast::H2O, kvast::Dense<float>> twin(shape, kPolicy, {}, pool);

  std::vector<HeadMemory> memory(kHeads);
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  const auto draw = [&](int numbers) {
    Vector drawn(static_cast<std::size_t>(numbers));
    for (float& number : drawn) number = normal(random);
    return drawn;
  };
  for (int token = 0; token < kTokens; ++token) {
    const Vector keys = draw(kHeads * kDim);
    const Vector values = draw(kHeads * kDim);
    const Vector queries = draw(kHeads * kGroup * kDim);

    auto pass = cache.begin({});
    if (!pass) return 1;
    pass->append(0);  // positions only
    Vector weights(kHeads * kGroup * kSlots);
    Vector output;
    for (int head = 0; head < kHeads; ++head) {
      HeadMemory& own = memory[static_cast<std::size_t>(head)];
      own.write({keys.begin() + head * kDim, keys.begin() + (head + 1) * kDim},
                {values.begin() + head * kDim, values.begin() + (head + 1) * kDim}, token);
      for (int query_head = head * kGroup; query_head < (head + 1) * kGroup; ++query_head) {
        const Vector query(queries.begin() + query_head * kDim,
                           queries.begin() + (query_head + 1) * kDim);
        const Vector one = attend(own, query, weights.data() + query_head * kSlots);
        output.insert(output.end(), one.begin(), one.end());
      }
    }
    pass->observe(0, {.data = weights.data(), .head_stride = kSlots});
    pass->commit(0);
    for (int head = 0; head < kHeads; ++head)
      memory[static_cast<std::size_t>(head)].apply(cache.moves(0, head), cache.tokens(0, head));

    auto twin_pass = twin.begin({});
    if (!twin_pass) return 1;
    Vector expected(output.size());
    twin_pass->append(0, keys.data(), values.data());
    twin_pass->attend(0, queries.data(), expected.data());
    twin_pass->commit(0);
    for (std::size_t at = 0; at < output.size(); ++at) {
      if (std::abs(output[at] - expected[at]) > 1e-4F)
        return std::printf("token %d: the outputs differ\n", token), 1;
    }
    for (int head = 0; head < kHeads; ++head) {
      HeadMemory& own = memory[static_cast<std::size_t>(head)];
      const std::vector<int> here(own.position.begin(), own.position.begin() + own.used);
      if (here != cache.slots(0, head) || cache.kept(0, head) != twin.kept(0, head))
        return std::printf("token %d: head %d keeps other tokens\n", token, head), 1;
    }
  }
  std::printf("%d tokens seen, %d and %d kept in the engine's own memory; kvast holds %zu bytes\n",
              cache.length(), memory[0].used, memory[1].used, cache.bytes_in_use());
  return memory[0].used == 64 && memory[1].used == 64 ? 0 : 1;
}
