// SPDX-License-Identifier: Apache-2.0
// The second kernel of attend: the parts of a head that was split become one result.
#pragma once

#include "kvast/gpu/attend_rows.cuh"

namespace kvast::gpu {

/// In order of the parts, so that results are the same bits whoever computed them first. Also
/// writes the rows of heads without tokens: zeros.
struct MergeParts {
  static constexpr int kThreads = kWarp;
  AttendCall call{};
  int tile_rows = 8;  ///< of the kernel that made the parts

  /// Grid: sequences * heads * (rows of the head that has most), a warp per row.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const int tables = call.layer.tables();
    const int table = block.index() % tables;
    const int head_row = block.index() / tables;
    const HeadItems items = call.plan.heads[table];
    if (items.parts == 1) return;
    const RowTile tile =
        RowTile::of(call, table / call.layer.head_count, table % call.layer.head_count,
                    head_row / tile_rows, tile_rows);
    const int row = head_row % tile_rows;
    if (row >= tile.count) return;
    const auto part_at = [&](int part) {
      return (std::int64_t{items.first + part} * call.tiles + head_row / tile_rows) * tile_rows +
             row;
    };
    const auto warp = block.warp();
    const int lane = warp.lane();
    float maximum = kHiddenLogit;
    for (int part = lane; part < items.parts; part += kWarp)
      maximum = most_of(maximum, call.partials.maxima[part_at(part)]);
    maximum = warp_max(warp, maximum);
    const int columns = call.layer.value_dim;
    LaneVector<kvast::Shape::kMostDim / kWarp> total;
    float sum = 0.0F;
    for (int first = 0; first < items.parts; first += kWarp) {  // a lane for each part's numbers
      float factor = 0.0F;
      if (first + lane < items.parts) {
        const std::int64_t from = part_at(first + lane);
        factor = power_of_two(call.partials.maxima[from] - maximum);
        sum += call.partials.sums[from] * factor;
      }
      const int end = least_of(items.parts - first, kWarp);
      for (int at = 0; at < end; ++at) {
        const float of_part = warp.shuffle(factor, at);
        const float* from = call.partials.outputs + part_at(first + at) * columns;
        total.each(lane, columns, [&](int dim, float& number) { number += from[dim] * of_part; });
      }
    }
    call.write_row(warp, tile, row, maximum, warp_sum(warp, sum), total);
  }
};

}  // namespace kvast::gpu
