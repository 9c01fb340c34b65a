"""Writes tests/golden/scoring: pairs, texts and systems with what the reference programs make of them.

Usage: scoring_golden.py ORACLE_FOLDER VECTORS.json LEADERBOARD_FOLDER
(pip install jiwer==4.0.0 kaldialign==0.12.0 regex; apt install sctk, version 2.4.10. ORACLE_FOLDER has english_normalizer.jsonl; VECTORS.json is
a list of objects with `in`; LEADERBOARD_FOLDER is `normalizer` of github.com/huggingface/open_asr_leaderboard at d1e99b2.)
Everything random has a fixed seed: the same versions write the same files."""
import importlib.util, json, os, random, re, subprocess, sys, tempfile, types

from scoring import jiwer_counts, kaldialign_counts, pairs, sclite_counts, trn

SCTK = "/usr/lib/sctk/bin"
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
OUT = os.path.join(ROOT, "tests/golden/scoring")
os.makedirs(OUT, exist_ok=True)


def write(name, rows):
    with open(f"{OUT}/{name}", "w") as f:
        f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    print(name, len(rows))


def few_words(count, seed):
    """Short texts of four words, so that many alignments are equally good."""
    draw = random.Random(f"few {seed}")
    row = lambda: " ".join(draw.choice(["a", "b", "ab", "c"]) for _ in range(draw.randint(0, 12)))
    return [(row() or "a", row()) for _ in range(count)]


def marked(count, seed):
    """Texts with sclite's markup on both sides."""
    draw = random.Random(f"marked {seed}")
    word = lambda: draw.choice("the cat sat on a mat this that is going to gone".split())
    def token():
        u = draw.random()
        if u < 0.12:
            return f"({draw.choice(['uh', 'um', word()])})"
        if u < 0.2:
            return word()[: draw.randint(1, 3)] + "-"
        if u < 0.24:
            return "-" + word()[-2:]
        if u < 0.4:
            ways = [" ".join(word() for _ in range(draw.randint(1, 3))) for _ in range(draw.randint(2, 3))]
            return "{ " + " / ".join(ways + ["@"] * (draw.random() < 0.3)) + " }"
        return word()
    rows = []
    for _ in range(count):
        reference = [token() for _ in range(draw.randint(1, 9))]
        plain = re.sub(r"\{ ([^/]*) / [^}]*\}", r"\1", " ".join(reference)).replace("(", "").replace(")", "").replace("@", "").split()
        hypothesis = [w if draw.random() < 0.8 else token() for w in plain if draw.random() < 0.9]
        rows.append((" ".join(reference), " ".join(hypothesis)))
    return rows


def sclite_all(texts):
    """[C, S, D, I] with markup."""
    with tempfile.TemporaryDirectory() as folder:
        ids = [f"s1-{i}" for i in range(len(texts))]
        for side in (0, 1):
            trn(f"{folder}/{side}", [pair[side] for pair in texts], ids)
        command = [f"{SCTK}/sclite", "-s", "-D", "-F", "-i", "spu_id", "-r", f"{folder}/0", "trn", "-h", f"{folder}/1", "trn", "-o", "pralign", "stdout"]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = dict(re.findall(r"^id: \((\S+)\)\nScores: \(#C #S #D #I\) ([\d ]+)$", out, re.M))
    return [[int(n) for n in found[name].split()] for name in ids]


def mapped(texts, glm, purpose):
    """What csrfilt makes of each text. A section for `ctm` is one for hypotheses here."""
    with tempfile.TemporaryDirectory() as folder:
        rules = f"{folder}/rules.glm"
        with open(rules, "w") as f:
            f.write(open(glm).read().replace('INPUT_DEPENDENT_APPLICATION = "ctm"', 'INPUT_DEPENDENT_APPLICATION = "hyp"'))
        command = [f"{SCTK}/csrfilt.sh", "-dh", "-i", "txt", "-t", purpose, rules]
        path = f"{SCTK}:{os.environ['PATH']}"
        out = subprocess.run(command, input="\n".join(texts) + "\n", check=True, capture_output=True, text=True, env={**os.environ, "PATH": path}).stdout
    lines = out.split("\n")[:-1]
    assert len(lines) == len(texts), (len(lines), len(texts), out[:300])
    return lines


def spoken(count, glm, seed):
    """Texts of words that the rules know and words between."""
    draw = random.Random(f"spoken {glm} {seed}")
    rules = [line.split(";;")[0].split("=>")[0].strip(" []\t\n").lower() for line in open(f"{ROOT}/src/eval/glm/{glm}.glm") if "=>" in line.split(";;")[0]]
    plain = "the well-known i'd a- -ing uh um uh-huh mm-hm going to said they're (uh) x-ray e.g. it's can't won't".split(" ") + ["(um yes)"]
    row = lambda: " ".join(draw.choice(rules) if draw.random() < 0.5 else draw.choice(plain) for _ in range(draw.randint(1, 8)))
    return [row() for _ in range(count)]


