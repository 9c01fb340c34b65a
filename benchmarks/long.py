"""Long recordings: what cutting costs in words, what non-speech is transcribed as, and how memory grows with length.

    python3 benchmarks/long.py --speech ../shared/speech --out benchmarks/results/long.json

Stitches the dev speakers' utterances (in the order of the manifest, 0.4 s of pause between them) into one recording per set, transcribes it with
windows of several lengths and contexts, and counts words against the references with Whisper's normaliser (`pip install whisper-normalizer jiwer`).
The row `alone` is the same utterances one by one. Needs ffmpeg and the release binary.
"""
import argparse
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import wave

import jiwer
from whisper_normalizer.english import EnglishTextNormalizer

RATE = 16000
PAUSE = 0.4
SETTINGS = [(20, 2), (20, 0), (20, 1), (20, 4), (12, 2), (30, 2), (60, 2)]


def decode(path):
    """Samples of a file as 16-bit mono bytes at 16 kHz."""
    command = ["ffmpeg", "-v", "error", "-i", path, "-ar", str(RATE), "-ac", "1", "-f", "s16le", "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def write_wav(path, blocks):
    with wave.open(path, "wb") as out:
        out.setnchannels(1), out.setsampwidth(2), out.setframerate(RATE)
        for block in blocks:
            out.writeframesraw(block)


def transcribe(binary, arguments, files):
    """Texts of the files, wall seconds and peak memory in MiB."""
    with tempfile.NamedTemporaryFile() as usage:
        command = ["/usr/bin/time", "-f", "%e %M", "-o", usage.name, binary, "transcribe", "-q", "-f", "json", *arguments, *files]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        seconds, kilobytes = open(usage.name).read().split()[-2:]
    return [json.loads(line)["text"] for line in lines], float(seconds), int(kilobytes) / 1024


def noises(folder, seconds=60):
    """Recordings in which nobody speaks."""
    rng = random.Random(1)
    pink = [0.0] * 6

    def at(i, kind):
        t = i / RATE
        if kind == "silence":
            return 0.0
        if kind == "white noise":
            return 0.1 * rng.gauss(0, 1)
        if kind == "pink noise":
            for k in range(6):
                if i % (1 << (2 * k)) == 0:
                    pink[k] = rng.gauss(0, 1)
            return 0.04 * sum(pink)
        if kind == "hum":
            return 0.1 * math.sin(2 * math.pi * 50 * t) + 0.03 * math.sin(2 * math.pi * 150 * t) + 0.002 * rng.gauss(0, 1)
        if kind == "tones":
            return 0.3 * math.sin(2 * math.pi * (440 if int(t * 2) % 2 else 620) * t) * (1 if t * 2 % 1 < 0.7 else 0)
        chord = [220, 277, 330, 440] if int(t / 2) % 2 else [196, 247, 294, 392]
        return sum(0.1 * math.exp(-2 * (t % 0.5)) * math.sin(2 * math.pi * f * t * k) / k for f in chord for k in (1, 2, 3))

    for kind in ["silence", "white noise", "pink noise", "hum", "tones", "music"]:
        path = os.path.join(folder, kind.replace(" ", "_") + ".wav")
        write_wav(path, [struct.pack("<h", int(max(-1, min(1, at(i, kind))) * 32767)) for i in range(seconds * RATE)])
        yield kind, path


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--speech", required=True)
    arguments.add_argument("--binary", default="target/release/omniscribe")
    arguments.add_argument("--hours", type=float, default=3.0, help="length of the recording that memory is measured on")
    arguments.add_argument("--out", default="benchmarks/results/long.json")
    a = arguments.parse_args()
    normalize = EnglishTextNormalizer()
    sets = {}
    # Isolated digits are left out: the normaliser makes one number of those that follow one another.
    for line in open(os.path.join(a.speech, "dev.jsonl")):
        entry = json.loads(line)
        name = "common-voice" if entry["set"].startswith("common-voice") else entry["set"]
        if entry["set"] != "fsdd":
            sets.setdefault(name, []).append((os.path.join(a.speech, entry["audio_filepath"]), entry["text"]))
    result = {"benchmark": "long", "cpu": re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())[1], "command": " ".join(sys.argv), "date": time.strftime("%Y-%m-%d")}
    rows, non_speech, memory = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        silence = bytes(2 * int(PAUSE * RATE))
        stitched = {}
        for name, entries in sets.items():
            stitched[name] = os.path.join(folder, name + ".wav")
            write_wav(stitched[name], [block for path, _ in entries for block in (decode(path), silence)])
        references = {name: " ".join(normalize(text) for _, text in entries) for name, entries in sets.items()}

        def row(label, texts, seconds):
            wer = {name: 100 * jiwer.wer(references[name], normalize(text)) for name, text in texts.items()}
            rows.append({"windows": label, "wer": wer, "seconds": seconds})
            print(label, {k: round(v, 2) for k, v in wer.items()}, f"{seconds:.1f} s", flush=True)

        alone = {name: transcribe(a.binary, [], [path for path, _ in entries]) for name, entries in sets.items()}
        row("alone", {name: " ".join(t[0]) for name, t in alone.items()}, sum(t[1] for t in alone.values()))
        for vad in ["on", "off"]:
            for longest, context in SETTINGS if vad == "on" else SETTINGS[:2]:
                texts, seconds, _ = transcribe(a.binary, ["--vad", vad, "--chunk-seconds", str(longest), "--context-seconds", str(context)], list(stitched.values()))
                row(f"{longest} s, {context} s of context, vad {vad}", dict(zip(stitched, texts)), seconds)
        for kind, path in noises(folder):
            counts = {vad: len(transcribe(a.binary, ["--vad", vad], [path])[0][0].split()) for vad in ("on", "off")}
            non_speech.append({"what": kind, "seconds": 60, "words_per_minute": counts["on"], "words_per_minute_without_vad": counts["off"]})
            print(kind, counts, flush=True)
        speech = b"".join(decode(path) + silence for path, _ in sets[max(sets, key=lambda n: len(sets[n]))])
        for seconds in (180, int(a.hours * 3600)):
            path = os.path.join(folder, "long.wav")
            wanted = 2 * RATE * seconds
            write_wav(path, [speech] * (wanted // len(speech)) + [speech[: wanted % len(speech)]])
            _, wall, mebibytes = transcribe(a.binary, [], [path])
            memory.append({"audio_seconds": seconds, "wall_seconds": wall, "peak_mib": mebibytes})
            print(memory[-1], flush=True)
    result |= {"rows": rows, "non_speech": non_speech, "memory": memory}
    with open(a.out, "w") as out:
        json.dump(result, out, indent=1)
        out.write("\n")


if __name__ == "__main__":
    main()
