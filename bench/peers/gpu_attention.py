# SPDX-License-Identifier: Apache-2.0
"""Times decode attention of PyTorch and FlashInfer on a CUDA device, where they are installed.

The same shapes, batches and contexts as the figures of kvast: f16, one query token, means by CUDA events, the L2 cache
swept before each step by reading. Writes one JSON object; what is not installed is named and left out.
"""

import argparse
import json
import sys

SHAPES = [(32, 8, 128), (64, 8, 128), (9, 3, 64)]  # query heads, heads, head_dim
BATCHES = [1, 16, 64]
CONTEXTS = [4096, 16384, 32768, 131072]
MOST_BYTES = 120 << 30
REPEATS = 20


def mean_seconds(torch, step, sweep):
    """Of REPEATS steps, each after a sweep of the L2 cache: by reads, as what was written would still have to leave it."""
    times = []
    for turn in range(REPEATS + 3):
        sweep.sum()
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        begin.record()
        step()
        end.record()
        torch.cuda.synchronize()
        if turn >= 3:
            times.append(begin.elapsed_time(end) * 1e-3)
    return sum(times) / len(times)


def sdpa_step(torch, queries, keys, values):
    def step():
        torch.nn.functional.scaled_dot_product_attention(queries, keys, values, enable_gqa=True)

    return step


def flashinfer_step(torch, flashinfer, queries, keys, values):
    """Paged batch decode, pages of 32 tokens."""
    batch, heads, context, dim = keys.shape
    pages = context // 32
    cache = torch.stack([keys, values], dim=1)  # [batch, 2, heads, context, dim]
    cache = cache.reshape(batch, 2, heads, pages, 32, dim).permute(0, 3, 1, 4, 2, 5)
    cache = cache.reshape(batch * pages, 2, 32, heads, dim).contiguous()
    workspace = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD")
    indptr = torch.arange(batch + 1, dtype=torch.int32, device="cuda") * pages
    indices = torch.arange(batch * pages, dtype=torch.int32, device="cuda")
    last = torch.full((batch,), 32, dtype=torch.int32, device="cuda")
    wrapper.plan(indptr, indices, last, queries.shape[1], heads, dim, 32, q_data_type=torch.float16,
                 kv_data_type=torch.float16)
    rows = queries[:, :, 0]

    def step():
        wrapper.run(rows, cache)

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    for name in ["driver", "toolkit", "commit"]:
        parser.add_argument(f"--{name}", default="unknown")
    options = parser.parse_args()
    try:
        import torch
    except ImportError:
        print("gpu_attention.py: PyTorch is not installed; no peers were timed")
        return 0
    if not torch.cuda.is_available():
        print("gpu_attention.py: PyTorch sees no CUDA device; no peers were timed")
        return 0
    peers = {"sdpa": sdpa_step}
    try:
        import flashinfer

        peers["flashinfer"] = lambda *tensors: flashinfer_step(tensors[0], flashinfer, *tensors[1:])
    except ImportError:
        print("gpu_attention.py: FlashInfer is not installed; it is left out")
    sweep = torch.ones(64 << 20, dtype=torch.float32, device="cuda")
    rows = []
    for query_heads, heads, dim in SHAPES:
        for batch in BATCHES:
            for context in CONTEXTS:
                size = 4 * batch * context * heads * dim
                if 3 * size > MOST_BYTES:
                    print(f"gpu_attention.py: left out, {3 * size >> 30} GiB are needed: "
                          f"{query_heads}/{heads}/{dim}, batch {batch}, {context} tokens")
                    continue
                keys = torch.randn(batch, heads, context, dim, dtype=torch.float16, device="cuda")
                values = torch.randn_like(keys)
                queries = torch.randn(batch, query_heads, 1, dim, dtype=torch.float16, device="cuda")
                for name, make in peers.items():
                    seconds = mean_seconds(torch, make(torch, queries, keys, values), sweep)
                    rows.append({"peer": name, "shape": [query_heads, heads, dim], "batch": batch,
                                 "context": context, "seconds": seconds, "GBps": size / seconds * 1e-9})
    with open(options.out, "w", encoding="utf-8") as file:
        json.dump({"device": torch.cuda.get_device_name(), "driver": options.driver, "toolkit": options.toolkit,
                   "commit": options.commit, "torch": torch.__version__, "cuda": torch.version.cuda, "rows": rows}, file, indent=1)
    print(f"gpu_attention.py: {len(rows)} rows in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
