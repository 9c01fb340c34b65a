"""Times encoders of PyTorch (forward and training step, f32 and bf16) and of ONNX Runtime (forward, f32 and int8) beside our own bench (f32, bf16, int8)
on the same weights and inputs in the same run.

    python3 benchmarks/encoder_peers.py --export FOLDER                    (pip install torch numpy safetensors onnx onnxscript onnxruntime)
    python3 benchmarks/encoder_peers.py --export FOLDER --ours BENCH_BINARY --out RESULT.json

BENCH_BINARY is what `cargo bench --bench encoder --no-run` prints. Without it only the peers are timed and the folder written. All take turns (`--rounds`),
so load from outside hits each of them; best and median over all runs of the rounds are given. PyTorch's bf16 is autocast over f32 weights. ONNX Runtime
runs what `torch.onnx.export` makes of PyTorch's model (for each batch size its own, shapes fixed), its int8 is `quantize_dynamic` with signed weights per
channel. Experts choose shapes by values, which does not export: ONNX Runtime is missing there. Training is timed with the most threads only.

Cases (12 layers, d_model 256, d_ff 1024, 4 heads, 250 steps, 512 labels; no positions, no padding, no dropout; input goes straight into the first block):

    transformer   pre-norm, GELU (erf)                                                          forward, train
    conformer     half-step SiLU feed-forwards, convolution of 31 taps with batch norm          forward (stored statistics)
    conformer_ln  the same with a layer norm over channels in the place of the batch norm       forward, train
    moe           transformer whose feed-forwards are 4 experts, top-1, one router shared by    forward, train
                  all layers (no bias; f32 softmax; the chosen expert's output times its probability)
    moe8          the same with 8 experts: `experts.py` compares it with `transformer`          forward, train

FOLDER/<case>/ holds
    config.json         kind ("transformer" or "conformer"), layers, d_model, d_ff, heads, kernel, convolution_norm ("batch"/"layer"), experts (0 = dense), labels,
                        epsilon of every norm, and `train`: targets [batch][label], learning_rate, betas, epsilon, weight_decay, balance_weight
    model.safetensors   weights under the names below, PyTorch's layouts: linear `[out, in]`, depthwise `[d_model, 1, kernel]`
    b1.safetensors, b8.safetensors   `x` `[batch, 250, 256]`; `y` `[batch, 250, 512]`, the logits in f32, eval mode
    losses.json         {"b1": {"f32": [..], "bf16": [..]}, "b8": ..}: the loss of the first `STEPS` training steps from those weights, on that `x`

Names, i = layer, e = expert (all linears and norms have .weight and .bias unless said):
    layers.{i}.ln1, layers.{i}.attn.qkv (rows: q, k, v; each heads x d_head), layers.{i}.attn.o       x + attn(ln1(x))
    layers.{i}.ln2, layers.{i}.ffn.a, layers.{i}.ffn.b                                               + ffn(ln2(x)); times 1/2 in a conformer
    layers.{i}.ffn.experts.{e}.a, layers.{i}.ffn.experts.{e}.b   instead of ffn.a, ffn.b; router.weight [experts, d_model], once, reads ln2(x)
    conformer, before ln1:  layers.{i}.l0, layers.{i}.f0.a, layers.{i}.f0.b                          + 1/2 f0(l0(x))
    conformer, before ln2:  layers.{i}.cm.ln, .cm.p1 (GLU: first half times sigmoid of the second), .cm.dw, .cm.norm (batch: also .running_mean,
                            .running_var), SiLU, .cm.p2                                              + cm(x)
    conformer, at the end:  layers.{i}.le
    ln, head                                                                                         logits = head(ln(x))

Training step: forward, log-softmax and CTC (blank 0) in f32, loss = sum over the batch of the negative log-likelihood / number of labels in the batch
(+ balance_weight x sum over layers of experts x sum_e f_e rho_e, f the share of steps and rho the mean probability of expert e), backward, AdamW (decay on every parameter).

Our bench is called once per case and round as
    BENCH_BINARY --peers FOLDER --case NAME --mode forward|train --batch N --threads N --precision f32|bf16|int8 --seconds S
and prints, last on stdout, one JSON object: `times_ms` (list, one per timed run), and `max_error` (forward: largest |ours - y|) or `losses` (train: the
first `STEPS` losses, before any timing). Unknown cases: exit code 3, recorded as not supported.
"""
import argparse
import contextlib
import copy
import datetime
import json
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from machine import cpu_model

