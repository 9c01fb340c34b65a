"""Makes the golden files of this folder with KenLM: `lmplz` and `build_binary` from its sources, the PyPI package `kenlm` for scores.

    python3 make.py --bin KENLM/build/bin --text books-en.txt.xz --oracles ORACLES

- `corpus.txt`: sentences of public-domain books, lower-cased, the first two lines on
- `kneser_ney_*.arpa.gz`: what `lmplz` makes of it; the name says order, pruning and options
- `holes.arpa`: `lm3.arpa` of the oracles without some bigrams that trigrams end in, as some programs prune
- `*.probing`, `*.trie*`: `build_binary` of `lm3.arpa` and `holes.arpa`: plain, quantised (q), array-compressed (a), both (qa)
- `scores.json`: by file, log10 scores of the words of each sentence and of its end
"""
import argparse
import gzip
import json
import lzma
import os
import random
import re
import shutil
import subprocess

import kenlm

LINES = 260
MODELS = {"3": ["-o", "3"], "4_0_0_1_fallback": ["-o", "4", "--prune", "0", "0", "1", "--discount_fallback"], "2_limited": ["-o", "2", "--limit_vocab_file", "limit.txt"], "1": ["-o", "1"]}
BINARIES = {"probing": ["probing"], "trie": ["trie"], "trie_q": ["-q", "6", "-b", "5", "trie"], "trie_a": ["-a", "22", "trie"], "trie_qa": ["-a", "22", "-q", "5", "-b", "6", "trie"]}


def grams(arpa):
    """N-grams of an ARPA file with their line numbers."""
    found, order = [], 0
    for number, line in enumerate(open(arpa, encoding="utf-8")):
        header = re.match(r"\\(\d)-grams:", line)
        if header:
            order = int(header.group(1))
        elif order and line.strip() and not line.startswith("\\"):
            found.append((tuple(line.split("\t")[1].split()), number))
    return found


def punch(source, target):
    """Leaves out every third bigram that is a suffix of trigrams, and the trigrams that it is a context of."""
    entries = grams(source)
    suffixes = {g[1:] for g, _ in entries if len(g) == 3}
    holes = {g for g, _ in [(g, n) for g, n in entries if len(g) == 2 and g in suffixes and "<s>" not in g][::3]}
    gone = {2: {n for g, n in entries if g in holes}, 3: {n for g, n in entries if len(g) == 3 and g[:2] in holes}}
    text = "".join(line for n, line in enumerate(open(source, encoding="utf-8")) if n not in gone[2] | gone[3])
    for order, lines in gone.items():
        text = re.sub(rf"ngram {order}=(\d+)", lambda found: f"ngram {order}={int(found.group(1)) - len(lines)}", text)
    open(target, "w", encoding="utf-8").write(text)


def scores(model, sentences):
    rows = []
    for sentence in sentences:
        state, after, row = kenlm.State(), kenlm.State(), []
        model.BeginSentenceWrite(state)
        for word in sentence.split() + ["</s>"]:
            row.append(round(model.BaseScore(state, word, after), 6))
            state, after = after, state
        rows.append(row)
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--bin", required=True)
    p.add_argument("--text", required=True)
    p.add_argument("--oracles", required=True)
    o = p.parse_args()
    r = random.Random(7)
    run = lambda program, *a: subprocess.run([os.path.join(o.bin, program), *a], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with lzma.open(o.text, "rt", encoding="utf-8") as f, open("corpus.txt", "w") as out:
        clean = (" ".join(re.sub(r"[^a-z' ]", " ", line.lower()).split()) for line in f)
        out.writelines(line + "\n" for line, _ in zip((c for c in clean if 3 <= len(c.split()) <= 12), range(LINES)))
    words = open("corpus.txt").read().split()
    open("limit.txt", "w").write("\n".join(sorted({w for w in words if words.count(w) > 2})) + "\n")
    for name, flags in MODELS.items():
        run("lmplz", *flags, "-S", "200M", "--text", "corpus.txt", "--arpa", "x.arpa")
        with open("x.arpa", "rb") as f, open(f"kneser_ney_{name}.arpa.gz", "wb") as out:
            out.write(gzip.compress(f.read(), 9, mtime=0))
    os.remove("x.arpa")
    source = os.path.join(o.oracles, "05_ctc_decode")
    shutil.copy(os.path.join(source, "lm3.arpa"), "x.arpa")
    punch("x.arpa", "holes.arpa")
    known = [g for g, _ in grams("x.arpa") if "<s>" not in g and "</s>" not in g]
    sentences = [" ".join(w if r.random() < 0.97 else "qqq" for _ in range(5) for w in r.choice(known)) for _ in range(40)]
    files = {}
    for base, arpa in (("lm3", "x.arpa"), ("holes", "holes.arpa")):
        for kind, flags in BINARIES.items():
            if base == "lm3" or kind in ("probing", "trie"):
                run("build_binary", *flags, arpa, f"{base}.{kind}")
                files[f"{base}.{kind}"] = scores(kenlm.Model(f"{base}.{kind}"), sentences)
    files["holes.arpa"] = scores(kenlm.Model("holes.arpa"), sentences)
    os.remove("x.arpa")
    json.dump({"sentences": sentences, "scores": files}, open("scores.json", "w"), separators=(",", ":"))


if __name__ == "__main__":
    main()
