# SPDX-License-Identifier: Apache-2.0
# The table of what every policy costs a decode step, from runs of bench-policies.
"""Usage: table.py RUN.json...   (each of bench-policies --benchmark_format=json; a table goes to standard output)"""

import json
import sys
from pathlib import Path


def rows_of(path):
    """Finished rows of one run, as (policy, tokens, counters)."""
    for row in json.loads(Path(path).read_text())["benchmarks"]:
        name, tokens = row["name"].removeprefix("policies/").split("/T:")
        yield name, int(tokens.split("/")[0]), row


def cells(row):
    if row.get("error_occurred"):
        return [row["error_message"], "", "", ""]
    milliseconds = [row["attend_ms"], row["real_time"]]
    shares = [row["weights_%"], row["policy_%"]]
    return [f"{number:.3f}" for number in milliseconds] + [f"{number:+.1f}" for number in shares]


def main():
    table = {}
    prompts = {}
    for path in sys.argv[1:]:
        for name, tokens, row in rows_of(path):
            table.setdefault(name, {})[tokens] = row
            if row.get("prompt_ms"):
                prompts.setdefault(name, {})[tokens] = row["prompt_ms"]
    sizes = sorted({tokens for lines in table.values() for tokens in lines})
    columns = ("without, ms", "with, ms", "weights %", "policy %")
    heads = [f"{tokens:,}: {column}" for tokens in sizes for column in columns]
    print("| policy | " + " | ".join(heads) + " | prompt's end, ms |")
    print("|---|" + "---|" * (len(heads) + 1))
    for name, lines in table.items():
        numbers = [cell for tokens in sizes for cell in cells(lines[tokens])]
        prompt = ", ".join(f"{number:.1f}" for _, number in sorted(prompts.get(name, {}).items()))
        print(f"| `{name}` | " + " | ".join(numbers) + f" | {prompt} |")


if __name__ == "__main__":
    main()
