"""Experts within a budget: how often they are there when a layer asks, and what it costs in time and saves in memory.

    python3 benchmarks/offload.py BINARY --speech ../shared/speech --model base=models/base --out benchmarks/results/offload.json

For every model: `offload train` on part of the training speech, once with one guess for all layers and once with one for each; then `transcribe` of
dev utterances with and without a budget, greedy, one thread pool, as files (30 s of audio in a batch) and in passes of a few seconds. Every transcript is
compared with the one made without a budget: a difference ends the run. Peak memory is the process's (maximum resident set); it contains the pages
of the mapped model file that were touched, which the system takes back when it needs them.
"""
import argparse
import datetime
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

COUNTS = re.compile(
    r"experts: (\d+) asked for in (\d+) passes, (\d+) there, (\d+) on their way, (\d+) missed; (\d+) fetched ahead, (\d+) for nothing; "
    r"(\d+) evicted; ([\d.]+) MB read; at most ([\d.]+) of ([\d.]+) MB"
)
NAMES = ["asked", "encoder_passes", "there", "on_their_way", "missed", "fetched", "for_nothing", "evicted"]


def run(command):
    """Output, messages, seconds and peak memory in MB."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.time()
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.time() - start
        out.seek(0)
        err.seek(0)
        text, messages = out.read().decode(), err.read().decode()
    if status != 0:
        sys.exit(f"{' '.join(command[:6])}: {messages}")
    return text, messages, seconds, usage.ru_maxrss / 1024


def files(speech, name, count, seed):
    rows = [json.loads(line) for line in open(os.path.join(speech, name))]
    rows = [row for row in rows if row["set"] != "fsdd" and 2.0 <= row["duration"] <= 15.0 and row.get("lang", "en") == "en"]
    random.Random(seed).shuffle(rows)
    chosen = rows[:count]
    return [os.path.join(speech, row["audio_filepath"]) for row in chosen], sum(row["duration"] for row in chosen)


def experts(config):
    groups = config["encoder"]["feed_forward"]["groups"]
    layers = [tuple(map(int, group.split("x"))) for group in groups.split("-")]
    return sum(n for n, e in layers if e > 1), max(e for _, e in layers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--speech", required=True)
    parser.add_argument("--model", action="append", required=True, help="name=folder, any number of them")
    parser.add_argument("--utterances", type=int, default=40)
    parser.add_argument("--lessons", type=int, default=120)
    parser.add_argument("--about", default="", help="a sentence on the models")
    parser.add_argument("--out", required=True)
    a = parser.parse_args()
    taught, _ = files(a.speech, "train.jsonl", a.lessons, 1)
    tests, seconds = files(a.speech, "dev.jsonl", a.utterances, 2)
    models, rows = [], []
    with tempfile.TemporaryDirectory() as work:
        for item in a.model:
            name, folder = item.split("=", 1)
            copy = os.path.join(work, name)
            shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.lm", "decoding.json", "*.jsonl", "*.svg"))
            config = json.load(open(os.path.join(copy, "config.json")))
            layers, count = experts(config)
            d_model, d_ff = config["encoder"]["d_model"], config["encoder"]["d_ff"]
            one = 4 * (2 * d_model * d_ff + d_model + d_ff)
            accuracy = {}
            for heads in ["one", "each"]:
                path = os.path.join(copy, f"{heads}.safetensors")
                out, _, spent, _ = run([a.binary, "offload", "train", copy, *taught, "--heads", heads, "-o", path])
                line = next(line for line in out.splitlines() if line.startswith("not taught"))
                shares = [float(x) for x in re.findall(r"([\d.]+) %", line)]
                accuracy[heads] = {"predicted": shares[0], "majority": shares[1], "previous_layer": shares[2], "train_seconds": spent, "bytes": os.path.getsize(path)}
                print(name, heads, accuracy[heads], flush=True)
            models.append({"name": name, "layers": layers, "experts": count, "expert_bytes": one, "accuracy": accuracy})
            for passes, flags in [("batches", []), ("single", ["--batch-memory", "1", "--chunk-seconds", "4", "--context-seconds", "0.5"])]:
                command = [a.binary, "transcribe", *tests, "-m", copy, "--decoder", "greedy", "--vad", "off", "--format", "json", "--verbose", *flags]
                truth, messages, spent, peak = run(command)
                rows.append({"model": name, "passes": passes, "prefetch": None, "wall_seconds": spent, "peak_mb": peak, "encoder_seconds": encoder(messages)})
                for share in [0.25, 0.5]:
                    budget = int(share * layers * count * one)
                    for prefetch in ["none", "popular", "previous", "one", "each"]:
                        more = ["--expert-memory", str(budget), "--expert-prefetch", "predicted" if prefetch in ("one", "each") else prefetch]
                        if prefetch in ("one", "each"):
                            shutil.copy(os.path.join(copy, f"{prefetch}.safetensors"), os.path.join(copy, "predictor.safetensors"))
                        out, messages, spent, peak = run(command + more)
                        if out != truth:
                            sys.exit(f"{name}, {share}, {prefetch}: another transcript than without a budget")
                        found = COUNTS.search(messages)
                        row = {"model": name, "passes": passes, "prefetch": prefetch, "budget_share": share, "budget_mb": budget / 1e6,
                               "wall_seconds": spent, "peak_mb": peak, "encoder_seconds": encoder(messages)}
                        row.update({key: int(value) for key, value in zip(NAMES, found.groups())})
                        row.update({"read_mb": float(found.group(9)), "most_mb": float(found.group(10))})
                        row["unique_per_pass"] = row["asked"] / row["encoder_passes"] / layers
                        rows.append(row)
                        print(row, flush=True)
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    shown = ["python3", "benchmarks/offload.py", "BINARY", *[x for x in sys.argv[2:]]]
    result = {"benchmark": "offload", "command": " ".join(shown), "cpu": cpu, "date": datetime.date.today().isoformat(),
              "about": a.about, "utterances": a.utterances, "audio_seconds": seconds, "models": models, "rows": rows}
    with open(a.out, "w") as out:
        json.dump(result, out, indent=1)
        out.write("\n")


def encoder(messages):
    return float(re.search(r"encoder ([\d.]+) s", messages).group(1))


if __name__ == "__main__":
    main()
