"""How much of the encoder's own speed is left when a folder of compressed audio is transcribed: one hour of dev speech as mp3 (44.1 kHz, 128
kbit/s), flac and wav (16 kHz), a third each, in files of about 20 s.

    python3 benchmarks/end_to_end.py BINARY --speech ../shared/speech --out benchmarks/results/end-to-end.json

`omniscribe bench` on the folder tells both speeds of one run: of encoder and decoder alone, and from opening the first file to the last word. Reading, decoding
and features run beside the encoder; on a machine without a free core they take time from it, which the first of the two speeds then contains.
"""
import argparse
import datetime
import json
import os
import random
import re
import subprocess
import sys
import tempfile

KINDS = [("mp3", ["-ar", "44100", "-b:a", "128k"]), ("flac", ["-ar", "16000"]), ("wav", ["-ar", "16000"])]
FILE_SECONDS = 20


def folder_of(speech, hours, folder):
    """Writes the files, each with its transcript beside it."""
    rows = [json.loads(line) for line in open(os.path.join(speech, "dev.jsonl"))]
    rows = [row for row in rows if row["set"] != "fsdd"]
    random.Random(1).shuffle(rows)
    listing = os.path.join(folder, "..", "list")
    total, made, own = 0.0, 0, []
    for row in rows:
        own.append(row)
        seconds = sum(r["duration"] for r in own)
        if seconds < FILE_SECONDS:
            continue
        extension, options = KINDS[made % len(KINDS)]
        with open(listing, "w") as out:
            out.writelines(f"file '{os.path.abspath(os.path.join(speech, r['audio_filepath']))}'\n" for r in own)
        path = os.path.join(folder, f"{made:03}")
        subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-f", "concat", "-safe", "0", "-i", listing, "-ac", "1", *options, f"{path}.{extension}"], check=True)
        with open(f"{path}.txt", "w") as out:
            out.write(" ".join(r["text"] for r in own) + "\n")
        total, made, own = total + seconds, made + 1, []
        if total >= 3600 * hours:
            break


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--speech", required=True)
    parser.add_argument("--model", default="models/base")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--folder", help="a folder made by an earlier call, kept")
    parser.add_argument("--out", required=True)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = a.folder or os.path.join(work, "mixed")
        if not os.path.isdir(folder):
            os.makedirs(folder)
            folder_of(a.speech, a.hours, folder)
        result = os.path.join(work, "bench.json")
        subprocess.run([a.binary, "bench", folder, "-m", a.model, "-o", result], check=True)
        speed = json.load(open(result))["speed"]
    fraction = speed["rtfx_end_to_end"] / speed["rtfx_compute"]
    shares = ", ".join(f"{what} {100 * share:.0f} %" for what, share in speed["shares"].items())
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())[1]
    json.dump({
        "benchmark": "transcribe", "title": "A folder of mp3, flac and wav, end to end", "date": datetime.date.today().isoformat(), "cpu": cpu, "cores": os.cpu_count(),
        "load": list(os.getloadavg()), "command": "python3 benchmarks/end_to_end.py BINARY " + " ".join(sys.argv[2:]), "speed": speed,
        "figures": {
            "audio": f"{speed['audio_seconds'] / 3600:.2f} h in {speed['utterances']} files",
            "of the speed of encoder and decoder alone, end to end": f"{100 * fraction:.1f} %",
            "real-time factor of encoder and decoder, end to end": f"{speed['rtfx_compute']:.1f}, {speed['rtfx_end_to_end']:.1f}",
            "shares of the time of both threads": shares,
            "processes that wanted the processor (1 min load)": f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors",
        },
    }, open(a.out, "w"), indent=1)
    open(a.out, "a").write("\n")


if __name__ == "__main__":
    main()
