"""Times Hugging Face's ParakeetForCTC (PyTorch) and ours on the same checkpoint of the 0.6b geometry: opening it, and 11 s of audio.

    pip install torch transformers safetensors "numpy<2"
    cargo bench --bench published --no-run
    python3 benchmarks/published_peer.py BENCH_BINARY --config parakeet-ctc-0.6b.config.json --preprocessor preprocessor_config.json --out benchmarks/results/published.json

The weights are random (the real ones cannot be had everywhere; time does not depend on them), made by the library itself from the
published configuration and saved as f32 (2.4 GB) and as bf16. Features are noise, the logits of the library in f32 are the truth ours is held to.
Both take turns, `--rounds` times, on `--threads` threads; batch 1. "Opening" is from the path to a model that can run; beside it, a plain read
of the same file into memory. All files are in the page cache, for both.
"""
import argparse
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import transformers
from safetensors.torch import save_file

FRAMES = 1100  # 11 s


def write_tokenizer(folder, pieces):
    """A vocabulary of the right size: what it spells is of no matter here."""
    words = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    special = lambda i, content: {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
             "byte_fallback": False, "ignore_merges": False, "vocab": {"<unk>" if i == 0 else chr(0x4E00 + i): i for i in range(pieces)}, "merges": []}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [special(0, "<unk>"), special(pieces, "<pad>")], "normalizer": None,
                 "pre_tokenizer": words, "post_processor": None, "decoder": words, "model": model}
    with open(os.path.join(folder, "tokenizer.json"), "w") as f:
        json.dump(tokenizer, f)


def make(folder, config_path, preprocessor):
    """The f32 and bf16 checkpoints, features and the f32 logits."""
    torch.manual_seed(0)
    with open(config_path) as f:
        config = transformers.ParakeetCTCConfig.from_dict(json.load(f))
    model = transformers.ParakeetForCTC(config).float().eval()
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        at = os.path.join(folder, name)
        model.to(dtype).save_pretrained(at, max_shard_size="100GB")
        shutil.copy(preprocessor, os.path.join(at, "preprocessor_config.json"))
        write_tokenizer(at, config.vocab_size - 1)
        # Both are held to the logits of their own weights, in f32.
        held = model.float()
        features = torch.randn(1, FRAMES, config.encoder_config.num_mel_bins, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            logits = held(features, attention_mask=torch.ones(1, FRAMES, dtype=torch.bool)).logits
        save_file({"features": features, "logits": logits.contiguous()}, os.path.join(at, "io.safetensors"))


def theirs(folder, dtype, seconds):
    """Seconds of opening, milliseconds of each forward pass."""
    start = time.perf_counter()
    model = transformers.ParakeetForCTC.from_pretrained(folder, dtype=dtype).eval()
    opened = time.perf_counter() - start
    from safetensors.torch import load_file
    features = load_file(os.path.join(folder, "io.safetensors"))["features"].to(dtype)
    mask, times = torch.ones(1, FRAMES, dtype=torch.bool), []
    with torch.inference_mode():
        model(features, attention_mask=mask)
        begun = time.perf_counter()
        while len(times) < 3 or time.perf_counter() - begun < seconds:
            start = time.perf_counter()
            model(features, attention_mask=mask)
            times.append(1e3 * (time.perf_counter() - start))
    return opened, times


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("bench")
    p.add_argument("--config", required=True)
    p.add_argument("--preprocessor", required=True)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=8.0)
    p.add_argument("--out")
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make(folder, o.config, o.preprocessor)
        for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
            at = os.path.join(folder, name)
            ours, peer, opened = [], [], []
            for _ in range(o.rounds):
                seconds, times = theirs(at, dtype, o.seconds)
                opened.append(seconds)
                peer += times
                said = subprocess.run([o.bench, "--model", at, "--io", os.path.join(at, "io.safetensors"), "--threads", str(o.threads), "--precision", name,
                                       "--seconds", str(o.seconds)], check=True, capture_output=True, text=True).stdout
                ours.append(json.loads(said.strip().splitlines()[-1]))
            times = [t for run in ours for t in run["times_ms"]]
            rows.append({
                "weights": name, "precision": name, "bytes": os.path.getsize(os.path.join(at, "model.safetensors")),
                "read_s": min(r["read_s"] for r in ours), "open_s": min(r["open_s"] for r in ours), "peer_open_s": min(opened),
                "ours_ms": {"best": min(times), "median": statistics.median(times)}, "peer_ms": {"best": min(peer), "median": statistics.median(peer)},
                "max_error": max(r["max_error"] for r in ours), "same_label": min(r["same_label"] for r in ours),
            })
            print(rows[-1], file=sys.stderr)
    result = {
        "benchmark": "published", "date": datetime.date.today().isoformat(), "cpu": re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read()).group(1),
        "command": "python3 benchmarks/published_peer.py BENCH_BINARY " + " ".join(sys.argv[2:]), "threads": o.threads,
        "torch": torch.__version__, "transformers": transformers.__version__, "rows": rows,
    }
    text = json.dumps(result, indent=1) + "\n"
    open(o.out, "w").write(text) if o.out else print(text)


if __name__ == "__main__":
    main()
