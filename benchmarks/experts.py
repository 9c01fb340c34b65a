"""What experts cost: an encoder of 8 experts, top-1, beside its dense twin of equal active size, both ours, in turns.

    python3 benchmarks/encoder_peers.py --export FOLDER --export-only      (once: pip install torch numpy safetensors)
    python3 benchmarks/experts.py --export FOLDER --ours BENCH_BINARY --out benchmarks/results/experts.json

The cases `transformer` and `moe8` of `encoder_peers.py` (12 layers, d_model 256, d_ff 1024, 250 steps): each step of both goes through one feed-forward a
layer. The encoder with experts has 8 times the feed-forward weights and a router. Training includes backward, AdamW over all weights and the balance loss.
"""
import argparse
import datetime
import json
import os
import statistics
import subprocess

from machine import cpu_model

DENSE, EXPERTS = "transformer", "moe8"


def times(a, case, mode, batch, precision):
    command = [a.ours, "--peers", os.path.abspath(a.export), "--case", case, "--mode", mode, "--batch", str(batch), "--threads", str(a.threads),
               "--precision", precision, "--seconds", str(a.seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])["times_ms"]


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--export", required=True, metavar="FOLDER")
    p.add_argument("--ours", required=True, metavar="BENCH_BINARY")
    p.add_argument("--out", metavar="RESULT.json")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=1.0, help="per model and round")
    a = p.parse_args()
    rows = []
    grid = [("forward", q) for q in ("f32", "bf16", "int8")] + [("train", q) for q in ("f32", "bf16")]
    for mode, precision in grid:
        for batch in (1, 8):
            runs = {DENSE: [], EXPERTS: []}
            for _ in range(a.rounds):
                for case, seen in runs.items():
                    seen += times(a, case, mode, batch, precision)
            row = {"mode": mode, "precision": precision, "batch": batch}
            for name, case in (("dense", DENSE), ("experts", EXPERTS)):
                row[f"{name}_best_ms"], row[f"{name}_median_ms"] = round(min(runs[case]), 2), round(statistics.median(runs[case]), 2)
            rows.append(row)
            print(json.dumps(row), flush=True)
    options = f"--threads {a.threads} --rounds {a.rounds} --seconds {a.seconds:g}"
    result = {"benchmark": "experts", "date": datetime.date.today().isoformat(), "cpu": cpu_model(),
              "command": f"python3 benchmarks/experts.py --export FOLDER --ours BENCH_BINARY {options} --out benchmarks/results/experts.json", "rows": rows}
    if a.out:
        with open(a.out, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
