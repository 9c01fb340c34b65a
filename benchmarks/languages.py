"""Modules for languages against more experts at equal extra parameters: character and word error rates by language, and how often a language is identified.

    python3 benchmarks/languages.py prepare --speech ../shared/speech --out runs/languages
    python3 benchmarks/languages.py train BINARY --out runs/languages [--only NAME]
    python3 benchmarks/languages.py measure BINARY --out runs/languages --result benchmarks/results/languages.json

`prepare` writes two manifests and a model. Tested on: Common Voice clips of held-out speakers (by the hash of the speaker's name: 15 % of French, 45 % of
Portuguese, 30 % of the others) and 80 of the English Common Voice clips of dev.jsonl. Trained on: the other clips of multilingual.jsonl, and of train.jsonl the
Common Voice sets and one of audiobooks, without the speakers that are tested on. The models start from models/tiny, which writes a to z: texts lose their
accents, and foreign ones with digits are left out. The model that `prepare` writes is models/tiny with every expert twice and the same output but for the
noise that parts the copies' columns of the router (a bit in the last place of bfloat16): a copy halves the gate, which its last matrix makes up for.

`train` goes on with benchmarks/languages.toml from models/tiny as it is (3 experts), with modules, and from the one with twice as many experts. `measure`
has every utterance heard by each of them, with modules by its own module, by the shared one, and by the one that the model identifies.
"""
import argparse
import array
import datetime
import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata

LANGUAGES = ["de", "en", "es", "fr", "it", "nl", "pl", "pt"]
# Extra parameters of a layer of d_model 128 and d_ff 512: 9 slots * 3 experts * 2 matrices * rank 11 * 640 = 380,160 beside 3 * 131,712 = 395,136 of three
# more experts.
MODULES = f'{{field="lang",modules={json.dumps(LANGUAGES)},rank=11,layers=[1,2,3,4,5,6,7,8],places="last"}}'
TINY = "models/tiny"
KINDS = {"plain": [], "modules": [f"encoder.languages={MODULES}"], "experts": []}
ENGLISH = ["common-voice-13delta-korliu", "common-voice-deltas-shubhra", "librispeech-train-clean-100-sample"]


# Letters that do not come apart into a letter and its accent.
WHOLE = str.maketrans({"ß": "ss", "ł": "l", "ø": "o", "æ": "ae", "œ": "oe", "ð": "d", "đ": "d", "ʻ": "'", "’": "'"})


def folded(text):
    """Small letters without accents, as models/tiny writes them."""
    apart = unicodedata.normalize("NFKD", text.lower().translate(WHOLE))
    return "".join(c for c in apart if not unicodedata.combining(c))


