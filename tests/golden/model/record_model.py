# SPDX-License-Identifier: Apache-2.0
# Records what transformers and tokenizers make of SmolLM2, for the example decoder's tests.
"""Usage: record_model.py MODEL.gguf   (writes reference.json, logits.f32 and tokenizer.json)

Attention is transformers' "eager" one in float32, weights are the GGUF's, de-quantised. Everything
is teacher-forced on examples/decoder/data/story.txt, tokenised without BOS.
"""

import argparse
import hashlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import torch  # noqa: E402
from gguf_llama import dump, load_model, load_tokenizer, open_gguf, sha256, versions  # noqa: E402
from tokenizer_texts import texts  # noqa: E402

STORY = HERE.parents[2] / "examples" / "decoder" / "data" / "story.txt"
CONTEXT = 1024
SCORED = 128
FORCED = 2000
# Positions whose logits are stored whole: one token, some tokens, the whole context.
LOGIT_POSITIONS = (0, 63, CONTEXT - 1)


def story_ids(tokenizer):
    return tokenizer.encode(STORY.read_text()).ids


def record_tokenizer(tokenizer):
    cases = []
    for kind, text in texts():
        ids = tokenizer.encode(text).ids
        lossless = tokenizer.decode(ids, skip_special_tokens=False) == text
        cases.append({"kind": kind, "text": text, "ids": ids, "lossless": lossless})
    return cases


def record_reference(model, ids):
    """Argmax, margins, scored tokens and a few rows of logits, from one pass over FORCED tokens."""
    logits = model(torch.tensor([ids[:FORCED]])).logits[0]
    top = logits.topk(2, dim=-1)
    # Row p predicts token p + 1: the first scored token is number CONTEXT.
    rows = logits[CONTEXT - 1 : CONTEXT - 1 + SCORED].double()
    targets = torch.tensor(ids[CONTEXT : CONTEXT + SCORED])
    nats = torch.nn.functional.cross_entropy(rows, targets, reduction="none")
    reference = {
        "context": CONTEXT,
        "scored": SCORED,
        "nll_mean": nats.mean().item(),
        "nll": [round(value, 7) for value in nats.tolist()],
        "argmax": top.indices[:, 0].tolist(),
        "argmax_margin": [
            round(value, 5) for value in (top.values[:, 0] - top.values[:, 1]).tolist()
        ],
        "logits": {
            "file": "logits.f32",
            "dtype": "f32",
            "positions": list(LOGIT_POSITIONS),
            "shape": [len(LOGIT_POSITIONS), logits.shape[-1]],
        },
    }
    return reference, logits[list(LOGIT_POSITIONS)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)

    reader = open_gguf(arguments.gguf)
    tokenizer = load_tokenizer(reader)
    ids = story_ids(tokenizer)
    source = {
        "gguf": arguments.gguf.name,
        "gguf_sha256": sha256(arguments.gguf),
        "story_sha256": sha256(STORY),
        "versions": versions("torch", "transformers", "tokenizers", "gguf", "numpy"),
    }
    story = {
        "count": len(ids),
        "ids_sha256": hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest(),
        "ids": ids,
    }
    dump(
        HERE / "tokenizer.json",
        {"source": source, "cases": record_tokenizer(tokenizer), "story": story},
    )

    reference, logits = record_reference(load_model(reader), ids)
    logits.numpy().astype("<f4").tofile(HERE / "logits.f32")
    dump(HERE / "reference.json", {"source": source} | reference)
    print(f"story: {len(ids)} tokens; nll {reference['nll_mean']:.6f} nats per token")


if __name__ == "__main__":
    main()
