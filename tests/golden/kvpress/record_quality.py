# SPDX-License-Identifier: Apache-2.0
# Records how well SmolLM2 goes on with a text whose cache a kvpress press has cut.
"""Usage: record_quality.py MODEL.gguf   (writes quality.json; see README.md)"""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import kvpress  # noqa: E402
import torch  # noqa: E402
from gguf_llama import dump, load_model, load_tokenizer, open_gguf, sha256, versions  # noqa: E402
from transformers import DynamicCache  # noqa: E402

STORY = HERE.parents[2] / "examples" / "decoder" / "data" / "story.txt"
CONTEXT, SCORED = 1024, 128
OFFSETS = (0,)
KEPT = (0.5, 0.25, 0.1)
SNAP = {"window_size": 32, "kernel_size": 5}
PRESSES = {
    "streaming": lambda ratio: kvpress.StreamingLLMPress(ratio, n_sink=4),
    "l2norm": kvpress.KnormPress,
    "snapkv": lambda ratio: kvpress.SnapKVPress(ratio, **SNAP),
    "pyramidkv": lambda ratio: kvpress.PyramidKVPress(ratio, **SNAP, beta=20),
    "adakv": lambda ratio: kvpress.AdaKVPress(kvpress.SnapKVPress(ratio, **SNAP)),
    "tova": kvpress.TOVAPress,
    "keydiff": kvpress.KeyDiffPress,
    "observed": kvpress.ObservedAttentionPress,
    "lagkv": lambda ratio: kvpress.LagKVPress(ratio, n_sink=4, lag_size=128),
    "expected": lambda ratio: kvpress.ExpectedAttentionPress(ratio, epsilon=0.0),
    "random": lambda ratio: kvpress.RandomPress(ratio, seed=1),
}


def continuation(model, ids, press):
    """Mean nats per scored token: the press cuts the cache once, after the context."""
    cache = DynamicCache()
    context = torch.tensor([ids[:CONTEXT]])
    with press(model) if press else nullcontext():
        logits = model(context, past_key_values=cache, use_cache=True).logits[0, -1]
    nats = 0.0
    for place in range(CONTEXT, CONTEXT + SCORED):
        nats -= logits.log_softmax(-1)[ids[place]].item()
        if place + 1 == CONTEXT + SCORED:
            break
        logits = model(
            torch.tensor([[ids[place]]]),
            past_key_values=cache,
            use_cache=True,
            position_ids=torch.tensor([[place]]),
        ).logits[0, -1]
    return nats / SCORED


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    reader = open_gguf(arguments.gguf)
    ids = load_tokenizer(reader).encode(STORY.read_text()).ids
    models = {name: load_model(reader, name) for name in ("sdpa", "eager")}

    rows = []
    for offset in OFFSETS:
        text = ids[offset : offset + CONTEXT + SCORED]
        full = continuation(models["sdpa"], text, None)
        rows.append({"press": "full", "kept": 1.0, "offset": offset, "nll": round(full, 5)})
        for name, make in PRESSES.items():
            # the only one that wants to see the weights
            model = models["eager" if name == "observed" else "sdpa"]
            for kept in KEPT:
                nats = continuation(model, text, make(1 - kept))
                rows.append(
                    {"press": name, "kept": kept, "offset": offset, "nll": round(nats, 5)}
                )
                print(rows[-1], flush=True)
    origin = {
        "gguf": arguments.gguf.name,
        "gguf_sha256": sha256(arguments.gguf),
        "story_sha256": sha256(STORY),
        "versions": versions("kvpress", "torch", "transformers", "gguf"),
    }
    dump(
        HERE / "quality.json",
        {"source": origin, "context": CONTEXT, "scored": SCORED, "rows": rows},
    )


if __name__ == "__main__":
    main()
