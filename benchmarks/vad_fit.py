"""Fits the classifier of src/audio/vad.rs and writes src/audio/vad/weights.rs and tests/golden/vad/reference.json.

    pip install numpy scipy soundfile torch
    python benchmarks/vad_fit.py ../shared/speech

`features` is the reference for the equations of vad.rs, written in plain array arithmetic; the golden file holds its output for a made-up
signal. Speech comes from train.jsonl, noise from every second entry of noise.jsonl, tones, hum, chords, knocks and white noise are
made here. Frames of the clean clip within 30 dB of its loud ones are speech; all others, and all frames of noise, are not.
"""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
WINDOW, HOP, RATE = 512, 256, 16000
BANDS = [3, 7, 12, 17, 23, 30, 37, 47, 57, 69, 83, 99, 117, 139, 163, 191, 224]  # bins: even steps of the mel scale, 94 Hz to 7 kHz
HALF, NEAR, SMOOTH, START = 16, 4, 2, 32  # frames
HIDDEN = 12
LEAST = -80.0  # dB: what is below counts as this
HANN = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)


def around(values, half):
    """Sums over the frames within `half` of each, and how many there are."""
    total = np.cumsum(np.concatenate([np.zeros((1,) + values.shape[1:]), values]), 0)
    n = len(values)
    low, high = np.maximum(np.arange(n) - half, 0), np.minimum(np.arange(n) + half + 1, n)
    return total[high] - total[low], (high - low).reshape((-1,) + (1,) * (values.ndim - 1))


def mean(values, half):
    total, count = around(values, half)
    return total / count


def deviation(values, half):
    return np.sqrt(np.maximum(mean(values * values, half) - mean(values, half) ** 2, 0))


def decibel(power):
    return 10 * np.log10(np.maximum(power, 1e-12))


