# SPDX-License-Identifier: Apache-2.0
# What low rank and fewer channels cost a real model: nats against bytes, calibrated on one text and
# judged on another, each point beside a projection in NumPy that shares no code with the library.
"""Usage: low_rank.py KVAST_EVAL KVAST_CALIBRATE MODEL.gguf CALIBRATION.txt OUT.json [PLOT_FOLDER]

Needs numpy, gguf and tokenizers, and for plots matplotlib. The table goes to standard output."""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from kvast_eval import STORY, evaluate
from low_rank_plots import plot_energy, plot_nats
from numpy_llama import BLOCK, Model, Plain, quantise

CONTEXT = 512
SCORED = 128
CALIBRATED = 8192  # tokens
WAITING = 32
BITS = (None, 4)
# method, keys of its SPEC; parts of the f16 payload: 1, 0.8, 0.6 and 0.5, or as near as it comes
POINTS = (
    ("eigen", {"share": 1.0}),
    ("eigen", {"share": 0.8}),
    ("eigen", {"share": 0.6}),
    ("eigen", {"share": 0.5}),
    ("lorc", {"rank": 64, "least": 64}),
    ("lorc", {"rank": 64, "least": 40}),
    ("lorc", {"rank": 48, "least": 32}),
    ("lorc", {"rank": 40, "least": 24}),
    ("think", {"prune": 0.0}),
    ("think", {"prune": 0.4}),
    ("think", {"prune": 0.5}),
    ("think", {"prune": 0.75}),
)
STEP = 8
LOST = 5.0  # nats over f16: what is left knows next to nothing of the text


def read_calibration(path):
    """[layers] of (energies, vectors) of keys, and of values: [bases, D] and [bases, D, D]."""
    data = Path(path).read_bytes()
    assert data[:8] == b"kvastcal"
    _, _, _, layers = struct.unpack_from("<IIQI", data, 8)
    at, found = 28, []
    for _ in range(layers):
        _, _, key_dim, value_dim, key_bases, value_bases = struct.unpack_from("<6I", data, at)
        at += 24
        both = []
        for bases, dim in ((key_bases, key_dim), (value_bases, value_dim)):
            energies = np.frombuffer(data, "<f8", bases * dim, at).reshape(bases, dim)
            at += 8 * bases * dim
            vectors = np.frombuffer(data, "<f4", bases * dim * dim, at).reshape(bases, dim, dim)
            at += 4 * bases * dim * dim
            both.append((energies, vectors))
        found.append(both)
    return found


def weight_directions(model):
    """The same of the projections' own rows, by singular values, and log condition numbers."""
    found, logs = [], []
    for layer in range(model.layers):
        both, log = [], 0.0
        for name in ("attn_k", "attn_v"):
            rows = model.weight(layer, name).astype(np.float64)
            values = np.linalg.svd(rows, compute_uv=False)
            log += np.log(values[0] / max(values[-1], values[0] * 1e-6))
            per_head = rows.reshape(model.heads, model.dim, -1)
            left, singular, _ = np.linalg.svd(per_head, full_matrices=False)
            both.append((singular**2, left.astype(np.float32)))
        found.append(both)
        logs.append(log)
    return found, logs


def ranks_by_share(directions, heads, share):
    """Steps of 8 directions to whoever gains the largest share of energy by them."""
    ranks = np.full((len(directions), 2), STEP)
    dim = directions[0][0][0].shape[1]
    left = int(share * len(directions) * heads * 2 * dim + 1e-9) - ranks.sum() * heads
    gains = [[e / e.sum(1, keepdims=True) for e, _ in layer] for layer in directions]
    while left >= STEP * heads:
        gain = [
            [g[:, r : r + STEP].sum() / len(g) if r < dim else -1.0 for g, r in zip(layer, own)]
            for layer, own in zip(gains, ranks)
        ]
        layer, part = np.unravel_index(np.argmax(gain), ranks.shape)
        if gain[layer][part] < 0:
            break
        ranks[layer, part] += STEP
        left -= STEP * heads
    return ranks


def progressive_ranks(logs, most, least):
    products = np.cumsum(logs[::-1])[::-1]
    fallen = (products[0] - products) / (products[0] - products[-1])
    wanted = most - fallen * (most - least)
    ranks = (np.ceil(wanted / STEP - 1e-9) * STEP).astype(int)
    return np.stack([ranks, ranks], 1)


class LowRank(Plain):
    def __init__(self, model, directions, ranks, bits):
        self.model, self.bits, self.ranks = model, bits, ranks
        self.bases = [
            [vectors[:, :, :rank] for (_, vectors), rank in zip(layer, own)]
            for layer, own in zip(directions, ranks)
        ]
        self.residual = WAITING if bits else Plain.residual

    def keeps_all(self):
        return np.all(self.ranks == self.model.dim)

    def arrive(self, layer, keys, values):
        project = lambda x, basis: (x @ basis) @ basis.transpose(0, 2, 1)
        return tuple(
            x if rank == self.model.dim else project(x, basis)
            for x, basis, rank in zip((keys, values), self.bases[layer], self.ranks[layer])
        )

    def seal(self, layer, keys, values, turned):
        key_basis, value_basis = self.bases[layer]
        if self.ranks[layer][0] == self.model.dim:
            new = along_tokens(turned, self.bits)
        else:
            new = along_tokens(keys @ key_basis, self.bits) @ key_basis.transpose(0, 2, 1)
            new = self.model.rotate(new, np.arange(keys.shape[1]))
        if self.ranks[layer][1] == self.model.dim:
            return new, along_channels(values, self.bits)
        return new, along_channels(values @ value_basis, self.bits) @ value_basis.transpose(0, 2, 1)