def rows(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def held_out(row):
    share = {"fr": 0.15, "pt": 0.45}.get(row["lang"], 0.3)
    return "common-voice" in row["set"] and int(hashlib.sha1(row["speaker"].encode()).hexdigest(), 16) % 1000 < 1000 * share


def prepare(arguments):
    os.makedirs(arguments.out, exist_ok=True)
    speech = os.path.relpath(arguments.speech, arguments.out)
    multilingual = rows(os.path.join(arguments.speech, "multilingual.jsonl"))
    dev = [row for row in multilingual if held_out(row)]
    english = [row for row in rows(os.path.join(arguments.speech, "dev.jsonl")) if row["set"].startswith("common-voice")]
    dev += random.Random(0).sample(english, 80)
    tested = {row["speaker"] for row in dev + english}
    train = [row for row in multilingual if not held_out(row)]
    train += [row for row in rows(os.path.join(arguments.speech, "train.jsonl")) if row["set"] in ENGLISH]
    train = [row for row in train if row["speaker"] not in tested]
    spelled = lambda row: row["lang"] == "en" or not any(c.isdigit() for c in row["text"])
    train, dev = list(filter(spelled, train)), list(filter(spelled, dev))

    def write(name, lines, set_of):
        with open(os.path.join(arguments.out, name), "w") as file:
            for row in lines:
                kept = {key: row[key] for key in ["duration", "speaker", "lang"]}
                kept |= {"audio_filepath": os.path.join(speech, row["audio_filepath"]), "set": set_of(row), "text": folded(row["text"])}
                file.write(json.dumps(kept, ensure_ascii=False) + "\n")
        for language in LANGUAGES:
            own = [row for row in lines if row["lang"] == language]
            print(f"{name} {language}: {len(own)} clips, {sum(row['duration'] for row in own) / 60:.1f} min, {len({row['speaker'] for row in own})} speakers")

    corpus = {"kerstin-de": "kerstin-de", "asterisk-sounds-es": "asterisk-es", ENGLISH[2]: "books-en"}
    write("train.jsonl", train, lambda row: corpus.get(row["set"], f"cv-{row['lang']}"))
    write("dev.jsonl", dev, lambda row: row["lang"])
    twice(TINY, os.path.join(arguments.out, "twice"))


def twice(model, folder):
    """`model`, stored as bfloat16, with every expert twice."""
    with open(os.path.join(model, "model.safetensors"), "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    draw = random.Random(0)
    tensors, metadata, at, parts = {}, header.pop("__metadata__"), 0, []
    for name, tensor in sorted(header.items()):
        values, shape = data[slice(*tensor["data_offsets"])], list(tensor["shape"])
        assert tensor["dtype"] == "BF16"
        if ".experts." in name:
            if name.rsplit(".", 1)[1].startswith("down"):
                # Times two: the exponent is one more; what is smaller than a normal number stays.
                numbers = array.array("H", values)
                values = array.array("H", [n + 0x80 if n & 0x7F80 else n for n in numbers]).tobytes()
            values, shape[0] = values * 2, shape[0] * 2
        elif name.startswith("encoder.routers."):
            experts, numbers = shape[1], array.array("H", values)
            rows_of = [numbers[i : i + experts] for i in range(0, len(numbers), experts)]
            copied = [n for row in rows_of for n in list(row) + [n ^ draw.getrandbits(1) for n in row]]
            values, shape[1] = array.array("H", copied).tobytes(), 2 * experts
        tensors[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + len(values)]}
        at += len(values)
        parts.append(values)
    os.makedirs(folder, exist_ok=True)
    text = json.dumps({"__metadata__": metadata} | tensors).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(parts))
    with open(os.path.join(model, "config.json")) as file:
        config = json.load(file)
    layers, experts = map(int, config["encoder"]["feed_forward"]["groups"].split("x"))
    config["encoder"]["feed_forward"]["groups"] = f"{layers}x{2 * experts}"
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    shutil.copy(os.path.join(model, "tokenizer.json"), folder)


def train(arguments):
    for name, changes in KINDS.items():
        if arguments.only in (None, name):
            start = f"{arguments.out}/twice" if name == "experts" else TINY
            command = [arguments.binary, "train", "--config", "benchmarks/languages.toml", "--init", start]
            for change in [f"name={name}", f"output={arguments.out}/{name}"] + changes + arguments.set:
                command += ["--set", change]
            subprocess.run(command, check=True)


def bench(arguments, model, language):
    """Error rates by language, and their means over the languages."""
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "result.json")
        command = [arguments.binary, "bench", f"{arguments.out}/dev.jsonl", "-q", "--model", f"{arguments.out}/{model}/model"]
        command += ["--decoder", "greedy", "--dtype", "f32", "--normalizer", "basic", "-o", output]
        command += ["--language", language] if language else []
        # Exit code 1 tells of clips that could not be used: the same for all.
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode not in (0, 1):
            sys.exit(1)
        with open(output) as file:
            result = json.load(file)
    rates = {row["name"]: {"cer": row["cer"], "wer": row["wer"], "utterances": row["utterances"]} for row in result["sets"]}
    mean = {key: sum(row[key] for row in rates.values()) / len(rates) for key in ["cer", "wer"]}
    return {
        "model": model,
        "heard_by": language or "shared",
        "parameters": result["provenance"]["model"]["parameters"],
        "active": result["provenance"]["model"]["active_parameters"],
        "languages": rates,
        "mean": mean,
        "encoder_seconds": result["speed"]["shares"]["encoder"] * result["speed"]["compute_seconds"] / (1 - result["speed"]["shares"]["audio"]),
    }


