"""How far word times are off: of synthetic speech whose times are known, and of dev speech against forced alignment.

    python3 benchmarks/boundaries.py --text ../shared/text/books-en.txt.xz --out runs/boundaries --count 100
    python3 benchmarks/word_times.py target/release/omniscribe --known runs/boundaries --speech ../shared/speech --out benchmarks/results/word-times.json

`align`: every word of the true text, placed by `omniscribe align`. `transcribe`: the words of `omniscribe transcribe -f json` that are right, as the
longest common subsequence with the true text tells; on dev speech (the LibriSpeech reader) against `align` of the true text. Ends are those of the
word's last phone, which before a pause leaves room for taste; in known times, words that meet share a boundary.
"""
import argparse
import datetime
import difflib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile


def plain(text):
    return re.sub(r"[^a-z' ]", " ", text.lower()).split()


def run(binary, *arguments):
    return subprocess.run([binary, *arguments], check=True, capture_output=True, text=True).stdout


def aligned(binary, audio, words, folder):
    """Start and end of each word, or None for a word that was not found."""
    path = os.path.join(folder, "text")
    with open(path, "w") as out:
        out.write(" ".join(words) + "\n")
    found = json.loads(run(binary, "align", audio, path))["words"]
    assert [w["word"].lower() for w in found] == words, (audio, words)
    return [(w["start"], w["end"]) if w.get("start") is not None else None for w in found]


def transcribed(binary, files):
    """Words with their times for each file."""
    lines = run(binary, "transcribe", "-q", "-f", "json", *files).splitlines()
    return [[(w["word"], (w["start"], w["end"])) for w in json.loads(line)["words"]] for line in lines]


def common(truth, heard):
    """Pairs of positions of equal words."""
    matcher = difflib.SequenceMatcher(None, truth, heard, autojunk=False)
    return [(block.a + i, block.b + i) for block in matcher.get_matching_blocks() for i in range(block.size)]


def summary(what, against, pairs, words):
    """Absolute errors of pairs of (ours, truth), and by how much ours is late in the mean, in milliseconds."""
    row = {"what": what, "against": against, "words": len(pairs), "of": words}
    for at, name in enumerate(("start", "end")):
        errors = sorted(1000 * abs(ours[at] - truth[at]) for ours, truth in pairs)
        row[name] = {"mean": statistics.mean(errors), "median": statistics.median(errors), "p90": errors[int(0.9 * len(errors))],
                     "late": 1000 * statistics.mean(ours[at] - truth[at] for ours, truth in pairs)}
    print(row, file=sys.stderr)
    return row


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary")
    p.add_argument("--known", required=True, help="a folder made by boundaries.py")
    p.add_argument("--speech", required=True, help="folder with dev.jsonl")
    p.add_argument("--set", default="librispeech-train-clean-100-sample")
    p.add_argument("--out")
    o = p.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        known = [json.loads(line) for line in open(os.path.join(o.known, "manifest.jsonl"))]
        files = [os.path.join(o.known, r["audio_filepath"]) for r in known]
        words = [[w["word"].lower() for w in r["words"]] for r in known]
        times = [[(w["start"], w["end"]) for w in r["words"]] for r in known]
        total = sum(map(len, words))
        placed = [aligned(o.binary, f, w, folder) for f, w in zip(files, words)]
        rows.append(summary("align", "known times of synthetic speech", [(a, t) for p, ts in zip(placed, times) for a, t in zip(p, ts) if a], total))
        heard = transcribed(o.binary, files)
        pairs = [(h[j][1], ts[i]) for w, ts, h in zip(words, times, heard) for i, j in common(w, [x for x, _ in h])]
        rows.append(summary("transcribe", "known times of synthetic speech", pairs, total))

        real = [r for r in map(json.loads, open(os.path.join(o.speech, "dev.jsonl"))) if r["set"] == o.set]
        files = [os.path.join(o.speech, r["audio_filepath"]) for r in real]
        words = [plain(r["text"]) for r in real]
        placed = [aligned(o.binary, f, w, folder) for f, w in zip(files, words)]
        heard = transcribed(o.binary, files)
        pairs = [(h[j][1], ts[i]) for w, ts, h in zip(words, placed, heard) for i, j in common(w, [x for x, _ in h]) if ts[i]]
        rows.append(summary("transcribe", f"forced alignment ({o.set})", pairs, sum(map(len, words))))
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read()).group(1)
    result = {"benchmark": "word_times", "date": datetime.date.today().isoformat(), "cpu": cpu, "command": "python3 benchmarks/word_times.py " + " ".join(sys.argv[1:]), "rows": rows}
    text = json.dumps(result, indent=1) + "\n"
    open(o.out, "w").write(text) if o.out else print(text)


if __name__ == "__main__":
    main()
