"""Times the program from outside: start to transcript of short files, peak memory, size.

    python3 benchmarks/program.py target/release/omniscribe --out benchmarks/results/program.json      (standard library only)
"""
import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
import wave

p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
p.add_argument("binary")
p.add_argument("--out")
p.add_argument("--runs", type=int, default=7)
a = p.parse_args()


def ten_seconds(path):
    """`assets/river.wav` twice, cut to 10 s."""
    with wave.open("assets/river.wav") as source:
        parameters, data = source.getparams(), source.readframes(source.getnframes())
    with wave.open(path, "wb") as out:
        out.setparams(parameters)
        out.writeframes((data * 2)[:10 * parameters.framerate * parameters.sampwidth])


def run(*words):
    """Seconds of wall time and peak MB of one run."""
    start = time.perf_counter()
    child = subprocess.Popen([a.binary, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{words}: exit status {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def cpu():
    return next(line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))


clip = "/tmp/omniscribe-ten-seconds.wav"
ten_seconds(clip)
run("transcribe", clip)  # the file cache is warm from here on
runs = [run("transcribe", clip) for _ in range(a.runs)]
help_runs = [run("--help") for _ in range(a.runs)]
weights = os.path.getsize("models/base/model.safetensors") / 2**20
figures = {
    "start to transcript of a 10 s file, all in (median)": f"{statistics.median(t for t, _ in runs):.2f} s",
    "start alone (`--help`, median)": f"{1000 * statistics.median(t for t, _ in help_runs):.0f} ms",
    "peak memory of that": f"{max(m for _, m in runs):.0f} MiB (weights on disk: {weights:.0f} MiB, bf16; in memory they are f32)",
    "size of the program": f"{os.path.getsize(a.binary) / 2**20:.0f} MiB",
}
result = {"benchmark": "transcribe", "date": str(datetime.date.today()), "cpu": cpu(), "cores": os.cpu_count(), "load": os.getloadavg(),
          "command": "python3 benchmarks/program.py target/release/omniscribe --out benchmarks/results/program.json", "figures": figures}
text = json.dumps(result, indent=1)
if a.out:
    with open(a.out, "w") as f:
        f.write(text + "\n")
print(text)
