// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/bases.h"

#include "kvast/calibrate/calibration_file.h"
#include "kvast/storage/channels.h"
#include "kvast/storage/dense.h"
#include "kvast/storage/low_rank.h"
#include "kvast/storage/rotated.h"

namespace kvast::quality {

namespace {

AnyStorage read_rotated(Spec& spec, const AnyStorage* inner, const CacheSetup*) {
  const auto seed = static_cast<std::uint64_t>(spec.number("seed", 1));
  spec.finish();
  if (inner == nullptr) return Dense<half>{};
  return Rotated<AnyStorage>{{*inner}, seed};
}

/// Bytes per token of a full f16 cache, all layers together.
double full_bytes(const Calibration& calibration) {
  double bytes = 0;
  for (const Shape& shape : calibration.shapes)
    bytes += 2.0 * shape.heads * (shape.head_dim + shape.values());
  return bytes;
}

/// The keys by which a calibration's ranks are chosen; a given one excludes the others.
class RankKeys {
 public:
  explicit RankKeys(Spec& spec) : uniform_(spec.has("rank") || spec.has("k") || spec.has("v")) {
    if (uniform_ + spec.has("energy") + spec.has("share") > 1)
      throw SpecError("SPEC '" + spec.name() +
                      "': give one of energy, share and rank (or k and v)");
    if (spec.has("k") != spec.has("v") && !spec.has("rank"))
      throw SpecError("SPEC '" + spec.name() + "': give k and v, or rank for both");
    energy_ = spec.real("energy", 0.99);
    by_share_ = spec.has("share");
    share_ = spec.optional_real("share");
    const int rank = spec.optional_number("rank");
    keys_ = spec.optional_number("k");
    values_ = spec.optional_number("v");
    if (!spec.has("k")) keys_ = rank;
    if (!spec.has("v")) values_ = rank;
  }
  Ranks of(const Calibration& calibration) const {
    if (by_share_) {
      require(share_ > 0.0 && share_ <= 1.0, Caller::here(), "share is ", share_,
              ", must lie in (0, 1]");
      return ranks_by_bytes(calibration, share_ * full_bytes(calibration));
    }
    if (!uniform_) return ranks_by_energy(calibration, energy_);
    Ranks ranks = uniform_ranks(calibration, keys_);
    const Ranks of_values = uniform_ranks(calibration, values_);
    for (std::size_t layer = 0; layer < ranks.size(); ++layer)
      ranks[layer].values = of_values[layer].values;
    return ranks;
  }

 private:
  bool uniform_;
  bool by_share_ = false;
  double energy_ = 0;
  double share_ = 0;
  int keys_ = 0;
  int values_ = 0;
};

AnyStorage read_eigen(Spec& spec, const AnyStorage* inner, const CacheSetup* setup) {
  const std::string file = spec.text("basis", "FILE");
  const RankKeys ranks(spec);
  spec.finish();
  if (inner == nullptr) return Dense<half>{};
  if (!spec.has("basis"))
    throw SpecError("SPEC 'eigen': basis=FILE is missing; kvast-calibrate makes one");
  Result<Calibration> loaded = load_calibration(file);
  if (!loaded) throw SpecError("SPEC 'eigen': " + loaded.status().message());
  if (setup != nullptr) {
    const std::string mismatch = calibration_mismatch(*loaded, setup->shape);
    if (!mismatch.empty()) throw SpecError("SPEC 'eigen': '" + file + "': " + mismatch);
  }
  const auto calibration = std::make_shared<const Calibration>(std::move(*loaded));
  return EigenLowRank<AnyStorage>{{*inner}, calibration, ranks.of(*calibration)};
}

AnyStorage read_lorc(Spec& spec, const AnyStorage* inner, const CacheSetup* setup) {
  const int rank = spec.number("rank", 32);
  // a schedule that ends at half of what it begins with
  const int lower = (rank / 2 + kRankStep - 1) / kRankStep * kRankStep;
  const int least = spec.number("least", lower);
  spec.finish();
  if (inner == nullptr) return Dense<half>{};
  if (setup == nullptr || !setup->weights)
    throw SpecError("SPEC 'lorc': the weights of a model are needed, and none is at hand");
  const auto weights = setup->weights();
  // shares the weights' calibration, which lives as long
  const std::shared_ptr<const Calibration> calibration(weights, &weights->calibration);
  return LoRC<AnyStorage>{{*inner}, calibration, progressive_ranks(*weights, rank, least)};
}

AnyStorage read_think(Spec& spec, const AnyStorage* inner, const CacheSetup*) {
  ThinK<AnyStorage> think{{inner == nullptr ? Dense<half>{} : *inner}};
  think.prune = static_cast<float>(spec.real("prune", think.prune));
  think.recent = spec.number("recent", think.recent);
  think.window = spec.number("window", think.window);
  think.pairs = static_cast<ChannelPairs>(
      spec.choice("pairs", {"none", "halves", "interleaved"}, static_cast<int>(think.pairs)));
  spec.finish();
  think.validate(Caller::here());
  return think;
}

constexpr BasisName kBases[] = {
    {"rotated", read_rotated}, {"eigen", read_eigen}, {"lorc", read_lorc}, {"think", read_think}};

}  // namespace

std::span<const BasisName> bases() { return kBases; }

}  // namespace kvast::quality
