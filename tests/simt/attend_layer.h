// SPDX-License-Identifier: Apache-2.0
// One layer of a batch as attention's kernels see it, beside the reference in double.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "kvast/gpu/attend.cuh"
#include "kvast/gpu/attend_merge.cuh"
#include "tests/simt/backend.h"
#include "tests/simt/tiles.h"
#include "tests/support/random.h"
#include "tests/support/reference.h"

namespace kvast::test {

/// The tokens of one sequence, the same number in each of its heads.
struct SequenceCase {
  int slots = 0;    ///< written, those of the pass included
  int queries = 1;  ///< tokens of the pass
  int coded = 0;    ///< blocks that are sealed, the oldest ones
};

/// A factor on a number of a block's channel, or a term.
using Size = double (*)(int block, int channel);

struct AttendCase {
  int group = 1;
  int heads = 1;
  int head_dim = 64;
  int value_dim = 0;  ///< 0: as head_dim
  std::vector<SequenceCase> sequences{};
  double dead = 0.0;                    ///< share of older tokens that are dead
  int dead_block = -1;                  ///< a block without a live token
  bool shuffled = false;                ///< positions do not ascend with slots: holes were filled
  int skipped = 0;                      ///< positions that were forgotten before the oldest
  Type type = Type::f32;                ///< of queries and output
  int stride = 0;                       ///< elements added to the rows of queries and outputs
  const ReferenceRope* rope = nullptr;  ///< compacted positions
  Size key_size = nullptr;              ///< null: all of size 1
  Size value_size = nullptr;
  Size key_offset = nullptr;  ///< null: 0
  Size query_size = nullptr;  ///< of block 0: queries know of none
};

/// `Kept` as gpu::Attend has it.
template <class Kept>
class AttendLayer {
 public:
  using Format = typename gpu::AttendFormats<Kept>::Waiting;
  using Element = typename Format::Element;

  explicit AttendLayer(const AttendCase& one, std::uint64_t seed = 1)
      : case_(one), random_(seed), query_heads_(one.group * one.heads) {
    value_dim_ = one.value_dim == 0 ? one.head_dim : one.value_dim;
    int rows = 0;
    for (const SequenceCase& sequence : one.sequences) {
      rows_.push_back({rows, sequence.queries});
      lengths_.push_back(one.skipped + sequence.slots - sequence.queries);
      rows += sequence.queries;
      references_.emplace_back(query_heads_, one.heads, one.head_dim, value_dim_);
    }
    total_rows_ = rows;
    int blocks = 0;
    for (const SequenceCase& sequence : one.sequences) blocks += one.heads * blocks_of(sequence);
    const auto bytes =
        static_cast<std::size_t>(kBlockTokens * (one.head_dim + value_dim_)) * sizeof(Element);
    payloads_.resize(static_cast<std::size_t>(blocks) * bytes / sizeof(gpu::Chunk));
    records_.resize(static_cast<std::size_t>(blocks));
    lists_.resize(records_.size());
    heads_.reserve(one.sequences.size() * static_cast<std::size_t>(one.heads));
    for (std::size_t sequence = 0; sequence < one.sequences.size(); ++sequence) {
      for (int head = 0; head < one.heads; ++head) fill(sequence, head);
    }
    view_.heads = heads_.data();
    view_.lengths = lengths_.data();
    view_.rows = rows_.data();
    view_.sequences = static_cast<int>(one.sequences.size());
    view_.head_count = one.heads;
    view_.head_dim = one.head_dim;
    view_.value_dim = value_dim_;
    view_.keeps_order = one.rope != nullptr;
    view_.dense_key_bytes = one.head_dim * static_cast<int>(sizeof(Element));
    view_.dense_value_bytes = value_dim_ * static_cast<int>(sizeof(Element));
    query_stride_ = query_heads_ * one.head_dim + one.stride;
    output_stride_ = query_heads_ * value_dim_ + one.stride;
    queries_.resize(static_cast<std::size_t>(rows * query_stride_) * 4);
    for (int at = 0; at < rows * query_stride_; ++at)
      put(queries_.data(), at,
          2.0 * random_.normal() *
              number_of(one.query_size, 1.0, 0, at % query_stride_ % one.head_dim));
  }