def significance(name, texts, second, speakers):
    """Two systems on the same references and what sc_stats says of them."""
    ids = [f"s{i % speakers}-{i}" for i in range(len(texts))]
    sides = {"r": [r for r, _ in texts], "first": [h for _, h in texts], "second": second}
    with tempfile.TemporaryDirectory() as folder:
        for side, lines in sides.items():
            trn(f"{folder}/{side}.trn", lines, ids)
        one = f"{SCTK}/sclite -s -r r.trn trn -h $h.trn trn $h -i spu_id -o sgml stdout"
        for verbose, out in (("", "u"), ("-v", "v")):
            test = f"(for h in first second; do {one}; done) | {SCTK}/sc_stats -p -t mapsswe -t mcn -u {verbose} -n {out}"
            subprocess.run(test, shell=True, cwd=folder, check=True, capture_output=True)
        # Only without -u does sc_stats write its verbose report of the matched pairs.
        subprocess.run(f"(for h in first second; do {one}; done) | {SCTK}/sc_stats -p -t mapsswe -v -n w", shell=True, cwd=folder, check=True, capture_output=True)
        report = open(f"{folder}/w.stats.mapsswe").read()
        pairs_of_right = open(f"{folder}/v.stats.mcn").read()
        unified = open(f"{folder}/u.stats.unified").read()
    number = lambda pattern, text: float(re.search(pattern, text).group(1))
    table = re.search(r"first +corr +(\d+) +(\d+)\n\s+incorr +(\d+) +(\d+)", pairs_of_right).groups()
    p = re.search(r"occurring is ([\d.]+)", pairs_of_right)
    return {
        "name": name, "ids": ids, "reference": sides["r"], "first": sides["first"], "second": second,
        "segments": int(number(r"# segs: (\d+)", report)), "mean": number(r"mean: (-?[\d.]+)", report),
        "std": number(r"std dev: (-?[\d.]+)", report), "z": number(r"Z Stat: (-?[\d.]+)", report),
        "mapsswe_p": re.search(r"MP +\|\| +first +\| +\| +\S+ +(<?[\d.]+)", unified).group(1),
        "both_right, only_first, only_second, none": [int(n) for n in table],
        "mcnemar_p": float(p.group(1)) if p else 1.0,
    }


def leaderboard(folder):
    package = types.ModuleType("lb")
    package.__path__ = [folder]
    sys.modules["lb"] = package
    for name in ("english_abbreviations", "normalizer"):
        spec = importlib.util.spec_from_file_location(f"lb.{name}", f"{folder}/{name}.py")
        sys.modules[f"lb.{name}"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[f"lb.{name}"])
    return sys.modules["lb.normalizer"].EnglishTextNormalizer(), sys.modules["lb.english_abbreviations"]


texts = pairs(100, 0.1, 2) + pairs(100, 0.35, 2, 12) + few_words(100, 2)
columns = {
    "jiwer": jiwer_counts(texts),
    "sclite": sclite_counts(texts)[0],
    "kaldialign_merge_compounds": kaldialign_counts(texts, merge_compounds=True),
}
write("pairs.jsonl", [{"reference": r, "hypothesis": h, **{name: counts[i] for name, counts in columns.items()}} for i, (r, h) in enumerate(texts)])

texts = marked(300, 2)
write("markup.jsonl", [{"reference": r, "hypothesis": h, "csdi": counts} for (r, h), counts in zip(texts, sclite_all(texts))])

rows = []
for glm in ("en20030506", "en20090415"):
    texts = spoken(150, glm, 2)
    plain = [text.replace("(", "").replace(")", "") for text in texts]
    path = f"{ROOT}/src/eval/glm/{glm}.glm"
    both = zip(texts, mapped(texts, path, "ref"), plain, mapped(plain, path, "hyp"))
    rows += [{"glm": glm, "reference": r, "mapped_reference": mr, "hypothesis": h, "mapped_hypothesis": mh} for r, mr, h, mh in both]
write("glm.jsonl", rows)

draw = random.Random("second")
texts = pairs(300, 0.1, 4, 10)
worse = [" ".join(w for w in (w if draw.random() > 0.14 else draw.choice(["zz", "", w + " yy"]) for w in r.split()) if w) for r, _ in texts]
few = [(r, h if i % 20 == 0 else r) for i, (r, h) in enumerate(pairs(200, 0.3, 6, 10))]
close = [r if draw.random() > 0.05 else r + " zz" for r, _ in few]
write("significance.jsonl", [significance("worse", texts, worse, 8), significance("close", few, close, 8)])

normalize, tables = leaderboard(sys.argv[3])
lines = [row["in"] for row in json.load(open(sys.argv[2]))]
oracle = [json.loads(line) for line in open(f"{sys.argv[1]}/english_normalizer.jsonl")]
lines += [row["input"] for row in oracle if row.get("category") in ("handwritten", "token_soup", "codepoint", "whitespace_variants")]
lines += [row["input"] for row in oracle if row.get("category") == "generated"][::10]
lines += [" ".join(list(tables.english_name_normalizer)[i : i + 10]) for i in range(0, len(tables.english_name_normalizer), 10)]
lines += [" ".join(list(tables.english_spelling_normalizer)[i : i + 20]) for i in range(0, len(tables.english_spelling_normalizer), 20)]
lines += [f"{word}'s {word.title()}'s" for word in "it he she what that who here there how when where why this they let dog".split()]
lines += ["hmm mm mhm mmm uh um ah aha ahh ahm eh ehehe em hm huh hum mhum uhm umm uhuh oh"]
lines += list(pattern.replace("\\b", "").replace("\\s+", " ") for pattern in tables.english_compound_normalizer)
draw = random.Random("leaderboard")
parts = "et cetera al all right how ever wi fi hi lo sci e mail book commerce x ray t shirt a m p m o k ok kay i b c 5 one it's he's smith's who's Jon Kathy huh, uhuh aha uh-huh U.S.A. wi-fi $5 3.5 % é".split(" ")
lines += [draw.choice([" ", " ", " ", "-", "  ", ", "]).join(draw.choice(parts) for _ in range(draw.randint(2, 9))) for _ in range(200)]
write("leaderboard.jsonl", [{"input": line, "expected": normalize(line)} for line in lines])
write("whisper_vectors.jsonl", [{"input": row["in"], "expected": row["openai-20250625"]} for row in json.load(open(sys.argv[2]))])
