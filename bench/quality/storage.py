# SPDX-License-Identifier: Apache-2.0
# What representation costs a real model, alone and with eviction, and what the same bytes buy.
"""Usage: storage.py KVAST_EVAL MODEL.gguf OUT.json   (tables go to standard output)"""

import json
import sys
from pathlib import Path

from kvast_eval import STORY, evaluate

CONTEXT = 1024
SCORED = 128
STORAGES = (
    "f16",
    "bf16",
    "int8",
    "fp8:kind=e4m3",
    "fp8:kind=e5m2",
    "kivi:bits=4",
    "kivi:bits=3",
    "kivi:bits=2",
    "kivi:k=4,v=2",
    "kivi:k=2,v=4",
    "int4",
    "rotated+kivi:bits=4",
    "rotated+kivi:bits=2",
    "turbo:bits=4",
    "turbo:bits=3",
    "turbo:bits=2",
)
POLICIES = ("full", "snapkv:budget=0.5", "snapkv:budget=0.25", "h2o:budget=0.5", "h2o:budget=0.25")
PRUNED = ("snapkv:budget={}", "h2o:budget={}", "tova:budget={}")
TOKENS = (64, 96, 128)  # kept at f16
# storages, and their tokens per token at f16: as bytes of a group of 32 say, 64 to 34, 20 and 12,
# and as the rule of thumb has it, metadata left out
PACKED = ("f16", "int8", "kivi:bits=4,residual=32", "kivi:bits=2,residual=32")
EQUAL = (1.0, 64 / 34, 64 / 20, 64 / 12)
THUMB = (1, 2, 4, 7)


def nll(program, model, specs, storage):
    text = ["--text", str(STORY), "--context", str(CONTEXT), "--continuation", str(SCORED)]
    rows = evaluate(program, "nll", model, specs, storage, text)
    keys = ("policy", "storage", "nll", "kl", "top1_agree", "kept_mean", "bytes_end")
    return [{key: row[key] for key in keys} for row in rows]


def cell(row):
    return f"{row['nll']:.3f}, {row['kl']:.4f}, {row['bytes_end'] / 2**20:.1f}"


def print_storages(rows):
    print("| storage | " + " | ".join(f"`{policy}`: nll, KL, MiB" for policy in POLICIES) + " |")
    print("|---|" + "---|" * len(POLICIES))
    for storage in STORAGES:
        line = [cell(row) for row in rows if row["storage"] == storage]
        print(f"| `{storage}` | " + " | ".join(line) + " |")


def print_equal(rows):
    print("| policy, tokens at f16 | " + " | ".join(f"`{n}`: tokens, KL, MiB" for n in PACKED) + " |")
    print("|---|" + "---|" * len(PACKED))
    for at in range(0, len(rows), len(PACKED)):
        line = [
            f"{row['tokens']}, {row['kl']:.4f}, {row['bytes_end'] / 2**20:.2f}"
            for row in rows[at : at + len(PACKED)]
        ]
        print(f"| {rows[at]['name']}, {rows[at]['tokens']} | " + " | ".join(line) + " |")


def equal_bytes(program, model):
    """Rows of both rules. One call per storage, so that the full cache is run once for all."""
    kept = {
        (storage, rule, tokens): min(round(rule[at] * tokens), CONTEXT)
        for at, storage in enumerate(PACKED)
        for rule in (EQUAL, THUMB)
        for tokens in TOKENS
    }
    measured = {}
    for storage in PACKED:
        counts = sorted({count for key, count in kept.items() if key[0] == storage})
        specs = [spec.format(count) for spec in PRUNED for count in counts]
        for spec, row in zip(specs, nll(program, model, specs, storage)):
            measured[storage, spec] = row
    return [
        [
            {"name": spec.split(":")[0], "tokens": kept[storage, rule, tokens]}
            | measured[storage, spec.format(kept[storage, rule, tokens])]
            for spec in PRUNED
            for tokens in TOKENS
            for storage in PACKED
        ]
        for rule in (EQUAL, THUMB)
    ]


def main():
    program, model, out = sys.argv[1:4]
    rows = [row for storage in STORAGES for row in nll(program, model, POLICIES, storage)]
    print_storages(rows)
    equal, thumb = equal_bytes(program, model)
    print("\nThe same bytes, metadata counted:\n")
    print_equal(equal)
    print("\nN, 2 N, 4 N and 7 N tokens:\n")
    print_equal(thumb)
    result = {"text": STORY.name, "context": CONTEXT, "scored": SCORED}
    result |= {"storages": rows, "equal_bytes": equal, "rule_of_thumb": thumb}
    Path(out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