def features(samples):
    """One row for each frame, centred at multiples of 256 samples."""
    x = np.concatenate([np.zeros(WINDOW // 2), np.asarray(samples, np.float64), np.zeros(WINDOW // 2)])
    count = (len(x) - WINDOW) // HOP + 1
    frames = x[HOP * np.arange(count)[:, None] + np.arange(WINDOW)] * HANN
    # Scaled so that the sum over all bins is the mean square of the frame.
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2 * 2 / (WINDOW * np.sum(HANN**2))
    bands = np.maximum(decibel(np.stack([power[:, a:b].sum(1) for a, b in zip(BANDS, BANDS[1:])], 1)), LEAST)
    whole = power[:, BANDS[0]:BANDS[-1]]
    # Floor of each band: falls fast, rises by at most 3 dB/s.
    smooth = mean(bands, SMOOTH)
    floor = np.zeros_like(bands)
    now = smooth[:START].min(0)
    for t in range(count):
        rise = smooth[t] - now
        now = now + np.where(rise < 0, 0.3 * rise, np.minimum(0.03 * rise, 0.05))
        floor[t] = now
    above = np.clip(bands - floor, 0, 25) / 25
    # Periodicity: the largest autocorrelation at lags of 80 to 400 Hz, of the band 94 to 3500 Hz, that of the window taken out.
    band = power.copy()
    band[:, :3], band[:, 112:] = 0, 0
    lags = np.arange(40, 201)
    shape = np.fft.irfft(np.abs(np.fft.rfft(HANN, 2 * WINDOW)) ** 2)[: WINDOW // 2]
    correlation = np.fft.irfft(band, axis=1)
    ratio = correlation[:, lags] / np.maximum(correlation[:, :1], 1e-12) / np.maximum(shape[lags] / shape[0], 0.2)
    period = np.clip(ratio.max(1), 0, 1)
    level = np.maximum(decibel(whole.sum(1)), LEAST)
    flatness = decibel(np.maximum(whole, 1e-12)).mean(1) - decibel(whole.mean(1))
    outline = bands - bands.mean(1, keepdims=True)
    rows = [
        np.sort(above, 1)[:, -5:].mean(1),
        mean(above.mean(1), HALF),
        mean(period, NEAR),
        mean(period, HALF),
        deviation(period, HALF) * 2,
        flatness / 20,
        decibel(np.maximum(power[:, 3:32].sum(1), 1e-12)) / 20 - decibel(np.maximum(power[:, 32:224].sum(1), 1e-12)) / 20,
        deviation(level, HALF) / 10,
        deviation(bands, HALF).mean(1) / 10,
        deviation(outline, HALF).mean(1) / 10,
    ]
    return np.stack(rows, 1), level


def load(path):
    import scipy.signal
    import soundfile

    x, rate = soundfile.read(path, dtype="float64")
    x = x if x.ndim == 1 else x.mean(1)
    divisor = math.gcd(rate, RATE)
    return x if rate == RATE else scipy.signal.resample_poly(x, RATE // divisor, rate // divisor)


def is_speech(samples):
    """Which frames of a clean clip are speech."""
    x = np.concatenate([np.zeros(WINDOW // 2), samples, np.zeros(WINDOW // 2)])
    count = (len(x) - WINDOW) // HOP + 1
    power = np.abs(np.fft.rfft(x[HOP * np.arange(count)[:, None] + np.arange(WINDOW)] * HANN, axis=1)) ** 2
    energy = decibel(power[:, 5:220].sum(1))
    return energy > max(np.percentile(energy, 95) - 30, np.percentile(energy, 5) + 6)


def made_up(kind, rng, seconds=8):
    """Sounds without speech."""
    n = seconds * RATE
    t = np.arange(n) / RATE
    if kind == 0:  # a tone, steady or rising
        start = rng.uniform(80, 3000)
        return 0.3 * np.sin(2 * np.pi * (start + rng.integers(0, 2) * rng.uniform(5, 300) * t) * t)
    if kind == 1:  # signals of a telephone: one or two tones that come and go
        one, two = rng.uniform(300, 1700, 2)
        period = 10 ** rng.uniform(-0.6, 0.8)
        lasts = np.mod(t, period) < period * rng.uniform(0.2, 0.8)
        tones = np.sin(2 * np.pi * one * t) + rng.integers(0, 2) * np.sin(2 * np.pi * two * t)
        return 0.1 * tones * lasts + rng.normal(0, 10 ** rng.uniform(-6, -3), n)
    x = rng.normal(0, 10 ** rng.uniform(-4, -2.5), n)
    if kind == 2:  # music of a kind: notes or chords with overtones that die away or swell, with or without a drum
        beat, overtones = rng.uniform(0.15, 0.8), int(rng.integers(2, 11))
        chord = [(1,), (1, 1.5), (1, 1.26, 1.5), (1, 1.19, 1.5, 1.78)][rng.integers(4)]
        scale, decay, base = rng.integers(5, 30), 10 ** rng.uniform(-0.5, 1), rng.uniform(60, 300)
        for start in np.arange(0, seconds, beat):
            i = int(start * RATE)
            d = np.arange(min(n - i, int(RATE * min(1.5 * beat, 1)))) / RATE
            root = base * 2 ** (rng.integers(0, scale) / 12)
            for note in chord:
                for h in range(1, overtones):
                    x[i:i + len(d)] += 0.06 / h * np.sin(2 * np.pi * root * note * h * d) * np.exp(-d * decay)
        if rng.uniform() < 0.5:
            every = beat / rng.integers(1, 5)
            x += rng.uniform(0.03, 0.3) * rng.normal(0, 1, n) * np.exp(-rng.uniform(10, 60) * np.mod(t, every))
    if kind == 3:  # white noise
        return rng.normal(0, 10 ** rng.uniform(-4, -1), n)
    if kind == 4:  # hum of the mains
        base = rng.choice([50, 60])
        return x + sum(0.05 / h ** rng.uniform(0.5, 1.5) * np.sin(2 * np.pi * base * h * t + rng.uniform(0, 6)) for h in range(1, 12))
    if kind == 5:  # knocks
        for start in rng.uniform(0, seconds, 2 * seconds):
            i = int(start * RATE)
            m = min(n - i, 3000)
            x[i:i + m] += rng.normal(0, 0.3, m) * np.exp(-np.arange(m) / rng.uniform(100, 800))
    return x


def training_set(speech):
    rng = np.random.default_rng(20260114)
    rows = [json.loads(line) for line in open(speech / "train.jsonl")]
    sets = {}
    for row in rows:
        if 1.5 < row["duration"] < 15:
            sets.setdefault(row["set"], []).append(row)
    noises = [json.loads(line) for line in open(speech / "noise.jsonl")]
    noises = [load(speech / n["audio_filepath"]) for n in noises if n["kind"] == "noise"][0::2]
    x, y, weight = [], [], []

    def add(samples, speech_frames, w):
        rows, _ = features(samples)
        x.append(rows)
        y.append(speech_frames if speech_frames is not None else np.zeros(len(rows), bool))
        weight.append(np.full(len(rows), w))

    for members in sets.values():
        for row in rng.permutation(len(members))[:16]:
            clip = load(speech / members[row]["audio_filepath"])
            clip = clip / max(np.abs(clip).max(), 1e-6) * 10 ** rng.uniform(-2, -0.05)
            mask = is_speech(clip)
            before = int(rng.uniform(0, 2) * RATE) // HOP * HOP
            mixed = np.concatenate([np.zeros(before), clip, np.zeros(RATE)])
            frames = np.zeros(len(mixed) // HOP + 1, bool)
            frames[before // HOP:before // HOP + len(mask)] = mask
            if rng.uniform() < 0.8:
                noise = noises[rng.integers(len(noises))] if rng.uniform() < 0.8 else made_up(int(rng.choice([3, 4])), rng)
                noise = np.resize(np.roll(noise, rng.integers(len(noise))), len(mixed))
                ratio = 10 ** (-rng.uniform(3, 30) / 20)
                mixed = mixed + noise * ratio * np.sqrt(np.mean(clip**2) / (np.mean(noise**2) + 1e-12))
            add(mixed, frames, 1.0)
    for noise in noises:
        for _ in range(2):
            add(noise[:40 * RATE] * 10 ** rng.uniform(-2, 0.2), None, 1.0)
    for kind in range(6):
        for _ in range(64 if kind == 2 else 24):
            add(made_up(kind, rng) * 10 ** rng.uniform(-1.5, 0), None, 1.0)
    return np.concatenate(x), np.concatenate(y), np.concatenate(weight)


def fit(x, y, weight):
    """One hidden layer of tanh, cross-entropy; the normalisation of the inputs folded into the first layer."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    shift, scale = x.mean(0), x.std(0)
    x, y, weight = [torch.tensor(np.asarray(v, np.float32)) for v in ((x - shift) / scale, y, weight)]
    net = torch.nn.Sequential(torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 1))
    steps = 4000
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        i = torch.randint(0, len(x), (4096,))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net(x[i])[:, 0], y[i], weight[i])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        logits = net(x)[:, 0]
        for threshold in (-2, -1, 0):
            print(f"frames: logit > {threshold}: {(logits[y > 0] > threshold).float().mean():.3f} of speech, {(logits[y == 0] > threshold).float().mean():.3f} of the rest")
    first, bias, second, last = [p.detach().double().numpy() for p in net.parameters()]
    first = first / scale
    bias = bias - first @ shift
    return [np.round(v, 4) for v in (first, bias, second[0], last)]


def logit(rows, weights):
    first, bias, second, last = weights
    return np.tanh(rows @ first.T + bias) @ second + last[0]


def write_weights(weights):
    first, bias, second, last = weights
    row = lambda v: "[" + ", ".join(f"{x:.4f}" for x in v) + "]"
    text = f"""//! Weights of the classifier of `vad.rs`, made by `benchmarks/vad_fit.py`; do not edit.

use super::features::FEATURES;

/// Units of the hidden layer.
pub(super) const HIDDEN: usize = {HIDDEN};

#[expect(clippy::approx_constant, reason = "a weight may lie near a constant")]
/// `W`, a row for each hidden unit.
pub(super) const FIRST: [[f32; FEATURES]; HIDDEN] = [
""" + "".join(f"    {row(r)},\n" for r in first) + f"""];

/// `b`
pub(super) const FIRST_BIAS: [f32; HIDDEN] = {row(bias)};

/// `v`
pub(super) const SECOND: [f32; HIDDEN] = {row(second)};

/// `c`
pub(super) const SECOND_BIAS: f32 = {last[0]:.4f};
"""
    path = ROOT / "src/audio/vad/weights.rs"
    path.write_text(text)
    subprocess.run(["rustfmt", "--edition", "2024", "--config-path", ROOT, path], check=True)


def golden(weights):
    """A signal anyone can make: whole-number samples of a vowel-like pulse train in noise of a small generator."""
    seed, samples = 1, []
    for i in range(24000):
        seed = (seed * 1664525 + 1013904223) % 2**32
        noise = (seed >> 16) / 65536 - 0.5
        voice = 0.0
        if 6000 <= i < 16000:
            pitch = 100 + (i - 6000) / 250
            phase = (i * pitch / RATE) % 1
            voice = 0.5 * math.exp(-8 * phase) * math.sin(2 * math.pi * 7 * phase) * math.sin(math.pi * ((i - 6000) % 3000) / 3000)
        samples.append(round((0.01 * noise + voice) * 32768))
    rows, level = features(np.array(samples) / 32768)
    folder = ROOT / "tests/golden/vad"
    folder.mkdir(parents=True, exist_ok=True)
    out = {"samples": samples, "features": np.round(rows, 6).tolist(), "level": np.round(level, 4).tolist(), "logit": np.round(logit(rows, weights), 5).tolist()}
    (folder / "reference.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    fitted = fit(*training_set(Path(sys.argv[1])))
    write_weights(fitted)
    golden(fitted)
