# SPDX-License-Identifier: Apache-2.0
# Plots of what calibrations and low_rank.py report.
"""Usage: low_rank_plots.py energy REPORT.json OUT.png   (of kvast-calibrate --report)
       low_rank_plots.py nats LOW_RANK.json OUT.png

Needs numpy and matplotlib."""

import json
import sys
from pathlib import Path

import numpy as np


def pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def plot_energy(report, file):
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    layers = report["layers"]
    for axis, part in zip(axes, ("keys", "values")):
        for at, layer in enumerate(layers):
            energy = np.cumsum(np.mean(layer[part], 0))
            color = plt.cm.viridis(at / max(1, len(layers) - 1))
            axis.plot(np.arange(1, len(energy) + 1), energy, color=color, linewidth=0.8)
        axis.set_title(f"{part}, first layer dark, last one light")
        axis.set_xlabel("directions")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share of energy")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def plot_nats(points, file):
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(6, 4))
    for method in ("eigen", "lorc", "think"):
        for bits, style in ((None, "o-"), (4, "s--")):
            own = sorted(
                (p["bytes_share"], p["nats_over_f16"])
                for p in points
                if p["method"] == method and p["bits"] == bits
            )
            axis.plot(*zip(*own), style, label=method + (" x 4 bit" if bits else ""))
    axis.set_xlabel("bytes at the end, of f16")
    axis.set_ylabel("nats over f16")
    axis.set_yscale("symlog", linthresh=0.05)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main():
    what, source, out = sys.argv[1:4]
    read = json.loads(Path(source).read_text())
    if what == "energy":
        plot_energy(read, out)
    else:
        plot_nats(read["points"], out)


if __name__ == "__main__":
    main()