def transcripts(arguments, files, language):
    """JSON of each file."""
    command = [arguments.binary, "transcribe", "-q", "-f", "json", "--decoder", "greedy", "--dtype", "f32", "--vad", "off"]
    command += ["--model", f"{arguments.out}/modules/model", "--language", language] + files
    out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout.decode()
    return {row["file"]: row for row in map(json.loads, out.splitlines())}


def identification(arguments):
    """How often the language is identified: by the head, and by the module whose words are the most confident on average."""
    lines = rows(f"{arguments.out}/dev.jsonl")
    language_of = {os.path.normpath(os.path.join(arguments.out, row["audio_filepath"])): row["lang"] for row in lines}
    files = list(language_of)
    start = time.time()
    head = {file: row["language"] for file, row in transcripts(arguments, files, "auto").items()}
    head_seconds = time.time() - start

    def confidence(row):
        words = row["words"]
        return sum(word["confidence"] for word in words) / len(words) if words else 0.0

    start = time.time()
    heard = {language: transcripts(arguments, files, language) for language in LANGUAGES}
    all_seconds = time.time() - start
    confident = {file: max(LANGUAGES, key=lambda language: confidence(heard[language][file])) for file in files}

    def accuracy(guesses):
        by_language = {}
        for language in LANGUAGES:
            own = [file for file in files if language_of[file] == language]
            by_language[language] = sum(guesses[file] == language for file in own) / len(own)
        return {"by_language": by_language, "mean": sum(by_language.values()) / len(by_language), "all": sum(guesses[f] == language_of[f] for f in files) / len(files)}

    confusion = {a: {b: sum(head[f] == b for f in files if language_of[f] == a) for b in LANGUAGES} for a in LANGUAGES}
    return {
        "utterances": len(files),
        "head": accuracy(head) | {"seconds": head_seconds, "confusion": confusion},
        "most_confident_module": accuracy(confident) | {"seconds": all_seconds},
        "always_english": sum(language == "en" for language in language_of.values()) / len(files),
    }


def measure(arguments):
    runs = [("plain", None), ("experts", None), ("modules", None), ("modules", "manifest"), ("modules", "auto")]
    with open("/proc/cpuinfo") as file:
        cpu = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    logs = {}
    for name in KINDS:
        lines = rows(f"{arguments.out}/{name}/log.jsonl")
        last = [line for line in lines if line["event"] == "train"][-1]
        logs[name] = {key: last.get(key) for key in ["step", "audio_hours", "loss", "divergence", "identified", "epoch"]}
    result = {
        "benchmark": "languages",
        "command": "python3 benchmarks/languages.py measure BINARY --out runs/languages --result benchmarks/results/languages.json",
        "cpu": cpu,
        "date": datetime.date.today().isoformat(),
        "about": arguments.about,
        "training": logs,
        "rows": [bench(arguments, model, language) for model, language in runs],
        "identification": identification(arguments),
    }
    with open(arguments.result, "w") as file:
        json.dump(result, file, indent=1, ensure_ascii=False)
        file.write("\n")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for function in [prepare, train, measure]:
        command = commands.add_parser(function.__name__)
        command.set_defaults(function=function)
        command.add_argument("--out", default="runs/languages")
        if function is prepare:
            command.add_argument("--speech", default="../shared/speech")
        else:
            command.add_argument("binary")
        if function is measure:
            command.add_argument("--result", default="benchmarks/results/languages.json")
            command.add_argument("--about", default="one seed for each model")
        if function is train:
            command.add_argument("--only", choices=KINDS)
            command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse()
    arguments.function(arguments)
