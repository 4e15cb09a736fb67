// SPDX-License-Identifier: Apache-2.0
// The weights that policies are shown, against the reference in double.
#include "kvast/gpu/attend_weights.cuh"

#include "tests/simt/attend_layer.h"

namespace kvast::test {
namespace {

/// Writes all that it is shown.
struct Recorder {
  gpu::WriteWeights weights{};
  Attention* seen = nullptr;  ///< [tables, queries]
  int queries = 1;

  KVAST_HD void operator()(kvast::Block& block, int table, int index, int query, int slot,
                           bool sees, const Attention& attention) const {
    weights(block, table, index, query, slot, sees, attention);
    if (sees) seen[table * queries + query] = attention;
  }
};

template <class Format, int kDim>
class Weighing {
 public:
  explicit Weighing(const AttendCase& one) : layer(one), case_(one) {}

  AttendLayer<Format> layer;
  gpu::WeightRules rules{};

  /// `saved`: from what the softmax of a decode step kept, else by the second pass.
  void check(ReferenceRules reference, bool saved, double tolerance, const std::string& name) {
    layer.saves = saved;
    reference.window = layer.options.window;
    std::vector<DeviceVector<float>> runs;
    for (const Schedule schedule : kSchedules) runs.push_back(run(schedule, saved));
    for (const auto& one : runs)
      ASSERT_EQ(std::memcmp(one.data(), runs.front().data(), one.size() * 4), 0) << name;
    compare(reference, runs.front(), tolerance, name);
  }

 private:
  DeviceVector<float> run(Schedule schedule, bool saved) {
    if constexpr (!std::is_same_v<Format, F32>) {  // as AttendRunner chooses
      if (case_.group > 8) return run<16>(schedule, saved);
    }
    return run<8>(schedule, saved);
  }
  template <int kRows>
  DeviceVector<float> run(Schedule schedule, bool saved) {
    using Attend = gpu::Attend<Format, kDim, kRows>;
    const gpu::AttendCall call = layer.call(kRows);
    layer.template attend<Attend>(call, kRows, schedule);
    const int queries = layer.most_queries();
    const int lines = layer.tables() * queries;
    DeviceVector<float> weights(
        static_cast<std::size_t>(lines * layer.most_blocks() * kBlockTokens), -1.0F);
    seen_.assign(static_cast<std::size_t>(lines), {});
    DeviceVector<int> visible(static_cast<std::size_t>(lines), -1);
    rules.queries = queries;
    rules.visible = nullptr;
    if (call.options.window > 0) {
      rules.visible = visible.data();
      layer.launch(gpu::CountVisible{call, visible.data(), queries},
                   {lines, gpu::CountVisible::kSharedBytes});
    }
    const Recorder recorder{{weights.data(), layer.most_blocks(), queries}, seen_.data(), queries};
    if (saved) {
      layer.launch(gpu::SavedWeights<Recorder>{call, rules, recorder}, {3, 0});
    } else {
      layer.launch(gpu::AgainWeights<Format, kDim, Recorder>{call, rules, recorder},
                   {2, Attend::Shape::shared_bytes(layer.rope.frequencies != nullptr)});
    }
    wait();
    return weights;
  }

  void compare(const ReferenceRules& reference, const DeviceVector<float>& weights,
               double tolerance, const std::string& name) {
    for (int sequence = 0; sequence < layer.view().sequences; ++sequence) {
      const int count = layer.rows_of(sequence).count;
      const int first = rules.newest > 0 ? std::max(count - rules.newest, 0) : 0;
      for (int query = 0; query < count; ++query) {
        for (int head = 0; head < case_.heads; ++head)
          compare(reference, weights, tolerance, name, sequence, head, query, query < first);
      }
    }
  }
  void compare(const ReferenceRules& reference, const DeviceVector<float>& weights,
               double tolerance, const std::string& name, int sequence, int head, int query,
               bool unobserved) {
    const int position = layer.position(sequence, query);
    const int table = sequence * case_.heads + head;
    const auto& kept = layer.reference(sequence).kept(head);
    std::vector<double> wanted(kept.size(), 0.0);
    int visible = 0;
    for (int member = 0; member < case_.group; ++member) {
      const int query_head = head * case_.group + member;
      const auto numbers = layer.query(layer.rows_of(sequence).first + query, query_head);
      const ReferenceSight sight =
          layer.reference(sequence).attend(query_head, position, numbers.data(), reference);
      visible = sight.visible;
      for (std::size_t at = 0; at < kept.size(); ++at) {
        if (rules.reduce == Reduce::max) {
          wanted[at] = std::max(wanted[at], sight.weights[at]);
        } else {
          wanted[at] += sight.weights[at] / (rules.reduce == Reduce::mean ? case_.group : 1);
        }
      }
    }
    const Head& tokens = layer.view().heads[table];
    const auto line = static_cast<std::size_t>(table * rules.queries + query);
    for (int block = 0; block < tokens.blocks(); ++block) {
      const kvast::Block& one = tokens.block(block);
      for (int slot = 0; slot < kBlockTokens; ++slot) {
        const float got = weights[(line * static_cast<std::size_t>(layer.most_blocks()) +
                                   static_cast<std::size_t>(block)) *
                                      kBlockTokens +
                                  static_cast<std::size_t>(slot)];
        if (unobserved || (one.live >> slot & 1U) == 0 || one.position[slot] > position) {
          ASSERT_EQ(got, -1.0F) << name;
          continue;
        }
        std::size_t rank = 0;
        while (kept[rank].position != one.position[slot]) ++rank;
        ASSERT_NEAR(static_cast<double>(got), wanted[rank], tolerance * wanted[rank] + 1e-30)
            << name << ": sequence " << sequence << " query " << query << " slot " << slot;
      }
    }
    if (unobserved) return;
    const Attention& seen = seen_[line];
    ASSERT_EQ(seen.visible, visible) << name;
    ASSERT_EQ(seen.step, position) << name;
    ASSERT_EQ(seen.after, layer.rows_of(sequence).count - 1 - query) << name;
  }

