"""`omniscribe listen` from outside: latency, load, flicker, many streams at once, and an hour of audio.

    python3 benchmarks/streaming.py target/release/omniscribe --model models/base --speech ../shared/speech --out benchmarks/results/streaming.json

Plays dev utterances of read speech, 0.6 s of pause between them, in real time. Latency of a word counts from its end in the audio, as the final
result places it, to the first event that shows it at its place, and to the event that makes it final. Load is CPU time over audio time.
Needs ffmpeg; everything else is the standard library.
"""
import argparse
import datetime
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import wave

RATE = 16000
PAUSE = 0.6
# Audio of the soak repeats after a whole number of the longest chunks, so that every repetition is heard alike.
CHUNK = 32 * 640

p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
p.add_argument("binary")
p.add_argument("--model", required=True)
p.add_argument("--speech", required=True, help="folder with dev.jsonl")
p.add_argument("--set", default="librispeech", help="part of the paths of the utterances to play")
p.add_argument("--seconds", type=float, default=60, help="audio for each latency")
p.add_argument("--streams", type=int, nargs="*", default=[2, 4, 8], help="numbers of streams at once")
p.add_argument("--hours", type=float, default=1, help="audio of the soak")
p.add_argument("--only", nargs="*", default=["latency", "streams", "soak"])
p.add_argument("--dtype", default="f32")
p.add_argument("--build", default="release", help="how the binary was built, for the record")
p.add_argument("--out")
a = p.parse_args()


def decode(path):
    command = ["ffmpeg", "-v", "error", "-i", path, "-ar", str(RATE), "-ac", "1", "-f", "s16le", "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def stitched(seconds):
    """Utterances with pauses, as 16-bit bytes."""
    lines = [json.loads(line) for line in open(os.path.join(a.speech, "dev.jsonl"))]
    paths = [line["audio_filepath"] for line in lines if a.set in line["audio_filepath"]]
    if not paths:
        sys.exit(f"no utterance of {a.set}")
    random.Random(1).shuffle(paths)
    audio = bytearray()
    for path in paths:
        audio += decode(path if os.path.isabs(path) else os.path.join(a.speech, path)) + bytes(2 * int(PAUSE * RATE))
        if len(audio) >= 2 * RATE * seconds:
            break
    return bytes(audio[:int(2 * RATE * seconds)])


def write(path, audio):
    with wave.open(path, "wb") as out:
        out.setnchannels(1), out.setsampwidth(2), out.setframerate(RATE)
        out.writeframes(audio)


def listen(*words):
    return [a.binary, "listen", "--model", a.model, "--json", "--dtype", a.dtype, *words]


def start(path, chunk_ms, decoder):
    words = listen("--file", path, "--realtime", "--chunk-ms", str(chunk_ms), "--decoder", decoder)
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(child.stdout))
    reader.start()
    return child, reader, lines


def finish(child, reader, lines):
    """Events and CPU seconds."""
    reader.join()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"listen failed: {child.stderr.read()}")
    return [json.loads(line) for line in lines], usage.ru_utime + usage.ru_stime


def latencies(events):
    """Seconds from the end of each word to its first appearance and to its finality."""
    first, final = [], []
    shown = {}
    done = {}
    for event in events:
        segment = event["segment"]
        if event["type"] == "endpoint":
            continue
        base = done.get(segment, 0)
        for i, word in enumerate(event["words"]):
            shown.setdefault((segment, base + i, word["word"]), event["at"])
        if event["type"] == "final":
            for i, word in enumerate(event["words"]):
                first.append(shown[segment, base + i, word["word"]] - word["end"])
                final.append(event["at"] - word["end"])
            done[segment] = base + len(event["words"])
    return first, final


def flicker(events):
    """Shown words that were replaced by another one that does not go on as they do, for each final word."""
    shown, changed, finals = [], 0, 0
    for event in events:
        if event["type"] == "endpoint":
            changed, shown = changed + len(shown), []
            continue
        texts = [word["word"] for word in event["words"]]
        if event["type"] == "final":
            finals += len(texts)
            changed += sum(not new.startswith(old) for old, new in zip(shown, texts))
            shown = shown[len(texts):]
        else:
            changed += sum(not (texts[i:i + 1] or [""])[0].startswith(old) for i, old in enumerate(shown))
            shown = texts
    return changed / max(finals, 1), finals


