// SPDX-License-Identifier: Apache-2.0
// attend: softmax(q k) v over a layer's blocks, each block read once for all query heads of its
// group.
#pragma once

#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "kvast/core/executor.h"
#include "kvast/core/view.h"
#include "kvast/host/scores.h"

namespace kvast {

/// Rows of one head over a range of blocks; what one thread does at a time.
struct AttendTask {
  int head = 0;
  int first_row = 0;
  int rows = 0;
  int first_block = 0;
  int end_block = 0;
  std::size_t partial = 0;  ///< where in AttendWork::partials its rows start, in rows
  bool whole = false;       ///< the only range of its rows
};

/// Buffers of attend; they grow once and are reused.
struct AttendWork {
  std::vector<HeadSight> sights;  ///< [heads]
  std::vector<AttendTask> tasks;
  std::vector<float> outputs;    ///< [partial rows, output_width], not yet divided by sums
  std::vector<float> maxima;     ///< [partial rows]
  std::vector<float> sums;       ///< [partial rows]
  std::vector<float> lse;        ///< [query_heads, count] log-sum-exp of every row
  std::vector<int> live_before;  ///< compacted positions
  std::vector<int> query_rank;
  bool saves = false;            ///< one query: keep what the softmax computed, for the policy
  std::vector<float> saved;      ///< [blocks of all heads, group, 32] exp(logit - maximum so far)
  std::vector<float> saved_max;  ///< [heads][group, blocks] that maximum
  std::vector<float> saved_factors;      ///< the same shape: what makes them weights
  std::vector<std::size_t> first_saved;  ///< [heads + 1] blocks before this head's
};

/// A row's output, and behind it what products with codes still owe to it (see Pending).
inline int output_width(const LayerPlan& plan) {
  constexpr int kMostLanes = 16;
  const int value_dim = plan.value_width();
  return value_dim + (plan.is_coded() ? value_dim / kBlockTokens * kMostLanes : 0);
}

/// Long splits, fixed by length and never by the number of threads: results are the same bits for
/// any executor.
inline constexpr int kSplitBlocks = 32;
inline constexpr int kMostSplits = 16;
inline int split_blocks(int blocks) {
  const int splits = std::clamp(blocks / kSplitBlocks, 1, kMostSplits);
  return (blocks + splits - 1) / splits;
}

namespace detail {

template <class Simd>
void scale_row(float* row, int columns, float factor) {
  for (int at = 0; at < columns; ++at) row[at] *= factor;
}

/// Adds what is pending to the rows' outputs.
template <class Simd>
void settle_pending(const LayerPlan& plan, int rows, float* outputs) {
  if (!plan.is_coded()) return;
  const int value_dim = plan.value_width();
  for (int row = 0; row < rows; ++row) {
    float* output = outputs + row * output_width(plan);
    for (int tile = 0; tile < value_dim / kBlockTokens; ++tile) {
      const float owed = Simd::reduce_add(Simd::load(output + value_dim + tile * Simd::kLanes));
      for (int at = 0; at < kBlockTokens; ++at) output[tile * kBlockTokens + at] += owed;
    }
  }
}

/// One row's online softmax over `count` blocks, whose scores lie `stride` apart: scores become
/// exp(score - maximum), hidden slots 0.
template <class Simd>
void soften(float* scores, std::ptrdiff_t stride, int count, const std::uint32_t* masks,
            std::ptrdiff_t mask_stride, float& maximum, float& sum, float* output, int width) {
  using F = typename Simd::F;
  F most = Simd::load(scores);
  for (int block = 0; block < count; ++block) {
    for (int at = 0; at < kBlockTokens; at += Simd::kLanes)
      most = Simd::max(most, Simd::load(scores + block * stride + at));
  }
  const float here = Simd::reduce_max(most);
  if (here > maximum) {
    const float shrink = std::exp(std::max(maximum - here, -87.0F));
    maximum = here;
    if (sum != 0.0F) {
      sum *= shrink;
      scale_row<Simd>(output, width, shrink);
    }
  }
  const F base = Simd::set1(maximum);
  F total = Simd::zero();
  for (int block = 0; block < count; ++block) {
    float* line = scores + block * stride;
    const std::uint32_t mask = masks[block * mask_stride];
    for (int at = 0; at < kBlockTokens; at += Simd::kLanes) {
      const F power = exp_lanes<Simd>(Simd::sub(Simd::load(line + at), base));
      Simd::store(line + at, power);
      if (mask == kAllLive) total = Simd::add(total, power);
    }
    if (mask == kAllLive) continue;
    for (int slot = 0; slot < kBlockTokens; ++slot) {
      if ((mask >> slot & 1U) == 0) line[slot] = 0.0F;
    }
    for (int at = 0; at < kBlockTokens; at += Simd::kLanes)
      total = Simd::add(total, Simd::load(line + at));
  }
  sum += Simd::reduce_add(total);
}

template <class Simd>
void run_task(const AttendTask& task, AttendWork& work) {
  const HeadSight& sight = work.sights[static_cast<std::size_t>(task.head)];
  const LayerPlan& plan = *sight.plan;
  const int value_dim = plan.value_width();
  const int width = output_width(plan);
  float* outputs = work.outputs.data() + task.partial * static_cast<std::size_t>(width);
  float* maxima = work.maxima.data() + task.partial;
  float* sums = work.sums.data() + task.partial;
  std::fill_n(outputs, task.rows * width, 0.0F);
  std::fill_n(maxima, task.rows, kHidden);
  std::fill_n(sums, task.rows, 0.0F);
  alignas(64) float buffer[kBlocksAtOnce * kRowTile * kBlockTokens];
  std::uint32_t masks[kBlocksAtOnce * kRowTile];
  const std::size_t first_saved =
      work.saves ? work.first_saved[static_cast<std::size_t>(task.head)] : 0;
  const auto group = static_cast<std::size_t>(sight.group());
  // of a block's scores from the one before
  const std::ptrdiff_t stride = (work.saves ? sight.group() : task.rows) * kBlockTokens;
  for (int index = task.first_block; index < task.end_block; index += kBlocksAtOnce) {
    const int count = std::min(kBlocksAtOnce, task.end_block - index);
    float* scores = buffer;
    if (work.saves)
      scores = work.saved.data() + ((first_saved + static_cast<std::size_t>(index)) * group +
                                    static_cast<std::size_t>(task.first_row)) *
                                       kBlockTokens;
    for (int block = 0; block < count; ++block) {
      block_scores<Simd>(sight, index + block, task.first_row, task.rows, scores + block * stride,
                         masks + block * task.rows);
    }
    for (int row = 0; row < task.rows; ++row) {
      soften<Simd>(scores + row * kBlockTokens, stride, count, masks + row, task.rows, maxima[row],
                   sums[row], outputs + row * width, width);
    }
    if (work.saves) {
      const std::size_t blocks = static_cast<std::size_t>(sight.head->blocks());
      for (int row = 0; row < task.rows; ++row) {
        std::fill_n(
            work.saved_max.begin() +
                static_cast<std::ptrdiff_t>(
                    first_saved * group + static_cast<std::size_t>(task.first_row + row) * blocks +
                    static_cast<std::size_t>(index)),
            count, maxima[row]);
      }
    }
    for (int block = 0; block < count; ++block) {
      const Block& here = sight.head->block(index + block);
      plan.value_codec(index + block < sight.head->coded.count)
          .multiply(scores + block * stride, kBlockTokens, task.rows, kBlockTokens, here.values,
                    value_dim, outputs, width, block_ahead(*sight.head, index + block).values,
                    {outputs + value_dim, width});
    }
  }
  settle_pending<Simd>(plan, task.rows, outputs);
}

/// Joins the ranges of the rows of `tasks` (all of the same rows, in order), and writes them out.
inline void join_tasks(std::span<const AttendTask> tasks, AttendWork& work,
                       const OutputView& output) {
  const AttendTask& first = tasks.front();
  const HeadSight& sight = work.sights[static_cast<std::size_t>(first.head)];
  const AttendOptions& options = *sight.options;
  const int value_dim = sight.plan->value_width();
  const auto width = static_cast<std::size_t>(output_width(*sight.plan));
  const int group = sight.group();
  const int count = static_cast<int>(sight.positions.size());
  for (int row = 0; row < first.rows; ++row) {
    const int query = (first.first_row + row) / group;
    const int query_head = first.head * group + (first.first_row + row) % group;
    float maximum = kHidden;
    for (const AttendTask& task : tasks)
      maximum = std::max(maximum, work.maxima[task.partial + static_cast<std::size_t>(row)]);
    const bool has_sink = !options.sinks.empty();
    const float sink = has_sink ? options.sinks[static_cast<std::size_t>(query_head)] : kHidden;
    maximum = std::max(maximum, sink);
    float sum = has_sink ? std::exp(sink - maximum) : 0.0F;
    float* total = work.outputs.data() + (first.partial + static_cast<std::size_t>(row)) * width;
    for (const AttendTask& task : tasks) {
      const std::size_t at = task.partial + static_cast<std::size_t>(row);
      const float factor =
          work.sums[at] == 0.0F ? 0.0F : std::exp(std::max(work.maxima[at] - maximum, -87.0F));
      const float* part = work.outputs.data() + at * width;
      sum += work.sums[at] * factor;
      if (&task == &first) {
        for (int dim = 0; dim < value_dim; ++dim) total[dim] *= factor;
      } else {
        for (int dim = 0; dim < value_dim; ++dim) total[dim] += part[dim] * factor;
      }
    }
    const float inverse = sum > 0.0F ? 1.0F / sum : 0.0F;
    const float lse = sum > 0.0F ? maximum + std::log(sum) : kHidden;
    work.lse[static_cast<std::size_t>(query_head * count + query)] = lse;
    if (!options.log_sum_exp.empty()) {
      options.log_sum_exp[static_cast<std::size_t>(query * sight.plan->shape.query_heads +
                                                   query_head)] = lse;
    }
    if (output.data == nullptr) continue;
    int features = value_dim;
    float lifted[512];
    if (!sight.plan->formats.folded && !sight.plan->value_basis.is_identity()) {
      features = sight.plan->shape.values();
      std::copy_n(total, value_dim, lifted);
      sight.plan->value_basis.undo(first.head, lifted);
      total = lifted;
    }
    for (int dim = 0; dim < features; ++dim) total[dim] *= inverse;
    write_numbers(output, query * output.token_stride + query_head * output.head_stride, features,
                  total);
  }
}

/// The block after the last one that a query at `position` can see: what came later is all behind
/// it.
inline int blocks_seen(const Head& head, int position) {
  int end = head.blocks();
  while (end > 0) {
    const Block& block = head.block(end - 1);
    bool any = false;
    for (int slot = 0; slot < block.used; ++slot) any = any || block.position[slot] <= position;
    if (any) break;
    --end;
  }
  return end;
}

inline void plan_tasks(const LayerPlan& plan, const QueryRows& rows, AttendWork& work) {
  work.tasks.clear();
  std::size_t partial = 0;
  const int total_rows = rows.count() * plan.shape.group();
  for (int head = 0; head < plan.shape.heads; ++head) {
    const Head& tokens = *work.sights[static_cast<std::size_t>(head)].head;
    for (int first = 0; first < total_rows; first += kRowTile) {
      const int many = std::min(kRowTile, total_rows - first);
      const int newest =
          rows.positions[static_cast<std::size_t>((first + many - 1) / plan.shape.group())];
      const int blocks = blocks_seen(tokens, newest);
      const int length =
          total_rows > 2 * kRowTile ? std::max(blocks, 1) : split_blocks(std::max(blocks, 1));
      for (int block = 0; block == 0 || block < blocks; block += length) {
        const int end = std::min(blocks, block + length);
        work.tasks.push_back({head, first, many, block, end, partial, block == 0 && end == blocks});
        partial += static_cast<std::size_t>(many);
      }
    }
  }
  const auto width = static_cast<std::size_t>(output_width(plan));
  if (work.outputs.size() < partial * width) work.outputs.resize(partial * width);
  if (work.maxima.size() < partial) work.maxima.resize(partial);
  if (work.sums.size() < partial) work.sums.resize(partial);
  const auto all_rows = static_cast<std::size_t>(plan.shape.query_heads * rows.count());
  if (work.lse.size() < all_rows) work.lse.resize(all_rows);
}

}  // namespace detail

/// Fills `work.sights`: each head as `rows` see it. `heads` and `options` must outlive the call of
/// attend.
inline void look(const LayerPlan& plan, std::span<const Head> heads, const QueryRows& rows,
                 const AttendOptions& options, const RopeTable* rope, const RopeLevels* levels,
                 AttendWork& work) {
  const auto count = static_cast<std::size_t>(rows.count());
  work.sights.resize(heads.size());
  work.live_before.clear();
  work.query_rank.clear();
  if (rope != nullptr) {
    for (const Head& head : heads) {
      int live = 0;
      for (int index = 0; index < head.blocks(); ++index) {
        work.live_before.push_back(live);
        live += head.block(index).live_count();
      }
      count_visible(head, rows, 0, work.query_rank);
    }
  }
  for (int& rank : work.query_rank) --rank;
  std::size_t first_block = 0;
  for (std::size_t head = 0; head < heads.size(); ++head) {
    HeadSight& sight = work.sights[head];
    const auto blocks = static_cast<std::size_t>(heads[head].blocks());
    sight = {
        .plan = &plan,
        .head = &heads[head],
        .head_index = static_cast<int>(head),
        .queries = rows.data +
                   head * count * static_cast<std::size_t>(plan.shape.group() * plan.query_width()),
        .sealed = rows.sealed == nullptr
                      ? nullptr
                      : rows.sealed +
                            head * count *
                                static_cast<std::size_t>(plan.shape.group() * plan.sealed_channels),
        .positions = rows.positions,
        .options = &options,
        .rope = rope,
        .levels = levels,
        .sees_all = count == 1 && rows.replayed == 0};
    if (rope != nullptr) {
      sight.live_before = std::span(work.live_before).subspan(first_block, blocks);
      sight.query_rank = std::span(work.query_rank).subspan(head * count, count);
    }
    first_block += blocks;
  }
}

/// Attention of `rows` over `heads`, written to `output` (strides filled in; null data: only the
/// log-sum-exp).
template <class Simd>
void attend(const LayerPlan& plan, const QueryRows& rows, const OutputView& output,
            const Executor& executor, AttendWork& work) {
  detail::plan_tasks(plan, rows, work);
  if (work.saves) {
    work.first_saved.assign(1, 0);
    for (const HeadSight& sight : work.sights) {
      work.first_saved.push_back(work.first_saved.back() +
                                 static_cast<std::size_t>(sight.head->blocks()));
    }
    const std::size_t rows_saved =
        work.first_saved.back() * static_cast<std::size_t>(plan.shape.group());
    if (work.saved.size() < rows_saved * kBlockTokens) work.saved.resize(rows_saved * kBlockTokens);
    if (work.saved_max.size() < rows_saved) {
      work.saved_max.resize(rows_saved);
      work.saved_factors.resize(rows_saved);
    }
  }
  std::vector<AttendTask>& tasks = work.tasks;
  executor.parallel_for(static_cast<int>(tasks.size()), [&](int index) {
    const AttendTask& task = tasks[static_cast<std::size_t>(index)];
    detail::run_task<Simd>(task, work);
    if (task.whole) detail::join_tasks({&task, 1}, work, output);
  });
  for (std::size_t begin = 0; begin < tasks.size();) {
    std::size_t end = begin + 1;
    while (end < tasks.size() && tasks[end].head == tasks[begin].head &&
           tasks[end].first_row == tasks[begin].first_row)
      ++end;
    if (!tasks[begin].whole) detail::join_tasks({tasks.data() + begin, end - begin}, work, output);
    begin = end;
  }
}

}  // namespace kvast