  AttendCase case_;
  DeviceVector<Attention> seen_;
};

TEST(Weights, OfAStepFromItsSoftmax) {
  for (const int group : {1, 3, 4, 8, 10}) {
    const AttendCase one{.group = group,
                         .heads = 2,
                         .head_dim = 64,
                         .sequences = {{150}, {33}, {1}, {40, 0}},
                         .dead = 0.2,
                         .dead_block = 1,
                         .shuffled = true};
    Weighing<F16, 64> halves(one);
    halves.check({}, true, 1e-2, std::to_string(group));
    Weighing<F32, 64> floats(one);
    floats.check({}, true, 8e-4, std::to_string(group));
  }
}

TEST(Weights, OfManyQueriesByASecondPass) {
  for (const int group : {1, 3, 11}) {
    const AttendCase one{.group = group,
                         .heads = 2,
                         .head_dim = 64,
                         .sequences = {{70, 9}, {33, 33}, {1}, {40, 0}},
                         .dead = 0.2,
                         .shuffled = true};
    Weighing<F16, 64> halves(one);
    halves.check({}, false, 1e-2, std::to_string(group));
    Weighing<F32, 64> floats(one);
    floats.check({}, false, 2e-5, std::to_string(group));
  }
}

TEST(Weights, AreReducedOverTheGroup) {
  for (const Reduce reduce : {Reduce::mean, Reduce::sum, Reduce::max}) {
    Weighing<F32, 64> step({.group = 4, .head_dim = 64, .sequences = {{50}}});
    step.rules.reduce = reduce;
    step.check({}, true, 8e-4, "step");
    Weighing<F32, 64> chunk({.group = 3, .head_dim = 64, .sequences = {{50, 7}}});
    chunk.rules.reduce = reduce;
    chunk.check({}, false, 2e-5, "chunk");
  }
}

TEST(Weights, OfAnObservationWindow) {
  Weighing<F32, 64> chunk({.group = 3, .head_dim = 64, .sequences = {{50, 12}, {9, 3}}});
  chunk.rules.newest = 5;
  chunk.check({}, false, 2e-5, "newest");
}

TEST(Weights, BehindASlidingWindowAreZero) {
  const AttendCase step{
      .group = 3, .head_dim = 64, .sequences = {{150}, {20}}, .dead = 0.1, .shuffled = true};
  Weighing<F32, 64> saved(step);
  saved.layer.options.window = 40;
  saved.check({}, true, 8e-4, "step");
  AttendCase many = step;
  many.sequences = {{90, 20}, {5, 5}};
  Weighing<F32, 64> chunk(many);
  chunk.layer.options.window = 40;
  chunk.check({}, false, 2e-5, "chunk");
}

TEST(Weights, OfCodesAndWhatWaitsBehindThem) {
  using Kept = gpu::Codes<Int<4>, Int<2>>;
  const AttendCase step{.group = 3,
                        .heads = 2,
                        .head_dim = 64,
                        .sequences = {{150, 1, 3}, {33, 1, 1}, {1}, {40, 0}},
                        .dead = 0.2,
                        .dead_block = 1,
                        .shuffled = true};
  Weighing<Kept, 64> saved(step);
  saved.check({}, true, 1e-2, "step");
  AttendCase many = step;
  many.sequences = {{150, 9, 3}, {65, 33, 1}, {1}, {40, 0}};
  Weighing<Kept, 64> again(many);
  again.check({}, false, 1e-2, "chunk");
  Weighing<Kept, 64> window(many);
  window.layer.options.window = 40;
  window.check({}, false, 1e-2, "window");
}

TEST(Weights, OfCompactedPositions) {
  ReferenceRope rope;
  DeviceVector<float> frequencies;
  for (int pair = 0; pair < 32; ++pair) {
    frequencies.push_back(static_cast<float>(std::pow(1e4, -pair / 32.0)));
    rope.frequencies.push_back(static_cast<double>(frequencies.back()));
  }
  ReferenceRules reference;
  reference.rope = &rope;
  Weighing<F32, 64> chunk(
      {.group = 3, .head_dim = 64, .sequences = {{80, 5}, {10, 10}}, .dead = 0.2, .rope = &rope});
  chunk.layer.rope = {.frequencies = frequencies.data(), .width = 64};
  chunk.check(reference, false, 1e-4, "compacted");
}

}  // namespace
}  // namespace kvast::test
