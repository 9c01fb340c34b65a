"""Times our scoring beside jiwer's, kaldialign's and sclite's on the same pairs in the same run, and compares the counts pair by pair.

Usage: scoring.py BENCH_BINARY [--rounds N] [--out RESULT.json]      (pip install jiwer==4.0.0 kaldialign==0.12.0; apt install sctk)
BENCH_BINARY is what `cargo bench --bench scoring --no-run` prints. 10,000 utterances with some 200,000 words, a tenth of them wrong, and the
same with a third wrong; ours and the peers take turns on one core. All times are processor time, the best of the rounds. sclite is timed with
its start, reading and report, which it cannot do without."""
import argparse, datetime, json, os, platform, random, re, statistics, subprocess, sys, tempfile, time

SCLITE = ["sctk", "sclite"] if not os.path.exists("/usr/lib/sctk/bin/sclite") else ["/usr/lib/sctk/bin/sclite"]


def pairs(count, errors, seed, words=20):
    """Reference and hypothesis texts: words of a skewed vocabulary, a share of them substituted, deleted, inserted, split or joined."""
    draw = random.Random(f"pairs {count} {errors} {seed}")
    spell = lambda: "".join(draw.choice("etaoinshrdlucmfwypvbgkqjxz"[: draw.randint(8, 26)]) for _ in range(draw.randint(1, 9)))
    vocabulary = [spell() for _ in range(5000)]
    word = lambda: vocabulary[min(int(draw.paretovariate(0.5)) - 1, 4999)]
    out = []
    for _ in range(count):
        reference = [word() for _ in range(max(1, round(draw.gauss(words, words * 0.4))))]
        hypothesis = []
        for w in reference:
            u = draw.random() / errors
            if u < 0.6:
                hypothesis.append(word())
            elif u < 0.75:
                pass
            elif u < 0.9:
                hypothesis += [w, word()]
            elif u < 0.95 and len(w) > 3:
                hypothesis += [w[:2], w[2:]]
            elif u < 1 and hypothesis:
                hypothesis[-1] += w
            else:
                hypothesis.append(w)
        out.append((" ".join(reference), " ".join(hypothesis)))
    return out


def trn(path, texts, ids):
    with open(path, "w") as f:
        f.writelines(f"{text} ({name})\n" for text, name in zip(texts, ids))


def sclite_counts(texts, options=()):
    """[S, D, I] of every pair and the processor seconds of the program."""
    with tempfile.TemporaryDirectory() as folder:
        ids = [f"s{i % 50}-{i}" for i in range(len(texts))]
        for side in (0, 1):
            trn(f"{folder}/{side}", [pair[side] for pair in texts], ids)
        command = [*SCLITE, "-s", "-i", "spu_id", *options, "-r", f"{folder}/0", "trn", "-h", f"{folder}/1", "trn", "-o", "pralign", "stdout"]
        before = os.times()
        out = subprocess.run(command, check=True, capture_output=True).stdout.decode(errors="replace")
        after = os.times()
    found = re.findall(r"^id: \((\S+)\)\nScores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", out, re.M)
    counts = {name: [int(s), int(d), int(i)] for name, _, s, d, i in found}
    assert len(counts) == len(texts), (len(counts), out[-500:])
    return [counts[name] for name in ids], after.children_user - before.children_user


def jiwer_counts(texts):
    import jiwer
    return [(lambda r: [r.substitutions, r.deletions, r.insertions])(jiwer.process_words(*pair)) for pair in texts]


def kaldialign_counts(texts, **options):
    import kaldialign
    rows = (kaldialign.edit_distance(r.split(), h.split(), **options) for r, h in texts)
    return [[row["sub"], row["del"], row["ins"]] for row in rows]


