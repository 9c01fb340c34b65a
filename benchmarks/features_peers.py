"""Times kaldi-native-fbank and librosa on 10 minutes of audio, one thread, beside our own bench on the same samples in the same run.

Usage: features_peers.py [BENCH_BINARY] [--rounds N] [--out RESULT.json]      (pip install numpy librosa kaldi-native-fbank)
BENCH_BINARY is what `cargo bench --bench features --no-run` prints. Ours and the peers take turns on one core, so load from outside hits
all of them; best and median over the rounds are given, and ratios are peer seconds / our seconds for the same kind of features. Peers are
timed in their favour: kaldi-native-fbank without the conversion of samples and frames from and to Python, and no utterance statistics."""
import argparse, datetime, json, os, platform, statistics, subprocess, sys, tempfile, time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"
import kaldi_native_fbank as knf
import librosa
import numpy as np

arguments = argparse.ArgumentParser()
arguments.add_argument("bench", nargs="?")
arguments.add_argument("--rounds", type=int, default=7)
arguments.add_argument("--out")
A = arguments.parse_args()
RATE, SECONDS = 16_000, 600


def audio():
    """Noise bursts with a gliding tone, in [-1, 1]."""
    t = np.arange(RATE * SECONDS) / RATE
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, len(t))
    return (noise * np.abs(np.sin(2 * np.pi * 1.3 * t)) + 0.3 * np.sin(2 * np.pi * (200 + 100 * np.sin(t)) * t)).astype(np.float32)


def knf_frames(make, options, x):
    options.frame_opts.dither = 0
    samples = x.tolist()  # converted faster than an array
    raw, online = knf.OnlineRawAudioSamples(knf.RawAudioSamplesOptions()), make(options)
    start = time.perf_counter()
    raw.accept_waveform(RATE, samples)  # stores them only: the cost of the Python binding
    converted = time.perf_counter()
    online.accept_waveform(RATE, samples)
    online.input_finished()
    return time.perf_counter() - converted - (converted - start), online.num_frames_ready


def timed(run):
    start = time.perf_counter()
    frames = run().shape[1]
    return time.perf_counter() - start, frames


def knf_kaldi(x):
    options = knf.FbankOptions()
    options.mel_opts.num_bins = 80
    return knf_frames(knf.OnlineFbank, options, x * 32768)


def knf_icefall(x):
    options = knf.FbankOptions()
    options.mel_opts.num_bins, options.mel_opts.high_freq, options.frame_opts.snip_edges = 80, -400, False
    return knf_frames(knf.OnlineFbank, options, x)


def knf_whisper(x):
    options = knf.WhisperFeatureOptions()
    options.dim = 80
    return knf_frames(knf.OnlineWhisperFbank, options, x)


def librosa_whisper(x):
    def run():
        mel = librosa.feature.melspectrogram(y=x, sr=RATE, n_fft=400, hop_length=160, n_mels=80, pad_mode="reflect")
        log = np.log10(np.maximum(mel, 1e-10))
        return (np.maximum(log, log.max() - 8) + 4) / 4
    return timed(run)


def librosa_nemo(x):
    def run():
        emphasised = np.append(x[:1], x[1:] - np.float32(0.97) * x[:-1])
        mel = librosa.feature.melspectrogram(y=emphasised, sr=RATE, n_fft=512, win_length=400, hop_length=160, n_mels=80, pad_mode="constant")
        return np.log(mel + 2.0**-24)
    return timed(run)


PEERS = {  # ours -> the packages that compute the same kind of features
    "kaldi80": {"kaldi-native-fbank": knf_kaldi},
    "icefall80": {"kaldi-native-fbank": knf_icefall},
    "whisper80": {"kaldi-native-fbank": knf_whisper, "librosa": librosa_whisper},
    "parakeet80": {"librosa": librosa_nemo},
}


def cpu_model():
    lines = open("/proc/cpuinfo").read().splitlines()
    wanted = {key.strip(): value.strip() for key, value in (line.split(":", 1) for line in lines if ":" in line)}
    return f"{wanted.get('model name', platform.processor())} (family {wanted.get('cpu family')}, model {wanted.get('model')})"


if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one core for all; the bench binary inherits it
x = audio()
times, frames = {}, {}
with tempfile.NamedTemporaryFile(suffix=".f32") as samples:
    x.tofile(samples.name)
    for peer in (f for peers in PEERS.values() for f in peers.values()):
        peer(x[: RATE * 5])  # plans, filter banks, compiled code
    for _ in range(A.rounds):
        if A.bench:
            printed = subprocess.run([A.bench, samples.name, "1"], check=True, capture_output=True, text=True).stdout
            for name, best, _, count in (line.split() for line in printed.splitlines()):
                times.setdefault((name, "omniscribe"), []).append(float(best))
                frames[name, "omniscribe"] = int(count)
        for name, peers in PEERS.items():
            for package, run in peers.items():
                taken, frames[name, package] = run(x)
                times.setdefault((name, package), []).append(taken)

seconds = [
    dict(features=n, package=p, best_s=round(min(t), 4), median_s=round(statistics.median(t), 4), frames=frames[n, p], rtfx=round(SECONDS / min(t)))
    for (n, p), t in sorted(times.items())
]
ratios = {
    f"{name} vs {package}": {
        "best": round(min(times[name, package]) / min(times[name, "omniscribe"]), 2),
        "median": round(statistics.median(times[name, package]) / statistics.median(times[name, "omniscribe"]), 2),
    }
    for name, peers in PEERS.items() for package in peers if (name, "omniscribe") in times
}
result = {
    "benchmark": "features", "audio_s": SECONDS, "threads": 1, "rounds": A.rounds,
    "load_average": [round(load, 1) for load in os.getloadavg()], "date": datetime.date.today().isoformat(), "cpu": cpu_model(),
    "command": " ".join(["python", "benchmarks/features_peers.py", *sys.argv[1:]]),
    "versions": {"python": platform.python_version(), "numpy": np.__version__, "librosa": librosa.__version__, "kaldi-native-fbank": knf.__version__},
    "ratio_peer_over_ours": ratios, "seconds": seconds,
}
rows = [f"  {json.dumps(row)}" for row in result.pop("seconds")]
text = json.dumps(result, indent=1)[:-2] + ',\n "seconds": [\n' + ",\n".join(rows) + "\n ]\n}"
print(text)
if A.out:
    open(A.out, "w").write(text + "\n")
