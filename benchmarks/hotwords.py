"""What hotwords gain and what they damage: rare words of a dev set given as hotwords, at several boosts.

    python3 benchmarks/hotwords.py ../shared/speech/dev.jsonl --out benchmarks/results/hotwords.json

The hotwords are `--count` random words of at least six letters that are said only once in all references. Gain: the share of them that is recognised.
Damage: false alarms (hotwords recognised in utterances that do not have them) and the word error rate of the utterances without any hotword.
Every row is a run of `omniscribe bench`, so normaliser and aligner are the program's own.
"""
import argparse
import collections
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time

BOOSTS = [0, 2, 4, 7, 10, 15]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("manifest")
    arguments.add_argument("--binary", default="target/release/omniscribe")
    arguments.add_argument("--model", default="models/base")
    arguments.add_argument("--count", type=int, default=200)
    arguments.add_argument("--out", default="benchmarks/results/hotwords.json")
    a = arguments.parse_args()
    rows, words = [], None
    with tempfile.TemporaryDirectory() as folder:
        for boost in BOOSTS:
            output = f"{folder}/{boost}.json"
            command = [a.binary, "bench", a.manifest, "-q", "-m", a.model, "-o", output]
            if boost:
                listing = f"{folder}/hotwords.txt"
                with open(listing, "w") as out:
                    out.writelines(f"{word}:{boost}\n" for word in words)
                command += ["--hotwords-file", listing]
            subprocess.run(command, check=True, capture_output=True)
            lines = [json.loads(line) for line in open(f"{folder}/{boost}.utterances.jsonl")]
            if words is None:
                said = collections.Counter(w for line in lines for w in line["normalized_reference"].split())
                once = sorted(w for w, n in said.items() if n == 1 and re.fullmatch("[a-z]{6,}", w))
                words = sorted(random.Random(1).sample(once, min(a.count, len(once))))
            chosen = set(words)
            hits = total = alarms = errors = reference = 0
            for line in lines:
                expected, heard = set(line["normalized_reference"].split()), set(line["normalized_hypothesis"].split())
                total += len(expected & chosen)
                hits += len(expected & heard & chosen)
                alarms += len((heard - expected) & chosen)
                if not expected & chosen:
                    errors += sum(line["words"][k] for k in ("substitutions", "deletions", "insertions"))
                    reference += line["words"]["reference_words"]
            wer = json.load(open(output))["mean"]["wer"]
            rows.append({"boost": boost, "recognised": hits / total, "false_alarms": alarms, "wer_without_hotwords": errors / reference, "mean_wer": wer})
            print(rows[-1], flush=True)
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())[1]
    result = {"benchmark": "hotwords", "date": time.strftime("%Y-%m-%d"), "cpu": cpu, "command": "python3 " + " ".join(sys.argv)}
    result |= {"hotwords": len(words), "utterances": len(lines), "words": reference, "rows": rows}
    with open(a.out, "w") as out:
        json.dump(result, out, indent=1)
        out.write("\n")


if __name__ == "__main__":
    main()