def ours(binary, texts, *arguments):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.writelines(json.dumps(pair) + "\n" for pair in texts)
        f.flush()
        return subprocess.run([binary, f.name, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def our_counts(binary, texts, aligner):
    return [json.loads(line) for line in ours(binary, texts, "counts", aligner).splitlines()]


def cpu_model():
    lines = open("/proc/cpuinfo").read().splitlines()
    wanted = {key.strip(): value.strip() for key, value in (line.split(":", 1) for line in lines if ":" in line)}
    return f"{wanted.get('model name', platform.processor())} (family {wanted.get('cpu family')}, model {wanted.get('model')})"


def main():
    import jiwer, kaldialign
    from importlib.metadata import version
    arguments = argparse.ArgumentParser()
    arguments.add_argument("bench")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--out")
    A = arguments.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one core for all; the bench binary inherits it

    equal, totals = {}, {}
    for name, share in (("a tenth wrong", 0.1), ("a third wrong", 0.35)):
        texts = pairs(10_000, share, 1)
        peers = {
            "jiwer": ("levenshtein", jiwer_counts(texts)),
            "sclite": ("sclite", sclite_counts(texts)[0]),
            "kaldialign, sclite_mode": ("sclite", kaldialign_counts(texts, sclite_mode=True)),
            "kaldialign, merge_compounds": ("merge-compounds", kaldialign_counts(texts, merge_compounds=True)),
        }
        for peer, (aligner, counts) in peers.items():
            mine = our_counts(A.bench, texts, aligner)
            assert len(mine) == len(counts)
            equal[f"{name}: {aligner} vs {peer}"] = {
                "pairs": len(counts),
                "equal totals": sum(sum(a) == sum(b) for a, b in zip(mine, counts)),
                "equal S, D, I": sum(a == b for a, b in zip(mine, counts)),
            }
            totals[f"{name}: {peer}"] = [sum(column) for column in zip(*counts)]
            totals[f"{name}: ours, {aligner}"] = [sum(column) for column in zip(*mine)]

    texts = pairs(10_000, 0.1, 1)
    references, hypotheses = ([pair[side] for pair in texts] for side in (0, 1))
    words = sum(len(r.split()) for r in references)
    split = [[text.split() for text in side] for side in (references, hypotheses)]
    work = {
        "words": {"jiwer": lambda: jiwer.process_words(references, hypotheses)},
        "characters": {"jiwer": lambda: jiwer.process_characters(references, hypotheses)},
        "words, sclite": {"kaldialign": lambda: kaldialign.batch_error_rate(*split, sclite_mode=True), "sclite": lambda: sclite_counts(texts)[1]},
        "words, merge-compounds": {"kaldialign": lambda: kaldialign.batch_error_rate(*split, merge_compounds=True)},
    }
    seconds = {}
    for _ in range(A.rounds):
        for line in ours(A.bench, texts, "time", 3).splitlines():
            row = json.loads(line)
            seconds.setdefault((row["work"], "omniscribe"), []).append(row["seconds"])
        for name, peers in work.items():
            for peer, run in peers.items():
                start = time.process_time()
                own = run()
                seconds.setdefault((name, peer), []).append(own if isinstance(own, float) else time.process_time() - start)
    best, middle = ({key: pick(taken) for key, taken in seconds.items()} for pick in (min, statistics.median))
    ratio = lambda times, name, peer: round(times[name, peer] / times[name, "omniscribe"], 1)
    ratios = {f"{n} vs {p}": {"best": ratio(best, n, p), "median": ratio(middle, n, p)} for n, p in seconds if p != "omniscribe"}
    result = {
        "benchmark": "scoring", "utterances": len(texts), "words": words, "threads": 1, "rounds": A.rounds,
        "load_average": [round(load, 1) for load in os.getloadavg()], "date": datetime.date.today().isoformat(), "cpu": cpu_model(),
        "command": " ".join(["python", "benchmarks/scoring.py", *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), "jiwer": version("jiwer"), "rapidfuzz": version("rapidfuzz"), "kaldialign": version("kaldialign"), "sclite": "2.10 (sctk 2.4.10)"},
        "ratio_peer_over_ours": ratios,
        "best_s": {f"{name}, {package}": round(taken, 4) for (name, package), taken in sorted(best.items())},
        "lines_per_s": {row["work"]: row["lines_per_s"] for row in map(json.loads, ours(A.bench, texts, "normalize", 5).splitlines())},
        "equal_counts": equal, "errors_sdi": totals,
    }
    # Rows of counts on one line each.
    rows = {key: result.pop(key) for key in ("equal_counts", "errors_sdi")}
    tables = [f' {json.dumps(key)}: {{\n' + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in table.items()) + "\n }" for key, table in rows.items()]
    text = json.dumps(result, indent=1)[:-2] + ",\n" + ",\n".join(tables) + "\n}"
    print(text)
    if A.out:
        open(A.out, "w").write(text + "\n")


if __name__ == "__main__":
    main()