  AttendCase& settings() { return case_; }
  const gpu::LayerView& view() const { return view_; }
  int tables() const { return view_.tables(); }
  int rows() const { return total_rows_; }
  int query_heads() const { return query_heads_; }
  ReferenceLayer& reference(int sequence) {
    return references_[static_cast<std::size_t>(sequence)];
  }
  int position(int sequence, int query) const {
    return lengths_[static_cast<std::size_t>(sequence)] + query;
  }
  const gpu::Rows& rows_of(int sequence) const { return rows_[static_cast<std::size_t>(sequence)]; }
  std::vector<float> query(int row, int query_head) const {
    std::vector<float> numbers;
    const int at = row * query_stride_ + query_head * case_.head_dim;
    for (int dim = 0; dim < case_.head_dim; ++dim)
      numbers.push_back(gpu::read_number(tensor(), at + dim));
    return numbers;
  }

  gpu::AttendOptions options{};
  gpu::SplitRules split{.workers = 5, .least_blocks = 2};
  gpu::QueryRope rope{};
  bool saves = false;  ///< keep what the softmax computes

  /// A call for a kernel with tiles of `tile_rows`, with room for all it needs.
  gpu::AttendCall call(int tile_rows) {
    gpu::AttendCall made{.layer = view_, .queries = tensor(), .options = options, .rope = rope};
    made.group = case_.group;
    made.dense_cost = split.dense_cost;
    made.tiles = (most_queries() * case_.group + tile_rows - 1) / tile_rows;
    const float scale = options.scale != 0.0F
                            ? options.scale
                            : 1.0F / std::sqrt(static_cast<float>(case_.head_dim));
    made.rules = gpu::LogitRules::of(scale, options.softcap);
    const auto most_items = static_cast<std::size_t>(gpu::most_items(tables(), split));
    items_.assign(most_items, {});
    head_items_.assign(static_cast<std::size_t>(tables()), {});
    count_.assign(1, 0);
    made.plan = {items_.data(), head_items_.data(), count_.data()};
    const std::size_t units = most_items * static_cast<std::size_t>(made.tiles * tile_rows);
    partial_outputs_.assign(units * static_cast<std::size_t>(value_dim_), NAN);
    partial_maxima_.assign(units, NAN);
    partial_sums_.assign(units, NAN);
    made.partials = {partial_outputs_.data(), partial_maxima_.data(), partial_sums_.data()};
    output_.assign(static_cast<std::size_t>(total_rows_ * output_stride_) * 4, std::byte{0xFF});
    lse_.assign(static_cast<std::size_t>(total_rows_ * query_heads_), NAN);
    made.output = {output_.data(), case_.type, output_stride_, value_dim_};
    made.options.log_sum_exp = lse_.data();
    if (saves) {
      made.saved = {.blocks = most_blocks(), .members = (case_.group + 1) / 2 * 2};
      const auto lines =
          static_cast<std::size_t>(tables() * made.saved.blocks * made.saved.members);
      below_.assign(lines * kBlockTokens, std::uint16_t{7});
      below_maxima_.assign(lines, NAN);
      made.saved.below = below_.data();
      made.saved.maxima = below_maxima_.data();
    }
    return made;
  }

  template <class Kernel>
  void attend(const gpu::AttendCall& call, int tile_rows, Schedule schedule) {
    begin_schedule(schedule);
    launch(gpu::Plan{view_, call.plan, split}, {1, gpu::Plan::kSharedBytes});
    launch(Kernel{call}, {3, Kernel::Shape::shared_bytes(rope.frequencies != nullptr)});
    launch(gpu::MergeParts{call, tile_rows}, {tables() * most_queries() * case_.group, 0});
    wait();
  }
  template <class Kernel>
  static void launch(const Kernel& kernel, gpu::Grid grid) {
    const Status status = TestDevice::launch(kernel, grid, stream());
    ASSERT_TRUE(status) << status.message();
  }
  int most_blocks() const {
    int most = 0;
    for (const SequenceCase& sequence : case_.sequences) most = std::max(most, blocks_of(sequence));
    return most;
  }
  int most_queries() const {
    int most = 0;
    for (const gpu::Rows& rows : rows_) most = std::max(most, rows.count);
    return most;
  }

