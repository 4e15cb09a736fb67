# SPDX-License-Identifier: Apache-2.0
# Records which tokens kvpress' presses keep, for kvast's policies to be held against.
"""Usage: record_kvpress.py MODEL.gguf   (writes index.json and tensors/; see README.md)"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import torch  # noqa: E402
from gguf_llama import dump, sha256, versions  # noqa: E402
from run_press import run_press  # noqa: E402
from sources import model_sources, random_sources  # noqa: E402

STORY = HERE.parents[2] / "examples" / "decoder" / "data" / "story.txt"
TENSORS = HERE / "tensors"
REMOVED = (0.5, 0.75, 0.9)
# A float32 score summed in another order may move by some 1e-6 of itself; a cut nearer than this
# proves nothing.
LEAST_MARGIN = 1e-5
# Every setting is written out, so that no reader has to know kvpress' defaults.
EXPECTED = {
    "n_future_positions": 512,
    "n_sink": 4,
    "use_covariance": True,
    "use_vnorm": True,
    "epsilon": 0.0,
}
EXPECTED_VARIANTS = (
    EXPECTED,
    EXPECTED | {"use_covariance": False},
    EXPECTED | {"use_vnorm": False, "n_future_positions": 64},
    EXPECTED | {"epsilon": 0.02},
)


def ratio_for(tokens, kept):
    """A ratio that the press turns into exactly this count, clear of any rounding."""
    return round(1 - (kept + 0.5) / tokens, 6)


def lag_cases(tokens):
    """Counts that give each partition the same share: ranks repeat from partition to partition."""
    for lag, shares in ((16, (0.5, 0.125)), (32, (0.5, 0.125)), (128, (0.5,))):
        parts = (tokens - 4) // lag - 1
        if parts < 1:
            continue
        always = tokens - parts * lag
        for share in shares:
            params = {"n_sink": 4, "lag_size": lag, "cross_scoring": False}
            yield params, ratio_for(tokens, always + parts * int(lag * share))
        crossed = {"n_sink": 4, "lag_size": lag, "cross_scoring": True}
        yield crossed, ratio_for(tokens, always + parts * lag // 2)


def ada_cases(source, window):
    wrapped = [
        ("SnapKV", {"window_size": window, "kernel_size": 5}),
        ("KeyDiff", {}),
        ("Knorm", {}),
    ]
    if source.complete:
        wrapped.append(("ExpectedAttention", EXPECTED))
    for press, params in wrapped:
        for alpha in (0.2, 0.5):
            yield {"press": press, "press_params": params, "alpha_safeguard": alpha}


def planned(source):
    """(press, params, ratio removed) of every case of a source; windows stay below what is kept."""
    for ratio in REMOVED:
        windows = [
            window for window in (8, 16, 32, 64) if window < int(source.tokens * (1 - ratio))
        ]
        yield "Knorm", {}, ratio
        yield "StreamingLLM", {"n_sink": 4}, ratio
        yield "StreamingLLM", {"n_sink": 1}, ratio
        yield "TOVA", {}, ratio
        yield "KeyDiff", {}, ratio
        for window in windows[-2:]:
            for kernel in (1, 5, 7):
                yield "SnapKV", {"window_size": window, "kernel_size": kernel}, ratio
        for beta in (20, 5):
            yield "PyramidKV", {"window_size": windows[0], "kernel_size": 5, "beta": beta}, ratio
        for params in ada_cases(source, windows[0]):
            yield "AdaKV", params, ratio
        if source.complete:
            yield "ObservedAttention", {}, ratio
            for params in EXPECTED_VARIANTS:
                yield "ExpectedAttention", params, ratio
    for params, ratio in lag_cases(source.tokens):
        yield "LagKV", params, ratio


def query_role(press, params):
    """Which recorded queries a press reads; None for those that read none."""
    if press == "AdaKV":
        return query_role(params["press"], params["press_params"])
    if press == "ExpectedAttention":
        return "queries_unrotated"
    return None if press in ("Knorm", "StreamingLLM", "KeyDiff", "LagKV") else "queries"


def record_case(source, press, params, ratio):
    """The case, or None and why not: too near a tie, or another answer in double precision."""
    kept, margins = run_press(source, press, params, ratio, torch.float32)
    exact, _ = run_press(source, press, params, ratio, torch.float64)
    margin = min(margins)
    if margin < LEAST_MARGIN or kept != exact:
        what = f"{source.name} {press} {params} {ratio}"
        return None, f"{what}: margin {margin:.1e}, same in double: {kept == exact}"
    role = query_role(press, params)
    return {
        "press": press,
        "params": params,
        "ratio_removed": ratio,
        "source": source.name,
        "query_heads": source.query_heads,
        "heads": source.heads,
        "head_dim": source.tensors["keys"].shape[-1],
        "tokens": source.tokens,
        "layer": source.layer,
        "layers": source.layers,
        "rope_base": source.rope_base,
        "queries": source.tensor_name(role) if role else None,
        "keys": source.tensor_name("keys"),
        "values": source.tensor_name("values"),
        "counts": [len(head) for head in kept],
        # JSON knows no infinity: null where a head dropped nothing that could be confused.
        "margins": [None if value == float("inf") else float(f"{value:.3e}") for value in margins],
        "kept": kept,
    }, None


def store_tensors(source):
    entries = {}
    for role, array in source.tensors.items():
        name = source.tensor_name(role)
        array.astype("<f2").tofile(TENSORS / f"{name}.f16")
        entries[name] = {"file": f"tensors/{name}.f16", "dtype": "f16", "shape": list(array.shape)}
    return entries


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    TENSORS.mkdir(exist_ok=True)

    tensors, cases, dropped = {}, [], []
    for source in random_sources() + model_sources(arguments.gguf, STORY):
        tensors |= store_tensors(source)
        for press, params, ratio in planned(source):
            case, reason = record_case(source, press, params, ratio)
            if case is None:
                dropped.append(reason)
            else:
                cases.append(case)
    origin = {
        "gguf": arguments.gguf.name,
        "gguf_sha256": sha256(arguments.gguf),
        "story_sha256": sha256(STORY),
        "versions": versions("kvpress", "torch", "transformers", "tokenizers", "gguf", "numpy"),
    }
    dump(
        HERE / "index.json",
        {"source": origin, "axes": "tokens, heads, dim", "tensors": tensors, "cases": cases},
    )
    print(f"{len(cases)} cases, {len(dropped)} dropped")
    print("\n".join(dropped))


if __name__ == "__main__":
    main()
