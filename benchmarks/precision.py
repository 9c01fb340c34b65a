"""What f32, bf16 and int8 give on the dev set: word errors (greedy and with the model's language model), speed, peak memory.

    python3 benchmarks/precision.py --program target/release/omniscribe --set ../shared/speech/dev.jsonl --out benchmarks/results/precision.json

Runs `omniscribe bench` for each; dtypes take turns within a decoder.
"""
import argparse
import datetime
import difflib
import json
import os
import subprocess
import tempfile

from machine import cpu_model


def bench(a, folder, decoder, dtype):
    out = os.path.join(folder, f"{decoder}-{dtype}.json")
    command = [a.program, "bench", a.set, "--model", a.model, "--dtype", dtype, "-o", out] + (["--decoder", "greedy"] if decoder == "greedy" else [])
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = [json.loads(line) for line in open(out.replace(".json", ".utterances.jsonl"))]
    return json.load(open(out)), {(x["set"], x["id"]): x["hypothesis"].split() for x in lines if "hypothesis" in x}


def unlike(texts, others):
    """Share of the words of `others` that `texts` has otherwise."""
    changed = 0
    for key, words in others.items():
        steps = difflib.SequenceMatcher(None, words, texts[key], autojunk=False).get_opcodes()
        changed += sum(max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in steps if tag != "equal")
    return changed / sum(map(len, others.values()))


def wer(result):
    """Mean over sets and over all words, in percent."""
    errors = [s["words"] for s in result["sets"]]
    wrong = sum(e["substitutions"] + e["insertions"] + e["deletions"] for e in errors)
    return 100 * result["mean"]["wer"], 100 * wrong / sum(e["reference_words"] for e in errors)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--program", default="target/release/omniscribe")
    p.add_argument("--model", default="models/base")
    p.add_argument("--set", default="../shared/speech/dev.jsonl")
    p.add_argument("--out", required=True)
    a = p.parse_args()
    rows, first = [], None
    with tempfile.TemporaryDirectory() as folder:
        for decoder in ("greedy", "language model"):
            base = None
            for dtype in ("f32", "bf16", "int8"):
                result, texts = bench(a, folder, decoder, dtype)
                first = first or result
                mean, every = wer(result)
                base = base or (mean, every, texts)
                speed = result["speed"]
                rows.append({"decoder": decoder, "dtype": dtype, "wer_mean": round(mean, 3), "wer_all": round(every, 3),
                             "change_mean": round(mean - base[0], 3), "change_all": round(every - base[1], 3),
                             "words_unlike": round(100 * unlike(texts, base[2]), 3), "rtfx_compute": round(speed["rtfx_compute"], 1),
                             "rtfx": round(speed["rtfx_end_to_end"], 1), "peak_mib": round(speed["peak_memory_bytes"] / 2**20, 1)})
                print(json.dumps(rows[-1]), flush=True)
    result = {"benchmark": "precision", "date": datetime.date.today().isoformat(), "cpu": cpu_model(),
              "command": f"python3 benchmarks/precision.py --set {a.set} --out benchmarks/results/precision.json",
              "model": a.model, "utterances": first["speed"]["utterances"], "audio_seconds": round(first["speed"]["audio_seconds"], 1), "rows": rows}
    with open(a.out, "w") as f:
        json.dump(result, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
