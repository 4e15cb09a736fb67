# SPDX-License-Identifier: Apache-2.0
# Hides sentences in a text and asks for them: tasks for kvast-eval recall.
"""Usage: needles.py TEXT > TASKS.jsonl   (three stretches of the text, eight needles in each)"""

import json
import random
import sys
from pathlib import Path

STRETCHES = 3
STRETCH = 3700  # characters; with its needles about 1,000 tokens of SmolLM2
NEEDLES = 8
THINGS = (
    "lighthouse",
    "bakery",
    "library",
    "harbour",
    "chapel",
    "stable",
    "cellar",
    "workshop",
)


def stretches(paragraphs):
    """Whole paragraphs from evenly spread places of the text, together about STRETCH characters."""
    for part in range(STRETCHES):
        start = part * len(paragraphs) // STRETCHES
        chosen, length = [], 0
        for paragraph in paragraphs[start:]:
            if length + len(paragraph) > STRETCH:
                break
            chosen.append(paragraph)
            length += len(paragraph)
        yield chosen


def main():
    dice = random.Random(1)
    paragraphs = [line for line in Path(sys.argv[1]).read_text().split("\n") if line]
    for chosen in stretches(paragraphs):
        things = dice.sample(THINGS, NEEDLES)
        codes = [str(dice.randrange(1000, 10000)) for _ in things]
        hidden = list(chosen)
        for needle in reversed(range(NEEDLES)):
            place = (2 * needle + 1) * len(chosen) // (2 * NEEDLES)
            hidden.insert(place, f"The key code of the {things[needle]} is {codes[needle]}.")
        context = "\n\n".join(hidden)
        for thing, code in zip(things, codes):
            question = f"\n\nThe key code of the {thing} is"
            print(json.dumps({"context": context, "question": question, "answer": code}))


if __name__ == "__main__":
    main()
