"""Times KenLM's C++ and our scores of the same words on the same binary files, one thread, in turns, in processor time.

    cargo bench --bench lm --no-run
    python3 benchmarks/lm_peers.py BENCH_BINARY --kenlm KENLM/build/bin --text books-en.txt.xz --arpa base.arpa --compact base.lm --out benchmarks/results/lm.json

KENLM/build/bin is what KenLM's own build makes: `build_binary` makes its files of the ARPA file, `kenlm_benchmark` scores. Two texts are
scored: the last sentences of `--text`, and the same words shuffled, a walk that mostly backs off. Both programs turn words into ids before
the clock starts; best of `--rounds`. `kenlm_benchmark` reads files into huge pages, ours maps them as they are."""
import argparse
import datetime
import json
import lzma
import os
import platform
import random
import re
import subprocess
import sys
import tempfile

KINDS = {"probing": ["probing"], "trie": ["trie"], "trie, quantised, array-compressed": ["-q", "8", "-b", "8", "-a", "22", "trie"]}
SENTENCES = 40000


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def texts(path, folder):
    """Files with sentences and with the same words shuffled."""
    with lzma.open(path, "rt", encoding="utf-8") as f:
        lines = [re.sub(r"[^a-z' ]", " ", line.lower()).split() for line in f.readlines()[-SENTENCES:]]
    words = [word for line in lines for word in line]
    random.Random(3).shuffle(words)
    shuffled = iter(words)
    files = {}
    for name, rows in (("sentences", lines), ("shuffled", [[next(shuffled) for _ in line] for line in lines])):
        files[name] = os.path.join(folder, name)
        with open(files[name], "w") as out:
            out.writelines(" ".join(row) + "\n" for row in rows if row)
    return files


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("bench")
    p.add_argument("--kenlm", required=True)
    p.add_argument("--text", required=True)
    p.add_argument("--arpa", required=True)
    p.add_argument("--compact", required=True)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--out")
    o = p.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = texts(o.text, folder)
        models = {"compact": o.compact}
        for kind, flags in KINDS.items():
            models[kind] = os.path.join(folder, kind.replace(", ", "-"))
            run(os.path.join(o.kenlm, "build_binary"), *flags, o.arpa, models[kind])
        for text, path in files.items():
            for kind, model in models.items():
                row = {"text": text, "model": kind, "bytes": os.path.getsize(model), "ours_ns": [], "kenlm_ns": []}
                ids = None
                if kind != "compact":
                    ids = os.path.join(folder, "ids")
                    with open(path) as words, open(ids, "wb") as out:
                        subprocess.run([os.path.join(o.kenlm, "kenlm_benchmark"), "-v", "-m", model], stdin=words, stdout=out, check=True)
                for _ in range(o.rounds):
                    row["ours_ns"].append(float(run(o.bench, model, path, "1").split()[0]))
                    if ids:
                        with open(ids, "rb") as f:
                            said = run(os.path.join(o.kenlm, "kenlm_benchmark"), "-q", "-t", "1", "-b", "65536", "-m", model, stdin=f)
                        row["kenlm_ns"].append(1e9 * float(re.search(r"Seconds per query excluding load, CPU: (\S+)", said).group(1)))
                best = {who: round(min(row.pop(who)), 1) for who in ("ours_ns", "kenlm_ns") if row[who]}
                row.pop("kenlm_ns", None)
                rows.append({**row, **best})
                print(rows[-1], file=sys.stderr)
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read()).group(1) if os.path.exists("/proc/cpuinfo") else platform.processor()
    result = {"benchmark": "lm_peers", "date": datetime.date.today().isoformat(), "cpu": cpu, "command": ["python3", "benchmarks/lm_peers.py"] + sys.argv[1:], "rows": rows}
    text = json.dumps(result, indent=1) + "\n"
    open(o.out, "w").write(text) if o.out else print(text)


if __name__ == "__main__":
    main()
