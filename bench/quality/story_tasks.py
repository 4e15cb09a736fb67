# SPDX-License-Identifier: Apache-2.0
# Questions about stretches of a text that hold the answers: tasks for kvast-eval recall.
"""Usage: story_tasks.py TEXT QUESTIONS.jsonl > TASKS.jsonl   (stretches of about 1,000 tokens)"""

import json
import sys
from pathlib import Path

STRETCH = 4000  # characters
MOST = 4  # stretches


def stretches(paragraphs):
    """Whole paragraphs, one stretch after the other."""
    chosen, length = [], 0
    for paragraph in paragraphs:
        if length + len(paragraph) > STRETCH and chosen:
            yield "\n\n".join(chosen)
            chosen, length = [], 0
        chosen.append(paragraph)
        length += len(paragraph)
    yield "\n\n".join(chosen)


def main():
    paragraphs = [line for line in Path(sys.argv[1]).read_text().split("\n") if line]
    questions = [json.loads(line) for line in Path(sys.argv[2]).read_text().splitlines()]
    asked = []
    for context in stretches(paragraphs):
        tasks = [task for task in questions if task["answer"] in context]
        questions = [task for task in questions if task not in tasks]  # each is asked once
        asked.append([{"context": context} | task for task in tasks])
    asked.sort(key=len, reverse=True)
    for tasks in asked[:MOST]:
        for task in tasks:
            print(json.dumps(task))


if __name__ == "__main__":
    main()