class Channels(Plain):
    residual = WAITING

    def __init__(self, model, prune, bits):
        self.model, self.bits = model, bits
        self.kept = -(-(model.dim - int(model.dim * prune + 1e-9)) // STEP) * STEP
        self.masks = [None] * model.layers

    def keeps_all(self):
        return self.kept == self.model.dim

    def choose(self, layer, queries, turned):
        newest = queries[:, -32:].reshape(self.model.heads, -1, self.model.dim)
        scores = (newest**2).sum(1) * (turned**2).sum(1)
        masks = np.zeros_like(scores)
        np.put_along_axis(masks, np.argsort(-scores, 1)[:, : self.kept], 1, 1)
        self.masks[layer] = masks[:, None]

    def seal(self, layer, keys, values, turned):
        if self.bits:
            turned, values = along_tokens(turned, self.bits), along_channels(values, self.bits)
        return turned * self.masks[layer], values


def along_tokens(numbers, bits):
    heads, tokens, width = numbers.shape
    blocks = numbers.reshape(heads, -1, BLOCK, width).swapaxes(2, 3)
    return quantise(blocks, bits).swapaxes(2, 3).reshape(heads, tokens, width)


def along_channels(numbers, bits):
    width = numbers.shape[2]
    groups = [quantise(numbers[..., at : at + BLOCK], bits) for at in range(0, width, BLOCK)]
    return np.concatenate(groups, 2)


def main():
    program, calibrate, path, text, out = sys.argv[1:6]
    folder = sys.argv[6] if len(sys.argv) > 6 else None
    scratch = Path(tempfile.mkdtemp())
    basis, report = scratch / "basis", scratch / "report.json"
    line = [calibrate, "--model", path, "--text", text, "--out", basis, "--report", report]
    subprocess.run([*line, "--tokens", str(CALIBRATED)], check=True)
    report = json.loads(report.read_text())
    model = Model(path)
    story = model.tokens(STORY.read_text())[: CONTEXT + SCORED]
    eigen = read_calibration(basis)
    weights, logs = weight_directions(model)
    kinds = []
    for method, keys in POINTS:
        spec = f"{method}:" + ",".join(f"{key}={value}" for key, value in keys.items())
        for bits in BITS:
            if method == "eigen":
                ranks = ranks_by_share(eigen, model.heads, keys["share"])
                kind = LowRank(model, eigen, ranks, bits)
            elif method == "lorc":
                ranks = progressive_ranks(logs, keys["rank"], keys["least"])
                kind = LowRank(model, weights, ranks, bits)
            else:
                kind = Channels(model, keys["prune"], bits)
            format_spec = f"+kivi:bits={bits},residual={WAITING}" if bits else ""
            kinds.append((spec, format_spec, {"method": method, **keys, "bits": bits}, kind))
    judged = ["--text", str(STORY), "--context", str(CONTEXT), "--continuation", str(SCORED)]
    for spec, format_spec, point, _ in kinds:
        with_file = f",basis={basis}" if point["method"] == "eigen" else ""
        judged += ["--storage", spec + with_file + format_spec]
    whole, *rows = evaluate(program, "frontier", path, ["full"], "f16", judged)
    whole["numpy_nll"] = model.nats(story, CONTEXT, Plain())
    plain = {None: whole["numpy_nll"]}  # what keeps everything is one thing, whatever it is called
    print(f"f16: {whole['nll']:.4f} nats, NumPy {whole['numpy_nll']:.4f}", flush=True)
    points = []
    for (spec, format_spec, point, kind), row in zip(kinds, rows):
        point |= {key: row[key] for key in ("nll", "kl", "bytes_end", "attend_ms")}
        point["bytes_share"] = row["bytes_end"] / whole["bytes_end"]
        point["nats_over_f16"] = row["nll"] - whole["nll"]
        if not kind.keeps_all():
            point["numpy_nll"] = model.nats(story, CONTEXT, kind)
        else:
            if point["bits"] not in plain:
                plain[point["bits"]] = model.nats(story, CONTEXT, kind)
            point["numpy_nll"] = plain[point["bits"]]
        points.append(point)
        print(
            f"| `{spec}{format_spec}` | {point['bytes_share']:.2f} | {point['nll']:.4f} | "
            f"{point['numpy_nll']:.4f} | {point['kl']:.4f} |",
            flush=True,
        )
    result = {
        "calibration": {"text": Path(text).name, "tokens": report["tokens"]},
        "judged": {"text": STORY.name, "context": CONTEXT, "scored": SCORED},
        "f16": {key: whole[key] for key in ("nll", "numpy_nll", "bytes_end")},
        "points": points,
        "energy_ranks": report["ranks"],
    }
    Path(out).write_text(json.dumps(result, indent=1) + "\n")
    if folder is not None:
        plot_energy(report, Path(folder) / "energy.png")
        plot_nats(points, Path(folder) / "nats.png")
    # a model that no longer predicts anything turns roundings into whole tenths of a nat
    spoken = [p for p in points if p["nats_over_f16"] < LOST]
    apart = lambda some: max((abs(p["nll"] - p["numpy_nll"]) for p in some), default=0.0)
    lost = [p for p in points if p["nats_over_f16"] >= LOST]
    good = min(p["nats_over_f16"] for p in points if p["bytes_share"] <= 0.85)
    print(f"NumPy is at most {apart(spoken):.4f} nats apart, {apart(lost):.4f} where the model is lost")
    print(f"at 0.85 of the bytes the best is {good:+.4f}")
    if apart(spoken) > 0.01:
        sys.exit("more than 0.01 nats apart from NumPy")


if __name__ == "__main__":
    main()