def quantile(values, share):
    values = sorted(values)
    return values[min(int(share * len(values)), len(values) - 1)]


def ms(values):
    return f"{1000 * quantile(values, 0.5):.0f} / {1000 * quantile(values, 0.95):.0f} ms"


figures = {}
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "speech.wav")
    write(path, stitched(a.seconds))
    if "latency" in a.only:
        for decoder, chunk_ms in [("greedy", 160), ("greedy", 320), ("greedy", 640), ("greedy", 1280), ("auto", 320)]:
            events, cpu = finish(*start(path, chunk_ms, decoder))
            first, final = latencies(events)
            rate, finals = flicker(events)
            name = f"{chunk_ms} ms, {'greedy' if decoder == 'greedy' else 'beam with language model'}"
            figures[f"{name}: first appearance of a word, p50 / p95"] = ms(first)
            figures[f"{name}: final, p50 / p95"] = ms(final)
            figures[f"{name}: share of one core"] = f"{100 * cpu / a.seconds:.1f} %"
            figures[f"{name}: changed partial words for each final word"] = f"{rate:.3f} of {finals}"
            print(name, ms(first), ms(final), f"{100 * cpu / a.seconds:.1f} %", f"{rate:.3f} of {finals}", flush=True)
    if "streams" in a.only:
        for count in a.streams:
            running = [start(path, 320, "greedy") for _ in range(count)]
            ended = [finish(*one) for one in running]
            first = [x for events, _ in ended for x in latencies(events)[0]]
            cpu = sum(cpu for _, cpu in ended)
            figures[f"{count} streams at once, 320 ms, greedy: first appearance, p50 / p95"] = f"{ms(first)}, {100 * cpu / a.seconds:.0f} % of one core"
            print(count, "streams", ms(first), f"{100 * cpu / a.seconds:.0f} %", flush=True)
    if "soak" in a.only:
        # Half of the audio is speech; the pauses end utterances.
        speech = stitched(30)
        period = -(-len(speech) // 2 // CHUNK) * CHUNK + 2 * CHUNK
        block = speech + bytes(2 * period - len(speech))
        rounds = int(a.hours * 3600 * RATE / period)
        began = time.perf_counter()
        words = listen("-", "--raw", "--chunk-ms", "320", "--decoder", "greedy")
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False)
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(child.stdout))
        reader.start()
        memory = []
        for n in range(rounds):
            child.stdin.write(block)
            status = open(f"/proc/{child.pid}/status").read()
            memory.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
        child.stdin.close()
        events, cpu = finish(child, reader, lines)
        wall = time.perf_counter() - began
        # When the words of each repetition came, from its start.
        seconds = period / RATE
        said = {}
        for event in events:
            if event["type"] == "final":
                for word in event["words"]:
                    n, offset = divmod(word["start"], seconds)
                    said.setdefault(int(n), []).append((word["word"], offset))
        reference = said[1]
        alike = [n for n in said if [w for w, _ in said[n]] == [w for w, _ in reference]]
        drift = max(abs(x - y) for n in alike for (_, x), (_, y) in zip(said[n], reference))
        tenth = max(len(memory) // 10, 1)
        tail = statistics.median(memory[tenth:2 * tenth] or memory), statistics.median(memory[-tenth:])
        audio = rounds * seconds
        figures["soak"] = (
            f"{audio / 3600:.2f} h of audio in {wall:.0f} s ({audio / wall:.0f}x real time, {cpu / audio * 100:.1f} % of one core in real time); "
            f"memory {tail[0]:.1f} MiB early, {tail[1]:.1f} MiB at the end, {max(memory):.1f} MiB at most; "
            f"{len(alike)} of {len(said)} repetitions of {seconds:.2f} s heard alike, their words at most {1000 * drift:.0f} ms apart"
        )
        print(figures["soak"], flush=True)
if a.out:
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    result = {
        "benchmark": "streaming",
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "command": " ".join(["python3", "benchmarks/streaming.py", "target/release/omniscribe", *sys.argv[2:]]),
        "date": datetime.date.today().isoformat(),
        "build": a.build,
        "load_average": os.getloadavg()[0],
        "figures": figures,
    }
    with open(a.out, "w") as out:
        json.dump(result, out, indent=1)
        out.write("\n")