  /// In every order of threads; `worst` is the largest relative error of a row.
  template <class Kernel, int kTileRows>
  void check(const ReferenceRules& rules, double tolerance, const std::string& name = {}) {
    DeviceVector<std::byte> first;
    DeviceVector<float> first_lse;
    for (const Schedule schedule : kSchedules) {
      attend<Kernel>(call(kTileRows), kTileRows, schedule);
      if (first.empty()) {
        first = output_;
        first_lse = lse_;
      }
      ASSERT_EQ(std::memcmp(first.data(), output_.data(), first.size()), 0) << name;
      ASSERT_EQ(std::memcmp(first_lse.data(), lse_.data(), lse_.size() * 4), 0) << name;
    }
    double worst = 0.0;
    double worst_lse = 0.0;
    for (int sequence = 0; sequence < view_.sequences; ++sequence) {
      for (int query = 0; query < rows_of(sequence).count; ++query) {
        for (int head = 0; head < query_heads_; ++head) {
          const int row = rows_of(sequence).first + query;
          const std::vector<float> numbers = this->query(row, head);
          if (reference(sequence).kept(head / case_.group).empty()) continue;
          const ReferenceSight sight =
              reference(sequence).attend(head, position(sequence, query), numbers.data(), rules);
          std::vector<float> got;
          const int at = row * output_stride_ + head * value_dim_;
          for (int dim = 0; dim < value_dim_; ++dim)
            got.push_back(gpu::read_number({output_.data(), case_.type}, at + dim));
          const double error = relative_error(got.data(), sight.output);
          worst = std::max(worst, std::isnan(error) ? INFINITY : error);
          const double apart = std::abs(
              static_cast<double>(lse_[static_cast<std::size_t>(row * query_heads_ + head)]) -
              sight.log_sum_exp);
          worst_lse = std::max(worst_lse, std::isnan(apart)
                                              ? INFINITY
                                              : apart / std::max(1.0, std::abs(sight.log_sum_exp)));
        }
      }
    }
    EXPECT_LE(worst, tolerance) << name;
    EXPECT_LE(worst_lse, 2 * tolerance) << name;
  }

  const DeviceVector<float>& log_sum_exp() const { return lse_; }
  float output(int row, int query_head, int dim) const {
    return gpu::read_number({output_.data(), case_.type},
                            row * output_stride_ + query_head * value_dim_ + dim);
  }

 private:
  gpu::Tensor tensor() const {
    return {queries_.data(), case_.type, query_stride_, case_.head_dim};
  }
  void put(std::byte* to, int at, double number) {
    gpu::write_number({to, case_.type}, at, static_cast<float>(number));
  }
  static double number_of(Size size, double other, int block, int channel) {
    return size == nullptr ? other : size(block, channel);
  }
  static int blocks_of(const SequenceCase& sequence) {
    return (sequence.slots + kBlockTokens - 1) / kBlockTokens;
  }
  std::byte* payload(int dim) {
    std::byte* begin = reinterpret_cast<std::byte*>(payloads_.data()) + payload_end_;
    payload_end_ += static_cast<std::size_t>(kBlockTokens * dim) * sizeof(Element);
    return begin;
  }

