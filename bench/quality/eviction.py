# SPDX-License-Identifier: Apache-2.0
# What eviction costs a real model: every policy at three budgets, beside kvpress on the same text.
"""Usage: eviction.py KVAST_EVAL MODEL.gguf OUT.json   (a table goes to standard output)"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STORY = ROOT / "examples" / "decoder" / "data" / "story.txt"
PEERS = ROOT / "tests" / "golden" / "kvpress" / "quality.json"
# name -> (SPEC for a kept part, kvpress' name of the same or None)
POLICIES = {
    "random": ("random:budget={kept},when=prompt", "random"),
    "streaming": ("streaming:budget={kept},when=prompt", "streaming"),
    "l2norm, all layers": ("l2norm:budget={kept},when=prompt,skip=none", "l2norm"),
    "l2norm, first two whole": ("l2norm:budget={kept},when=prompt", None),
    "h2o": ("h2o:budget={kept},when=prompt", None),
    "h2o by lifetime": ("h2o:budget={kept},recent=0,lifetime=yes,when=prompt", "observed"),
    "scissorhands": ("scissorhands:budget={kept},when=prompt", None),
    "corm with a cap": ("corm:cap={kept},when=prompt", None),
    "keyformer": ("keyformer:budget={kept},when=prompt", None),
    "roco": ("roco:budget={kept},when=prompt", None),
    "tova": ("tova:budget={kept},when=prompt", "tova"),
    "snapkv": ("snapkv:budget={kept}", "snapkv"),
    "pyramidkv": ("pyramidkv:budget={kept}", "pyramidkv"),
    "adakv": ("adakv:budget={kept}", None),
    "adakv, floor": ("adakv:budget={kept},share=floor", "adakv"),
    "keydiff": ("keydiff:budget={kept}", "keydiff"),
    "lagkv": ("lagkv:budget={kept},sinks=4,lag=128", "lagkv"),
    "expected": ("expected:budget={kept},sinks=4", "expected"),
}
WITHOUT_BUDGET = {"fastgen": "fastgen:when=prompt", "dbudgetkv": "dbudgetkv"}
KEPT = (0.5, 0.25, 0.1)


def evaluate(program, command, model, specs, arguments):
    """The JSON lines of one call of kvast-eval for all specs."""
    line = [program, command, "--model", model, "--storage", "f32", *arguments]
    for spec in specs:
        line += ["--policy", spec]
    answer = subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True).stdout
    return [json.loads(text) for text in answer.splitlines()]


def main():
    program, model, out = sys.argv[1:4]
    peers = json.loads(PEERS.read_text())
    theirs = {}
    for row in peers["rows"]:
        theirs.setdefault((row["press"], row["kept"]), []).append(row["nll"])
    offsets = sorted({row["offset"] for row in peers["rows"]})
    cases = [
        (name, kept, spec.format(kept=kept), peer)
        for name, (spec, peer) in POLICIES.items()
        for kept in KEPT
    ] + [(name, None, spec, None) for name, spec in WITHOUT_BUDGET.items()]
    specs = ["full"] + [spec for _, _, spec, _ in cases]

    runs = {spec: [] for spec in specs}
    text = ["--text", str(STORY), "--context", str(peers["context"])]
    text += ["--continuation", str(peers["scored"])]
    for offset in offsets:
        for line in evaluate(program, "nll", model, specs, [*text, "--offset", str(offset)]):
            runs[line["policy"]].append(line)
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as tasks:
        needles = ROOT / "bench" / "quality" / "needles.py"
        subprocess.run([sys.executable, needles, STORY], stdout=tasks, check=True)
        lines = evaluate(program, "recall", model, specs, ["--tasks", tasks.name])
    recall = {line["policy"]: line for line in lines if "recall" in line}

    def summary(spec):
        mean = {
            key: round(statistics.mean(run[key] for run in runs[spec]), 4)
            for key in ("nll", "kl", "top1_agree", "kept_mean")
        }
        return mean | {key: recall[spec][key] for key in ("hits", "tasks")}

    rows = [{"policy": "full", "kept": 1.0, "spec": "full"} | summary("full")]
    rows[0]["peer_nll"] = statistics.mean(theirs["full", 1.0])
    print("| policy | kept | nll | kvpress | KL | same top-1 | needles |")
    print("|---|---|---|---|---|---|---|")
    for name, kept, spec, peer in cases:
        row = {"policy": name, "kept": kept, "spec": spec} | summary(spec)
        row["peer_nll"] = round(statistics.mean(theirs[peer, kept]), 4) if peer else None
        rows.append(row)
    for row in rows:
        peer = f"{row['peer_nll']:.3f}" if row["peer_nll"] else ""
        kept = f"{row['kept']}" if row["kept"] else f"{row['kept_mean'] / peers['context']:.2f}"
        print(
            f"| {row['policy']} | {kept} | {row['nll']:.3f} | {peer} | {row['kl']:.3f} "
            f"| {row['top1_agree']:.2f} | {row['hits']}/{row['tasks']} |"
        )
    Path(out).write_text(
        json.dumps({"text": STORY.name, "offsets": offsets, "peers": peers["source"], "rows": rows},
                   indent=1)
        + "\n"
    )
    worse = [row for row in rows if row["peer_nll"] and row["nll"] > row["peer_nll"] + 0.02]
    for row in worse:
        print(f"worse than kvpress: {row['policy']} at {row['kept']}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
