"""Voice activity beside webrtcvad, on the same sounds in one run.

    pip install webrtcvad-wheels numpy
    mkdir /tmp/vad
    OMNISCRIBE_VAD_DUMP=/tmp/vad cargo test --release --test it measured_on_real_speech -- --ignored
    python benchmarks/vad_peer.py /tmp/vad

webrtcvad decides frame by frame; its stretches are made as ours are: a pause under 0.5 s belongs to the speech around it, what lasts less
than 0.1 s is none, 0.24 s are added on both sides.
"""

import json
import resource
import sys
import wave
from pathlib import Path

import numpy as np
import webrtcvad

RATE, FRAME, PAUSE, LEAST, PADDING = 16000, 320, 25, 5, 3840


def stretches(frames, length):
    found, start, last = [], None, 0
    for t, speech in enumerate(list(frames) + [False] * (PAUSE + 1)):
        if speech:
            start, last = t if start is None else start, t
        elif start is not None and t - last >= PAUSE:
            if last + 1 - start >= LEAST:
                found.append((max(start * FRAME - PADDING, 0), min((last + 1) * FRAME + PADDING, length)))
            start = None
    return found


def share(found, span):
    return sum(max(min(b, span[1]) - max(a, span[0]), 0) for a, b in found) / max(span[1] - span[0], 1)


def main(folder):
    index = json.loads((folder / "index.json").read_text())
    detectors = ["ours"] + [f"webrtcvad {mode}" for mode in range(4)]
    table, audio, spent = {}, 0.0, 0.0
    for row in index:
        with wave.open(str(folder / row["file"])) as file:
            pcm = file.readframes(file.getnframes())
        audio += len(pcm) / 2 / RATE
        for detector in detectors:
            if detector == "ours":
                found = row["stretches"]
            else:
                vad = webrtcvad.Vad(int(detector[-1]))
                before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
                frames = [vad.is_speech(pcm[i:i + 2 * FRAME], RATE) for i in range(0, len(pcm) - 2 * FRAME + 1, 2 * FRAME)]
                spent += resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
                found = stretches(frames, len(pcm) // 2)
            tally = table.setdefault(row["condition"], {}).setdefault(detector, np.zeros(5))
            shares = [share(found, word) for word in row["words"]]
            silent = sum(b - a for a, b in row["silent"])
            tally += [len(shares), sum(s < 1 for s in shares), sum(s < 0.5 for s in shares), silent, sum(share(found, s) * (s[1] - s[0]) for s in row["silent"])]
    print("| sound | " + " | ".join(detectors) + " |\n|---|" + "---|" * len(detectors))
    for condition, tallies in table.items():
        cells = []
        for detector in detectors:
            words, cut, lost, silent, kept = tallies[detector]
            text = f"{100 * kept / silent:.1f} %"
            cells.append(f"{100 * cut / words:.2f} / {100 * lost / words:.2f} / {text}" if words else text)
        count = int(tallies["ours"][0])
        print(f"| {condition}{f' ({count} words)' if count else ''} | " + " | ".join(cells) + " |")
    print(f"\nWords cut % / lost % / other sound kept; sounds without words: kept. webrtcvad from Python: {4 * audio / spent:.0f} times real time (user time).")


main(Path(sys.argv[1]))
