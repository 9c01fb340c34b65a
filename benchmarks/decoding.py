"""Times pyctcdecode and Flashlight's decoders beside our beam search on the same emissions with the same settings in the same run.

    cargo build --release --bench decoding
    python3 benchmarks/decoding.py BENCH_BINARY [--oracles FOLDER] [--rounds N] [--seconds S] [--out RESULT.json]
        (pip install pyctcdecode kenlm flashlight-text "numpy<2" safetensors)

The emissions, language model, lexicon and settings are those of the golden data (`05_ctc_decode`: noisy emissions of short sentences, 29 characters). Times are
processor time of one thread, best pass; peers and ours take turns. Building a decoder and reading its language model are not timed. Ours gets what the peer gets:
the same width, thresholds, weights, and the best path's score where the peer's is that. Language models weigh log10 in Flashlight and in pyctcdecode's penalty;
ours gets the same in nats.

`score`: the mean over utterances of ours minus the peer's score, both texts by our formula without pruning: above 0 ours is the better search. A peer's text outside
the closed lexicon is left out there (`outside`). `word_errors`: of the utterances that have a reference. `ms_per_audio_s` takes a step for 40 ms.
"""
import argparse
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version

import numpy as np
from safetensors.numpy import load_file, save_file

STEP_S = 0.04
LN10 = math.log(10)