  void fill(std::size_t sequence, int head) {
    const SequenceCase& one = case_.sequences[sequence];
    const int old = one.slots - one.queries;
    const int blocks = blocks_of(one);
    std::vector<int> order(static_cast<std::size_t>(old));
    std::iota(order.begin(), order.end(), case_.skipped);
    for (int left = old; case_.shuffled && left > 1; --left)
      std::swap(order[static_cast<std::size_t>(left - 1)],
                order[static_cast<std::size_t>(random_.below(left))]);
    Head made;
    kvast::Block** list = lists_.data() + records_made_;
    std::vector<ReferenceLayer::Token>& kept = references_[sequence].kept(head);
    for (int block = 0; block < blocks; ++block) {
      kvast::Block& record = records_[records_made_++];
      record.used = std::min(one.slots - block * kBlockTokens, kBlockTokens);
      std::vector<ReferenceLayer::Token> tokens = made_tokens(block, record.used);
      for (int slot = 0; slot < record.used; ++slot) {
        const int at = block * kBlockTokens + slot;
        record.position[slot] = at < old ? order[static_cast<std::size_t>(at)] : case_.skipped + at;
        tokens[static_cast<std::size_t>(slot)].position = record.position[slot];
      }
      if (block < one.coded) {
        record.keys = sealed<gpu::Part::keys>(tokens);
        record.values = sealed<gpu::Part::values>(tokens);
      } else {
        write(record, tokens);
      }
      for (int slot = 0; slot < record.used; ++slot) {
        const bool dies = block * kBlockTokens + slot < old &&
                          (block == case_.dead_block || random_.chance(case_.dead));
        if (dies) continue;
        record.live |= 1U << slot;
        kept.push_back(tokens[static_cast<std::size_t>(slot)]);
        ++(block < one.coded ? made.coded : made.dense).live;
      }
      list[block] = &record;
    }
    std::sort(kept.begin(), kept.end(), [](const auto& one_token, const auto& other) {
      return one_token.position < other.position;
    });
    made.coded.data = list;
    made.coded.count = made.coded.capacity = one.coded;
    made.dense.data = list + one.coded;
    made.dense.count = made.dense.capacity = blocks - one.coded;
    heads_.push_back(made);
  }
  std::vector<ReferenceLayer::Token> made_tokens(int block, int count) {
    std::vector<ReferenceLayer::Token> tokens(static_cast<std::size_t>(count));
    const auto draw = [&](std::vector<double>& to, int dim, Size size, Size offset) {
      for (int channel = 0; channel < dim; ++channel)
        to.push_back(random_.normal() * number_of(size, 1.0, block, channel) +
                     number_of(offset, 0.0, block, channel));
    };
    for (ReferenceLayer::Token& token : tokens) {
      draw(token.key, case_.head_dim, case_.key_size, case_.key_offset);
      draw(token.value, value_dim_, case_.value_size, nullptr);
    }
    return tokens;
  }
  /// A dense block; the tokens become what it stores of them.
  void write(kvast::Block& record, std::vector<ReferenceLayer::Token>& tokens) {
    record.keys = payload(case_.head_dim);
    record.values = payload(value_dim_);
    for (int slot = 0; slot < record.used; ++slot) {
      ReferenceLayer::Token& token = tokens[static_cast<std::size_t>(slot)];
      std::vector<double> key = token.key;
      if (case_.rope != nullptr) case_.rope->turn(key, slot);
      store(record.keys, slot, case_.head_dim, key, case_.rope == nullptr ? &token.key : nullptr);
      store(record.values, slot, value_dim_, token.value, &token.value);
    }
  }
  static void store(std::byte* rows, int slot, int dim, const std::vector<double>& numbers,
                    std::vector<double>* stored) {
    auto* to = reinterpret_cast<Element*>(rows) + slot * dim;
    for (int at = 0; at < dim; ++at) {
      to[at] = Format::element(static_cast<float>(numbers[static_cast<std::size_t>(at)]));
      if (stored != nullptr)
        (*stored)[static_cast<std::size_t>(at)] = static_cast<double>(Format::number(to[at]));
    }
  }
  /// The payload of a coded block; the tokens become what its codes say.
  template <gpu::Part kPart>
  std::byte* sealed(std::vector<ReferenceLayer::Token>& tokens) {
    if constexpr (!gpu::AttendFormats<Kept>::kCodes) {
      throw std::logic_error("dense caches have no codes");
    } else {
      constexpr bool kKeys = kPart == gpu::Part::keys;
      using Coded = std::conditional_t<kKeys, typename Kept::Keys, typename Kept::Values>;
      const int dim = kKeys ? case_.head_dim : value_dim_;
      const gpu::PayloadRows<Coded, kPart> layout{dim};
      std::vector<float> numbers;
      for (ReferenceLayer::Token& token : tokens) {
        for (const double number : kKeys ? token.key : token.value)
          numbers.push_back(static_cast<float>(number));
      }
      std::byte* to = payload(dim);
      gpu::from_tiles<Coded, kPart>(tiles_of<Coded, kPart>(numbers, dim).data(), dim, to);
      for (int slot = 0; slot < kBlockTokens; ++slot) {
        auto& token = tokens[static_cast<std::size_t>(slot)];
        std::vector<double>& decoded = kKeys ? token.key : token.value;
        for (int channel = 0; channel < dim; ++channel)
          decoded[static_cast<std::size_t>(channel)] =
              static_cast<double>(layout.number(to, slot, channel));
      }
      return to;
    }
  }

  AttendCase case_;
  Random random_;
  int query_heads_;
  int value_dim_;
  int total_rows_ = 0;
  int query_stride_ = 0;
  int output_stride_ = 0;
  std::size_t records_made_ = 0;
  std::size_t payload_end_ = 0;
  std::vector<ReferenceLayer> references_;
  DeviceVector<gpu::Rows> rows_;
  DeviceVector<int> lengths_;
  DeviceVector<Head> heads_;
  DeviceVector<kvast::Block*> lists_;  ///< each head's blocks
  DeviceVector<kvast::Block> records_;
  DeviceVector<gpu::Chunk> payloads_;
  gpu::LayerView view_{};
  DeviceVector<std::byte> queries_;
  DeviceVector<std::byte> output_;
  DeviceVector<float> lse_;
  DeviceVector<gpu::WorkItem> items_;
  DeviceVector<gpu::HeadItems> head_items_;
  DeviceVector<int> count_;
  DeviceVector<float> partial_outputs_;
  DeviceVector<float> partial_maxima_;
  DeviceVector<float> partial_sums_;
  DeviceVector<std::uint16_t> below_;
  DeviceVector<float> below_maxima_;
};

}  // namespace kvast::test