LAYERS, D_MODEL, D_FF, HEADS, KERNEL, LABELS, EXPERTS, TIME = 12, 256, 1024, 4, 31, 512, 4, 250
TARGETS, STEPS, BALANCE = 40, 3, 0.01
ADAMW = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
CASES = {
    "transformer": {"kind": "transformer", "convolution_norm": None, "experts": 0, "modes": ["forward", "train"]},
    "conformer": {"kind": "conformer", "convolution_norm": "batch", "experts": 0, "modes": ["forward"]},
    "conformer_ln": {"kind": "conformer", "convolution_norm": "layer", "experts": 0, "modes": ["forward", "train"]},
    "moe": {"kind": "transformer", "convolution_norm": None, "experts": EXPERTS, "modes": ["forward", "train"]},
    "moe8": {"kind": "transformer", "convolution_norm": None, "experts": 2 * EXPERTS, "modes": ["forward", "train"]},
}


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.o = nn.Linear(D_MODEL, 3 * D_MODEL), nn.Linear(D_MODEL, D_MODEL)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d))


class FeedForward(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.a, self.b, self.activation = nn.Linear(D_MODEL, D_FF), nn.Linear(D_FF, D_MODEL), activation

    def forward(self, x):
        return self.b(self.activation(self.a(x)))


class Experts(nn.Module):
    """Top-1 experts: steps are gathered by expert, and only the chosen expert is computed."""

    def __init__(self, experts):
        super().__init__()
        self.experts = nn.ModuleList([FeedForward(F.gelu) for _ in range(experts)])

    def forward(self, x, router):
        rows = x.reshape(-1, D_MODEL)
        with torch.autocast("cpu", enabled=False):
            probabilities = F.linear(rows.float(), router.weight).softmax(-1)
        gate, chosen = probabilities.max(-1)
        order = chosen.argsort()
        counts = torch.bincount(chosen, minlength=len(self.experts))
        parts = [expert(part) for expert, part in zip(self.experts, rows[order].split(counts.tolist())) if len(part)]
        y = torch.zeros_like(rows, dtype=parts[0].dtype).index_copy(0, order, torch.cat(parts)) * gate[:, None].to(parts[0].dtype)
        balance = len(self.experts) * (counts / len(rows) * probabilities.mean(0)).sum()
        return y.reshape(x.shape), balance


class Convolution(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.ln, self.p1, self.p2 = nn.LayerNorm(D_MODEL), nn.Linear(D_MODEL, 2 * D_MODEL), nn.Linear(D_MODEL, D_MODEL)
        self.dw = nn.Conv1d(D_MODEL, D_MODEL, KERNEL, padding=KERNEL // 2, groups=D_MODEL)
        self.norm = nn.BatchNorm1d(D_MODEL) if norm == "batch" else nn.LayerNorm(D_MODEL)

    def forward(self, x):
        x = self.dw(F.glu(self.p1(self.ln(x)), 2).transpose(1, 2))
        x = self.norm(x).transpose(1, 2) if isinstance(self.norm, nn.BatchNorm1d) else self.norm(x.transpose(1, 2))
        return self.p2(F.silu(x))


class Layer(nn.Module):
    def __init__(self, kind, convolution_norm, experts):
        super().__init__()
        self.conformer = kind == "conformer"
        activation = F.silu if self.conformer else F.gelu
        self.ln1, self.attn, self.ln2 = nn.LayerNorm(D_MODEL), Attention(), nn.LayerNorm(D_MODEL)
        self.ffn = Experts(experts) if experts else FeedForward(activation)
        if self.conformer:
            self.l0, self.f0, self.cm, self.le = nn.LayerNorm(D_MODEL), FeedForward(activation), Convolution(convolution_norm), nn.LayerNorm(D_MODEL)

    def forward(self, x, router):
        if self.conformer:
            x = x + 0.5 * self.f0(self.l0(x))
            x = x + self.attn(self.ln1(x))
            x = x + self.cm(x)
            return self.le(x + 0.5 * self.ffn(self.ln2(x))), None
        x = x + self.attn(self.ln1(x))
        if router is None:
            return x + self.ffn(self.ln2(x)), None
        y, balance = self.ffn(self.ln2(x), router)
        return x + y, balance


class Encoder(nn.Module):
    def __init__(self, kind, convolution_norm, experts):
        super().__init__()
        self.router = nn.Linear(D_MODEL, experts, bias=False) if experts else None
        self.layers = nn.ModuleList([Layer(kind, convolution_norm, experts) for _ in range(LAYERS)])
        self.ln, self.head = nn.LayerNorm(D_MODEL), nn.Linear(D_MODEL, LABELS)

    def forward(self, x):
        balance = []
        for layer in self.layers:
            x, b = layer(x, self.router)
            balance.append(b)
        return self.head(self.ln(x)), (sum(balance) if self.router is not None else None)


def build(case):
    """The case's model with random weights; norms and stored statistics away from 1 and 0, so that none can be mistaken or left out."""
    torch.manual_seed(list(CASES).index(case))
    c = CASES[case]
    model = Encoder(c["kind"], c["convolution_norm"], c["experts"])
    for module in model.modules():
        if isinstance(module, (nn.LayerNorm, nn.BatchNorm1d)):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.1, 0.1)
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.1, 0.5)
    if model.router is not None:  # spread choices: default weights give nearly equal probabilities
        nn.init.normal_(model.router.weight, std=0.3)
    return model


def inputs(batch):
    return torch.randn(batch, TIME, D_MODEL, generator=torch.Generator().manual_seed(batch))


def targets(batch):
    return [[1 + (b * TARGETS + i) * 7919 % (LABELS - 1) for i in range(TARGETS)] for b in range(batch)]


def autocast(precision):
    return torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def trainer(model, batch, precision):
    """A function that does one training step and returns its loss."""
    x, y = inputs(batch), torch.tensor(targets(batch))
    steps, lengths = torch.full((batch,), TIME), torch.full((batch,), TARGETS)
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
    model.train()

    def step():
        with autocast(precision):
            logits, balance = model(x)
        loss = F.ctc_loss(logits.float().log_softmax(2).transpose(0, 1), y, steps, lengths, reduction="sum") / (batch * TARGETS)
        if balance is not None:
            loss = loss + BALANCE * balance
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def export(folder):
    """Writes weights, inputs, outputs and first losses of every case that is not there yet."""
    torch.set_num_threads(2)
    for case, c in CASES.items():
        if os.path.exists(os.path.join(folder, case, "losses.json")):
            continue
        model, at = build(case).eval(), os.path.join(folder, case)
        os.makedirs(at, exist_ok=True)
        save_file({k: v.contiguous() for k, v in model.state_dict().items() if "num_batches" not in k}, os.path.join(at, "model.safetensors"))
        config = {"kind": c["kind"], "layers": LAYERS, "d_model": D_MODEL, "d_ff": D_FF, "heads": HEADS, "kernel": KERNEL if c["kind"] == "conformer" else None,
                  "convolution_norm": c["convolution_norm"], "experts": c["experts"], "labels": LABELS, "epsilon": 1e-5, "modes": c["modes"],
                  "train": {"targets": targets(8), "learning_rate": ADAMW["lr"], "betas": ADAMW["betas"], "epsilon": ADAMW["eps"],
                            "weight_decay": ADAMW["weight_decay"], "balance_weight": BALANCE}}
        json.dump(config, open(os.path.join(at, "config.json"), "w"), indent=1)
        losses = {}
        for batch in (1, 8):
            x = inputs(batch)
            with torch.inference_mode():
                save_file({"x": x, "y": model(x)[0].contiguous()}, os.path.join(at, f"b{batch}.safetensors"))
            if "train" in c["modes"]:
                losses[f"b{batch}"] = {}
                for precision in ("f32", "bf16"):
                    step = trainer(copy.deepcopy(model), batch, precision)
                    losses[f"b{batch}"][precision] = [step() for _ in range(STEPS)]
        json.dump(losses, open(os.path.join(at, "losses.json"), "w"), indent=1)


def timed(f, seconds):
    """Milliseconds of every run of `f` for about `seconds`, after two unmeasured ones."""
    f(), f()
    out, start = [], time.perf_counter()
    while len(out) < 3 or time.perf_counter() - start < seconds:
        t = time.perf_counter()
        f()
        out.append(1e3 * (time.perf_counter() - t))
    return out


def torch_times(a, case, mode, batch, threads, precision):
    torch.set_num_threads(threads)
    model = build(case)
    if mode == "train":
        return {"times_ms": timed(trainer(model, batch, precision), a.seconds)}
    model, x = model.eval(), inputs(batch)
    with torch.inference_mode(), autocast(precision):  # one context: autocast keeps its converted weights
        return {"times_ms": timed(lambda: model(x), a.seconds)}


class Logits(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)[0]


def onnx_file(a, case, batch, precision):
    """The exported model, made once."""
    path = os.path.join(a.export, case, f"b{batch}-{precision}.onnx")
    if not os.path.exists(path):
        if precision == "int8":
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(onnx_file(a, case, batch, "f32"), path, weight_type=QuantType.QInt8, per_channel=True)
        else:
            torch.onnx.export(Logits(build(case)).eval(), (inputs(batch),), path, dynamo=True, external_data=False, verbose=False)
    return path


def ort_times(a, case, mode, batch, threads, precision):
    import onnxruntime

    if CASES[case]["experts"]:
        return {"error": "experts do not export"}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(onnx_file(a, case, batch, precision), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: inputs(batch).numpy()}
    error = float(abs(session.run(None, feed)[0] - load_file(os.path.join(a.export, case, f"b{batch}.safetensors"))["y"].numpy()).max())
    return {"times_ms": timed(lambda: session.run(None, feed), a.seconds), "max_error": error}


def our_times(a, case, mode, batch, threads, precision):
    """Our bench's answer, or a dict with `error`."""
    command = [a.ours, "--peers", os.path.abspath(a.export), "--case", case, "--mode", mode, "--batch", str(batch), "--threads", str(threads),
               "--precision", precision, "--seconds", str(a.seconds)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"RAYON_NUM_THREADS": str(threads)})
    if done.returncode:
        return {"error": "not supported" if done.returncode == 3 else f"exit {done.returncode}: {done.stderr[-400:]}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def summary(times):
    return {"best_ms": round(min(times), 3), "median_ms": round(statistics.median(times), 3), "runs": len(times)}


# What is timed: a name, how, in which precision, in which modes.
ENGINES = {
    "ours f32": (our_times, "f32", ["forward", "train"]),
    "ours bf16": (our_times, "bf16", ["forward", "train"]),
    "ours int8": (our_times, "int8", ["forward"]),
    "torch f32": (torch_times, "f32", ["forward", "train"]),
    "torch bf16": (torch_times, "bf16", ["forward", "train"]),
    "ort f32": (ort_times, "f32", ["forward"]),
    "ort int8": (ort_times, "int8", ["forward"]),
}


def measure(a, case, mode, batch, threads):
    """One row: every engine in turns."""
    engines = [e for e, (f, _, modes) in ENGINES.items() if mode in modes and (a.ours or f is not our_times)]
    times, answers = {e: [] for e in engines}, {}
    for _ in range(a.rounds):
        for engine in engines:
            if "error" in answers.get(engine, {}):
                continue
            f, precision, _ = ENGINES[engine]
            answers[engine] = f(a, case, mode, batch, threads, precision)
            times[engine] += answers[engine].get("times_ms", [])
    row = {"case": case, "mode": mode, "batch": batch, "threads": threads, "engines": {}}
    for engine in engines:
        answer = answers[engine]
        if "error" in answer:
            row["engines"][engine] = {"error": answer["error"]}
            continue
        row["engines"][engine] = summary(times[engine]) | {k: answer[k] for k in ("max_error", "losses") if k in answer}
    if mode == "train":
        row["losses_torch"] = json.load(open(os.path.join(a.export, case, "losses.json")))[f"b{batch}"]
    return row


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--export", required=True, metavar="FOLDER", help="folder for weights and inputs; kept if it is complete")
    p.add_argument("--ours", metavar="BENCH_BINARY")
    p.add_argument("--out", metavar="RESULT.json")
    p.add_argument("--cases", nargs="*", default=[c for c in CASES if c != "moe8"], choices=list(CASES))
    p.add_argument("--modes", nargs="*", default=["forward", "train"], choices=["forward", "train"])
    p.add_argument("--batches", nargs="*", type=int, default=[1, 8])
    p.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=2.0, help="per engine and round")
    p.add_argument("--export-only", action="store_true")
    a = p.parse_args()
    export(a.export)
    if a.export_only:
        return
    rows, began = [], datetime.datetime.now(datetime.timezone.utc)
    grid = [(c, m, b, t) for c in a.cases for m in a.modes if m in CASES[c]["modes"] for b in a.batches for t in a.threads]
    for case, mode, batch, threads in [g for g in grid if g[1] == "forward" or g[3] == max(a.threads)]:
        rows.append(measure(a, case, mode, batch, threads))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    versions = {"torch": torch.__version__}
    with contextlib.suppress(ImportError):
        versions["onnxruntime"] = __import__("onnxruntime").__version__
    result = {"bench": "encoder_engines", "date": began.date().isoformat(), "cpu": cpu_model(), "load": os.getloadavg(),
              "versions": versions, "command": command(a), "rows": rows}
    text = json.dumps(result, indent=1)
    if a.out:
        with open(a.out + ".part", "w") as f:
            f.write(text + "\n")
        os.replace(a.out + ".part", a.out)
    print(text)


def command(a):
    """What was run, without paths of this machine."""
    words = ["--threads", *map(str, a.threads), "--rounds", str(a.rounds), "--seconds", f"{a.seconds:g}"]
    return " ".join(["python3 benchmarks/encoder_peers.py --export FOLDER --ours BENCH_BINARY", *words, "--out benchmarks/results/encoder-engines.json"])


if __name__ == "__main__":
    main()
