"""The dev sets through pocketsphinx with its stock English model, as JSON lines that `omniscribe bench --hypotheses` scores.

    apt-get install pocketsphinx pocketsphinx-en-us ffmpeg
    python3 benchmarks/pocketsphinx_peer.py ../shared/speech/dev.jsonl --out runs/pocketsphinx.jsonl
    omniscribe bench ../shared/speech/dev.jsonl -o runs/base.json
    omniscribe bench ../shared/speech/dev.jsonl --hypotheses runs/pocketsphinx.jsonl --name pocketsphinx -o runs/pocketsphinx.json
    omniscribe bench --compare runs/pocketsphinx.json runs/base.json

An utterance's id is the name of its file without extension, as in the NeMo reader. Started again, it goes on where it stopped.
"""
import argparse
import json
import os
import subprocess
import tempfile

MODEL = "/usr/share/pocketsphinx/model/en-us"
BATCH = 50


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("manifest")
    arguments.add_argument("--out", required=True)
    a = arguments.parse_args()
    root = os.path.dirname(a.manifest)
    paths = [json.loads(line)["audio_filepath"] for line in open(a.manifest)]
    ids = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    done = {json.loads(line)["id"] for line in open(a.out)} if os.path.exists(a.out) else set()
    todo = [(i, p) for i, p in zip(ids, paths) if i not in done]
    for start in range(0, len(todo), BATCH):
        part = todo[start : start + BATCH]
        with tempfile.TemporaryDirectory() as folder, open(a.out, "a") as out:
            for number, (_, path) in enumerate(part):
                # pocketsphinx_batch reads headerless samples; a little silence on both sides, which it needs to find its bearings.
                pad = "adelay=200,apad=pad_dur=0.2"
                command = ["ffmpeg", "-v", "error", "-i", os.path.join(root, path), "-af", pad, "-ar", "16000", "-ac", "1", "-f", "s16le", f"{folder}/{number}.raw"]
                subprocess.run(command, check=True)
            with open(f"{folder}/list", "w") as listing:
                listing.writelines(f"{number}\n" for number in range(len(part)))
            command = ["pocketsphinx_batch", "-hmm", f"{MODEL}/en-us", "-lm", f"{MODEL}/en-us.lm.bin", "-dict", f"{MODEL}/cmudict-en-us.dict"]
            command += ["-adcin", "yes", "-cepdir", folder, "-cepext", ".raw", "-ctl", f"{folder}/list", "-hyp", f"{folder}/hyp", "-logfn", "/dev/null"]
            subprocess.run(command, check=True)
            texts = {}
            for line in open(f"{folder}/hyp"):
                text, _, tail = line.rpartition("(")
                texts[int(tail.split()[0].rstrip(")"))] = " ".join(text.split())
            for number, (name, _) in enumerate(part):
                out.write(json.dumps({"id": name, "text": texts.get(number, "")}) + "\n")
        print(f"{start + len(part)} of {len(todo)}", flush=True)


if __name__ == "__main__":
    main()
