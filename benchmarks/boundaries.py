"""Makes speech whose word times are known exactly: 16 kHz WAV files and a manifest with the start and end of every word.

Festival (Debian: `apt-get install festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts festlex-cmu festlex-poslex sox`) tells for each
word where it put it. Sentences of `--text` (plain or .xz, one per line) made of plain words and simple punctuation are read in turn by three
voices. The same arguments give the same files.

    python3 benchmarks/boundaries.py --text books-en.txt.xz --out runs/boundaries --count 100

`manifest.jsonl`: `audio_filepath`, `duration`, `text`, `speaker` and `words`, a list of `{"word", "start", "end"}` in seconds. Word ends are the ends of
the last phone; between words without a pause the end of one is the start of the next.
"""
import argparse
import json
import lzma
import os
import random
import re
import subprocess
import tempfile

VOICES = {"kal": "voice_kal_diphone", "ked": "voice_ked_diphone", "slt": "voice_cmu_us_slt_arctic_hts"}
PLAIN = re.compile(r"[A-Z][a-z']*(?:[,;]? [a-z']+){4,17}\.")
SCRIPT = """(%s)
(set! utt (Utterance Text "%s"))
(utt.synth utt)
(mapcar (lambda (w) (format t "%%s %%f %%f\\n" (item.name w) (item.feat w "word_start") (item.feat w "word_end"))) (utt.relation.items utt 'Word))
(utt.save.wave utt "%s" 'riff)
"""


def sentences(path):
    opened = lzma.open if path.endswith(".xz") else open
    with opened(path, "rt", encoding="utf-8") as lines:
        return [line.strip() for line in lines if PLAIN.fullmatch(line.strip())]


def speak(voice, text, path):
    """Writes `path` and returns its words, or None where festival reads other words than are written."""
    with tempfile.TemporaryDirectory() as folder:
        script, raw = os.path.join(folder, "say.scm"), os.path.join(folder, "raw.wav")
        with open(script, "w", encoding="ascii") as out:
            out.write(SCRIPT % (VOICES[voice], text, raw))
        told = subprocess.run(["festival", "-b", script], check=True, capture_output=True, text=True).stdout
        words = [{"word": w.lower(), "start": round(float(s), 4), "end": round(float(e), 4)} for w, s, e in (line.split() for line in told.splitlines())]
        if [w["word"] for w in words] != re.sub(r"[.,;]", "", text).lower().split():
            return None
        subprocess.run(["sox", "-R", raw, "-b", "16", "-c", "1", path, "gain", "-n", "-3", "rate", "16000"], check=True)
    return words


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    choice = random.Random(arguments.seed)
    pool = sentences(arguments.text)
    choice.shuffle(pool)
    made = 0
    with open(os.path.join(arguments.out, "manifest.jsonl"), "w", encoding="utf-8") as manifest:
        for text in pool:
            if made == arguments.count:
                break
            voice = list(VOICES)[made % len(VOICES)]
            name = f"{made:03}-{voice}.wav"
            path = os.path.join(arguments.out, name)
            words = speak(voice, text, path)
            if words is None:
                continue
            duration = (os.path.getsize(path) - 44) / 32000
            row = {"audio_filepath": name, "duration": duration, "text": text, "speaker": f"festival-{voice}", "words": words}
            manifest.write(json.dumps(row) + "\n")
            made += 1
    print(f"{made} utterances in {arguments.out}")


if __name__ == "__main__":
    main()
