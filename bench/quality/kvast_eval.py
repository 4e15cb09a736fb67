# SPDX-License-Identifier: Apache-2.0
# Calls of kvast-eval from the scripts beside it.
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STORY = ROOT / "examples" / "decoder" / "data" / "story.txt"


def evaluate(program, command, model, specs, storage, arguments):
    """The JSON lines of one call for all specs of policies under one storage."""
    line = [program, command, "--model", model, "--storage", storage, *arguments]
    for spec in specs:
        line += ["--policy", spec]
    answer = subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True).stdout
    return [json.loads(text) for text in answer.splitlines()]
