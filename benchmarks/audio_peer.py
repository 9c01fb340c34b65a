"""Times FFmpeg beside our decoders on the same files in the same run: compressed audio to 16 kHz mono float, one thread each.

    cargo bench --bench audio --no-run
    python3 benchmarks/audio_peer.py BENCH_BINARY --speech ../shared/speech --out benchmarks/results/audio.json

The files are made of the dev recordings, one after another, by FFmpeg: 44.1 kHz stereo mp3 and flac, 16 kHz mono flac and mp3, 48 kHz mono
and stereo opus. Processor time, best of `--rounds`, turns taken. FFmpeg's time is that of the whole program less that of the same program on a tenth
of a second of the same coding: start-up is not decoding. It writes its samples to a null sink (`-f null`), resampled by its default `swresample`.
"""
import argparse
import datetime
import json
import os
import re
import resource
import subprocess
import sys
import tempfile

KINDS = {
    "mp3, 44.1 kHz stereo": ("mp3", ["-ar", "44100", "-ac", "2", "-c:a", "libmp3lame", "-b:a", "128k"]),
    "mp3, 16 kHz mono": ("mp3", ["-ar", "16000", "-ac", "1", "-c:a", "libmp3lame", "-b:a", "48k"]),
    "flac, 44.1 kHz stereo": ("flac", ["-ar", "44100", "-ac", "2", "-c:a", "flac"]),
    "flac, 16 kHz mono": ("flac", ["-ar", "16000", "-ac", "1", "-c:a", "flac"]),
    "opus, 48 kHz stereo, 96 kbit/s": ("opus", ["-ar", "48000", "-ac", "2", "-c:a", "libopus", "-b:a", "96k"]),
    "opus, speech, 24 kbit/s mono": ("opus", ["-ar", "48000", "-ac", "1", "-c:a", "libopus", "-b:a", "24k", "-application", "voip"]),
}


def ffmpeg(path, decoder):
    """Processor seconds of FFmpeg on one thread."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-threads", "1", "-filter_threads", "1", *decoder, "-i", path, "-ar", "16000", "-ac", "1", "-sample_fmt", "flt",
                    "-c:a", "pcm_f32le", "-f", "null", "-"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def document(rows):
    """The result's file, written after each row."""
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())[1]
    return {
        "benchmark": "audio", "date": datetime.date.today().isoformat(), "cpu": cpu, "cores": os.cpu_count(), "load": list(os.getloadavg()),
        "command": "python3 benchmarks/audio_peer.py BENCH_BINARY " + " ".join(sys.argv[2:]),
        "ffmpeg": subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True).stdout.split("\n")[0].split(" Copyright")[0], "rows": rows,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("--speech", required=True)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out")
    a = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        listing, length = os.path.join(folder, "list"), 0.0
        with open(listing, "w") as out:
            for line in open(os.path.join(a.speech, "dev.jsonl")):
                entry = json.loads(line)
                if length < a.seconds:
                    length += entry["duration"]
                    out.write(f"file '{os.path.abspath(os.path.join(a.speech, entry['audio_filepath']))}'\n")
        wav = os.path.join(folder, "all.wav")
        subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-f", "concat", "-safe", "0", "-i", listing, "-ar", "48000", "-ac", "1", wav], check=True)
        for kind, (extension, options) in KINDS.items():
            files = {}
            for name, cut in (("whole", []), ("start", ["-t", "0.1"])):
                files[name] = os.path.join(folder, f"{name}.{extension}")
                subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", wav, *cut, *options, files[name]], check=True)
            # Two decoders of Opus come with FFmpeg: its own and libopus; both are given, the faster counts.
            decoders = {"ffmpeg": []} | ({"libopus": ["-c:a", "libopus"]} if extension == "opus" else {})
            ours, peers = [], {name: [] for name in decoders}
            for _ in range(a.rounds):
                told = subprocess.run([a.bench, "1", files["whole"]], check=True, capture_output=True, text=True).stdout.split(" ", 2)
                ours.append(float(told[0]))
                for name, decoder in decoders.items():
                    peers[name].append(ffmpeg(files["whole"], decoder) - ffmpeg(files["start"], decoder))
            seconds = int(told[1]) / 16000
            best = {name: min(times) for name, times in peers.items()}
            median = lambda values: sorted(values)[len(values) // 2]
            rows.append({
                "kind": kind, "audio_s": round(seconds, 1), "ours_s": min(ours), "peers_s": best,
                "times_realtime": round(seconds / min(ours)), "best": round(min(best.values()) / min(ours), 3),
                "median": round(min(map(median, peers.values())) / median(ours), 3),
            })
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            if a.out:
                with open(a.out, "w") as out:
                    out.write(json.dumps(document(rows), indent=1) + "\n")
    if not a.out:
        print(json.dumps(document(rows), indent=1))


if __name__ == "__main__":
    main()
