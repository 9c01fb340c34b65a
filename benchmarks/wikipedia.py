#!/usr/bin/env python3
"""Sentences for a language model from what WikiExtractor made of a Wikipedia dump.

    python3 benchmarks/wikipedia.py FOLDER_OF_WIKI_FILES OUT.txt

Keeps sentences of 4 to 40 words that are mostly letters of English; brackets and what is in them go. Each sentence once, in an order that is the
same on every run.
"""

import pathlib
import random
import re
import sys

SENTENCE_END = re.compile(r'(?<=[a-z0-9)"][.!?])\s+(?=["A-Z])')
BRACKETS = re.compile(r"\s*\([^()]*\)")
FOREIGN = re.compile(r"[^\x20-\x7e’“”–é]")


def sentences(text: str):
    """Sentences of the articles in one file; titles are left out."""
    title = False
    for line in text.split("\n"):
        if line.startswith("<doc"):
            title = True
        elif title:
            title = False
        elif not line.startswith("</doc"):
            for sentence in SENTENCE_END.split(line.strip()):
                yield BRACKETS.sub("", sentence)


def good(sentence: str) -> bool:
    return (
        4 <= len(sentence.split()) <= 40
        and sentence[-1] in '.!?"'
        and not FOREIGN.search(sentence)
        and sum(c.isalpha() for c in sentence) >= 0.7 * len(sentence)
    )


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, out = map(pathlib.Path, sys.argv[1:])
    files = sorted(folder.rglob("wiki_*"))
    if not files:
        sys.exit(f"{folder}: no file wiki_00, wiki_01, ...")
    kept = {s for file in files for s in sentences(file.read_text("utf8", "replace")) if good(s)}
    ordered = sorted(kept)
    random.Random(1).shuffle(ordered)
    out.write_text("".join(s + "\n" for s in ordered))
    print(f"{len(ordered)} sentences, {sum(len(s.split()) for s in ordered)} words")


if __name__ == "__main__":
    main()