def word_errors(reference, text):
    reference, text = reference.split(), text.split()
    row = list(range(len(text) + 1))
    for i, word in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(text, 1):
            diagonal, row[j] = row[j], min(diagonal + (word != other), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def pyctcdecode(folder, labels, variant, spec, build):
    """A function from log-probabilities to text, and our settings for the same."""
    from pyctcdecode import build_ctcdecoder

    call = dict(spec["call"])
    names = ["" if i == 0 else label for i, label in enumerate(labels)]
    settings = {"beam_width": call["beam_width"], "token_min_log_prob": call.get("token_min_logp", -5.0),
                "beam_prune_log_prob": call.get("beam_prune_logp", -10.0), "paths": "sum"}
    arguments = {}
    if build is not None:
        unigrams = open(f"{folder}/unigrams.txt").read().split()
        arguments = {"kenlm_model_path": f"{folder}/lm3.arpa", "unigrams": unigrams, **build}
        settings |= {"lm": f"{folder}/lm3.arpa", "alpha": build["alpha"], "beta": build["beta"],
                     "oov_penalty": build["alpha"] * build["unk_score_offset"] * LN10,
                     "ends": "sentence" if build["lm_score_boundary"] else "fragment"}
    if "hotwords" in call:
        settings["hotwords"] = ",".join(f"{word}:{call['hotword_weight']}" for word in call["hotwords"])
    decoder = build_ctcdecoder(names, **arguments)
    return lambda log_probs: decoder.decode_beams(log_probs, **call)[0][0], settings


def flashlight(folder, labels, variant, spec, _):
    from flashlight.lib.text import decoder as fl
    from flashlight.lib.text.dictionary import Dictionary

    # Its silence is our space; its beams end with it.
    tokens = Dictionary(["-", "|"] + labels[2:])
    blank, silence, vocab = 0, 1, len(labels)
    common = {"beam_size": spec["beam_size"], "beam_size_token": vocab, "beam_threshold": spec["beam_threshold"], "sil_score": 0.0, "log_add": spec["log_add"],
              "criterion_type": fl.CriterionType.CTC, "lm_weight": spec.get("lm_weight", 0.0)}
    settings = {"beam_width": spec["beam_size"], "token_min_log_prob": None, "beam_prune_log_prob": -spec["beam_threshold"],
                "paths": "sum" if spec["log_add"] else "best"}
    if spec["lexicon"] is None:
        decoder = fl.LexiconFreeDecoder(fl.LexiconFreeDecoderOptions(**common), fl.ZeroLM(), silence, blank, [])
    else:
        entries = [line.rstrip("\n").split("\t") for line in open(f"{folder}/{spec['lexicon']}") if line.strip()]
        words = Dictionary([word for word, _ in entries] + ["<unk>"])
        lm = fl.ZeroLM()
        if spec["lm"]:
            from flashlight.lib.text.decoder.kenlm import KenLM
            lm = KenLM(f"{folder}/{spec['lm']}", words)
        trie, start = fl.Trie(vocab, silence), lm.start(False)
        for word, spelling in entries:
            index = words.get_index(word)
            trie.insert([tokens.get_index(token) for token in spelling.split()], index, lm.score(start, index)[1])
        trie.smear(fl.SmearingMode.MAX)
        options = fl.LexiconDecoderOptions(word_score=spec.get("word_score", 0.0), unk_score=-math.inf, **common)
        decoder = fl.LexiconDecoder(options, trie, lm, silence, blank, words.get_index("<unk>"), [], False)
        settings["lexicon"] = f"{folder}/{spec['lexicon']}"
        if spec["lm"]:
            settings |= {"lm": f"{folder}/{spec['lm']}", "alpha": spec["lm_weight"] / LN10, "beta": spec["word_score"]}

    def decode(log_probs):
        path = decoder.decode(log_probs.ctypes.data, *log_probs.shape)[0].tokens
        letters = [token for token, before in zip(path, [-1] + path) if token != before and token != blank]
        return " ".join("".join(" " if token == silence else labels[token] for token in letters).split())

    return decode, settings


def builds(variants):
    """pyctcdecode's constructor arguments of each variant, from their description in words."""
    found = {}
    for variant in variants:
        words = variants["_build"].get(variant, "no LM")
        while words.startswith("as "):
            words = variants["_build"][words[3:]]
        if words == "no LM":
            found[variant] = None
            continue
        words = words.split()
        given = {name: value for name, value in zip(words, words[1:])}
        number = lambda name, default: float(given.get(name, default))
        found[variant] = {"alpha": number("alpha", 0.5), "beta": number("beta", 1.5), "unk_score_offset": number("unk_score_offset", -10.0),
                          "lm_score_boundary": given.get("lm_score_boundary", "True") == "True"}
    return found


def document(rows, audio_s):
    """The result's file: it is written after each row, so that a run that is cut short leaves what it measured."""
    cpu = next((line.split(": ")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    return {
        "benchmark": "decoding", "date": datetime.date.today().isoformat(), "cpu": cpu, "cores": os.cpu_count(), "load": list(os.getloadavg()),
        "command": "python3 benchmarks/decoding.py BENCH_BINARY " + " ".join(sys.argv[2:]), "step_s": STEP_S, "audio_s": round(audio_s, 2),
        "versions": {name: version(name) for name in ("pyctcdecode", "kenlm", "flashlight-text", "numpy")} | {"python": platform.python_version()},
        "rows": rows,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--oracles", default=os.environ.get("OMNISCRIBE_ORACLES", "../shared/oracles"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--variants", nargs="*", help="only these, in this order; all without")
    parser.add_argument("--out")
    args = parser.parse_args()
    folder = os.path.abspath(f"{args.oracles}/05_ctc_decode")
    labels = json.load(open(f"{folder}/labels.json"))
    assert (labels["blank_id"], labels["space_id"]) == (0, 1)
    labels = labels["labels"]
    logits = {name.removesuffix(".logits"): x.astype(np.float64) for name, x in load_file(f"{folder}/emissions.safetensors").items()}
    emissions = {}
    for name, x in sorted(logits.items()):
        x = x - x.max(1, keepdims=True)
        emissions[name] = np.ascontiguousarray((x - np.log(np.exp(x).sum(1, keepdims=True))).astype(np.float32))
    references = {row["name"]: row["ref"] for row in map(json.loads, open(f"{folder}/emissions.jsonl")) if row["ref"] is not None}
    audio_s = STEP_S * sum(len(x) for x in emissions.values())
    work = tempfile.mkdtemp()
    save_file(emissions, f"{work}/emissions.safetensors")

    cases = []
    for peer, make in (("pyctcdecode", pyctcdecode), ("flashlight", flashlight)):
        variants = json.load(open(f"{folder}/{peer}_variants.json"))
        build = builds(variants) if peer == "pyctcdecode" else {}
        cases += [(peer, make, name, spec, build.get(name)) for name, spec in variants.items() if not name.startswith("_")]
    if args.variants:
        cases = sorted((case for case in cases if case[2] in args.variants), key=lambda case: args.variants.index(case[2]))
    rows = []
    for peer, make, variant, spec, build in cases:
        decode, settings = make(folder, labels, variant, spec, build)
        settings |= {"labels": ["" if i == 0 else label for i, label in enumerate(labels)], "blank": 0}
        path = f"{work}/settings.json"
        json.dump(settings, open(path, "w"))
        command = [args.binary, "--emissions", f"{work}/emissions.safetensors", "--settings", path]

        def ours(*more):
            return json.loads(subprocess.run(command + list(more), capture_output=True, check=True, text=True).stdout)

        times = {"peer": math.inf, "ours": math.inf}
        for _ in range(args.rounds):
            passes, start = 0, time.monotonic()
            while passes < 1 or time.monotonic() - start < args.seconds:
                before = time.process_time()
                theirs = {name: decode(x) for name, x in emissions.items()}
                times["peer"] = min(times["peer"], time.process_time() - before)
                passes += 1
            answer = ours("--seconds", str(args.seconds))
            times["ours"] = min(times["ours"], answer["cpu_s"])
        scores = {}
        for who, texts in (("ours", answer["texts"]), ("peer", theirs)):
            json.dump(texts, open(f"{work}/texts.json", "w"))
            scores[who] = ours("--score", f"{work}/texts.json")["scores"]
        outside = []
        if "lexicon" in settings:
            known = {line.split("\t")[0] for line in open(settings["lexicon"])}
            outside = [name for name, text in theirs.items() if not set(text.split()) <= known]
        both = [name for name in emissions if name not in outside and scores["peer"][name] is not None]
        row = {
            "peer": peer, "variant": variant, "beam_width": settings["beam_width"],
            "peer_ms_per_audio_s": round(1e3 * times["peer"] / audio_s, 4), "ours_ms_per_audio_s": round(1e3 * times["ours"] / audio_s, 4),
            "times_faster": round(times["peer"] / times["ours"], 2),
            "score_above_peer": round(sum(scores["ours"][n] - scores["peer"][n] for n in both) / len(both), 4),
            "score_above_peer_least": round(min(scores["ours"][n] - scores["peer"][n] for n in both), 4),
            "same_text": sum(answer["texts"][n] == theirs[n] for n in emissions), "utterances": len(emissions), "outside": len(outside),
            "word_errors_ours": sum(word_errors(r, answer["texts"][n]) for n, r in references.items()),
            "word_errors_peer": sum(word_errors(r, theirs[n]) for n, r in references.items()),
            "reference_words": sum(len(r.split()) for r in references.values()),
        }
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        if args.out:
            with open(args.out, "w") as out:
                out.write(json.dumps(document(rows, audio_s), indent=1) + "\n")
    if not args.out:
        print(json.dumps(document(rows, audio_s), indent=1))


if __name__ == "__main__":
    main()
