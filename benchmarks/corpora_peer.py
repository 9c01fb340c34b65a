#!/usr/bin/env python3
"""What Lhotse and Kaldi's recipes make of the corpora that the tests write (tests/it/corpora.rs).

    OMNISCRIBE_CORPORA=/tmp/corpora cargo test --release --test it the_corpora_on_disk -- --ignored
    pip install lhotse==1.33.0 soundfile
    python benchmarks/corpora_peer.py /tmp/corpora --kaldi /path/to/kaldi

writes tests/golden/corpora/: peers.json (expected readings) and the Lhotse manifests that the tests read. Of Kaldi (a checkout, nothing
built) the scripts under egs/*/s5*/local run as they are, with perl; what their shell wrappers do with awk and sed between is done here, each
step beside the script it comes from.
"""

import argparse
import gzip
import json
import re
import subprocess
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden" / "corpora"


def row(audio, text, start=0.0, end=None, **more):
    fields = {"audio": Path(audio).name, "text": text, "start": start, "end": end, **more}
    return {key: value for key, value in fields.items() if value is not None}


def from_lhotse(recordings, supervisions, whole_files=False, channels=False, ids=False):
    """Supervisions as rows; of whole files only the length counts."""
    rows = []
    for s in supervisions:
        recording = recordings[s.recording_id]
        source = next(x for x in recording.sources if s.channel in x.channels or set(_list(s.channel)) <= set(x.channels))
        more = {"speaker": s.speaker}
        if ids:
            more["id"] = s.id
        if channels and len(source.channels) > 1 and not isinstance(s.channel, list):
            more["channel"] = source.channels.index(s.channel)
        end = None if whole_files else s.end
        rows.append(row(source.source, s.text, s.start, end, **more))
    return rows


def _list(channel):
    return channel if isinstance(channel, list) else [channel]


# --- Lhotse ---------------------------------------------------------------------------------------------------------------------


def lhotse_librispeech(root, _):
    from lhotse.recipes import prepare_librispeech

    m = prepare_librispeech(root / "LibriSpeech", dataset_parts="test-clean")["test-clean"]
    return from_lhotse(m["recordings"], m["supervisions"], whole_files=True, ids=True)


def lhotse_common_voice(root, work):
    from lhotse.recipes import prepare_commonvoice

    m = prepare_commonvoice(next(root.glob("cv-corpus*")), work, languages="en", splits=["test"])["en"]["test"]
    return from_lhotse(m["recordings"], m["supervisions"], whole_files=True, ids=True)


def lhotse_fleurs(root, work):
    from lhotse.recipes.fleurs import prepare_single_fleurs_language

    # Lhotse's own download makes this layout of the same table and clips.
    (work / "metadata" / "en_us").mkdir(parents=True)
    (work / "en_us").mkdir()
    for split in ("train", "dev", "test"):
        (work / "metadata" / "en_us" / f"{split}.tsv").symlink_to(root / "data/en_us/test.tsv")
        (work / "en_us" / split).symlink_to(root / "data/en_us/audio/test")
    m = prepare_single_fleurs_language(work / "en_us", work / "out", language="en_us")["test"]
    # Its speaker is a count of readings, no person.
    return [{k: v for k, v in r.items() if k != "speaker"} for r in from_lhotse(m["recordings"], m["supervisions"], True, ids=True)]


def lhotse_tedlium(root, _):
    from lhotse import audio_backend
    from lhotse.recipes import prepare_tedlium

    # Its own way into SPHERE files is to run sph2pipe; libsndfile reads those of plain PCM.
    with audio_backend("LibsndfileBackend"):
        m = prepare_tedlium(root / "TEDLIUM_release-3", dataset_parts="test", normalize_text="kaldi")["test"]
    return [{k: v for k, v in r.items() if k != "speaker"} for r in from_lhotse(m["recordings"], m["supervisions"])]


def lhotse_ami(root, _):
    from lhotse.recipes import prepare_ami

    parts = prepare_ami(root, mic="ihm", partition="full-corpus-asr", normalize_text="kaldi", max_words_per_segment=30)
    # It keeps pieces without text.
    return [r for r in from_lhotse(parts["test"]["recordings"], parts["test"]["supervisions"], ids=True) if r["text"]]


def lhotse_chime6(root, _):
    from lhotse.recipes import prepare_chime6

    m = prepare_chime6(root / "CHiME6", dataset_parts="eval", mic="ihm", normalize_text="kaldi")["eval"]
    # Redacted segments keep an empty text there. Quotation marks stay there, against Kaldi's recipe that it follows.
    rows = [r for r in from_lhotse(m["recordings"], m["supervisions"]) if r["text"]]
    return [{**r, "text": r["text"].replace('"', "")} for r in rows]


def lhotse_kaldi(root, _):
    from lhotse import RecordingSet  # noqa: F401 (imported for its side effect on audio backends)
    from lhotse.kaldi import load_kaldi_data_dir

    # Pipes need a compiled reader there: the same directory with plain paths, so that segments and text are compared.
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        for name in ("segments", "text", "utt2spk"):
            (data / name).write_text((root / "data/test" / name).read_text())
        audio = root / "audio"
        (data / "wav.scp").write_text(f"rec-a {audio}/a.wav\nrec-b {audio}/b c.wav\nrec-d {audio}/d.flac\n")
        recordings, supervisions, _ = load_kaldi_data_dir(data, sampling_rate=16000)
        rows = from_lhotse(recordings, supervisions, ids=True)
    return rows


def lhotse_manifests(root, _):
    """Writes manifests as Lhotse does, and reads them back."""
    import os

    from lhotse import CutSet, MonoCut, Recording, RecordingSet, SupervisionSegment, SupervisionSet
    from lhotse.cut import MultiCut

    os.chdir(root)
    mono, stereo = Recording.from_file("audio/mono.wav"), Recording.from_file("audio/stereo.wav")
    s = SupervisionSegment
    supervisions = [
        s("mono-1", "mono", 0.5, 1.25, 0, text="first of mono", speaker="sp-1"),
        s("mono-2", "mono", 2.0, 2.5, 0, text="second of mono", speaker="sp-1"),
        s("stereo-left", "stereo", 0.25, 1.0, 0, text="Left.", speaker="sp-1"),
        s("stereo-right", "stereo", 1.5, 2.0, 1, text="Right!", speaker="sp-2"),
        s("stereo-both", "stereo", 3.5, 0.5, [0, 1], text="both", speaker="sp-2"),
    ]
    recordings = RecordingSet.from_recordings([mono, stereo])
    GOLDEN.mkdir(parents=True, exist_ok=True)
    recordings.to_file(GOLDEN / "x_recordings_test.jsonl.gz")
    SupervisionSet.from_segments(supervisions).to_file(GOLDEN / "x_supervisions_test.jsonl.gz")
    rows = from_lhotse(recordings, supervisions, channels=True, ids=True)
    # Cuts: times of supervisions count from the cut, and one of them runs past its end.
    cuts = [
        MonoCut("c-1", 0.4, 4.0, 0, [supervisions[0].with_offset(-0.4), supervisions[1].with_offset(-0.4)], recording=mono),
        MonoCut("c-2", 0.0, 4.0, 0, [supervisions[2]], recording=stereo),
        MonoCut("c-3", 1.5, 1.5, 1, [supervisions[3].with_offset(-1.5)], recording=stereo),
        MultiCut("c-4", 3.0, 1.0, [0, 1], [supervisions[4].with_offset(-3.0)], recording=stereo),
        MonoCut("c-5", 0.0, 0.3, 0, [], recording=mono),
    ]
    CutSet.from_cuts(cuts).to_file(GOLDEN / "cuts_test.jsonl.gz")
    of_cuts = []
    for cut in CutSet.from_file(GOLDEN / "cuts_test.jsonl.gz"):
        for x in cut.supervisions:
            source = cut.recording.sources[0]
            channel = {} if isinstance(x.channel, list) or len(source.channels) < 2 else {"channel": x.channel}
            start, end = cut.start + max(x.start, 0), cut.start + min(x.end, cut.duration)
            of_cuts.append(row(source.source, x.text, start, end, speaker=x.speaker, id=x.id, **channel))
    # What no plain stretch of a file can stand for.
    plain = MonoCut("plain", 0.0, 1.0, 0, [s("x", "mono", 0.0, 1.0, 0, text="x")], recording=mono)
    odd = [plain.append(plain).with_id("mixed"), plain.pad(2.0).tracks[1].cut.with_id("padding")]
    lines = [json.dumps(cut.to_dict()) for cut in odd]
    for name, change in (
        ("resampled", lambda r: r.resample(8000)),
        ("speed", lambda r: r.perturb_speed(1.1)),
        ("url", lambda r: r),
        ("command", lambda r: r),
    ):
        recording = change(mono).to_dict()
        if name == "url":
            recording["sources"][0].update(type="url", source="https://example.org/x.wav")
        if name == "command":
            recording["sources"][0].update(type="command", source="curl https://example.org/x.wav")
        cut = plain.to_dict() | {"id": name, "recording": recording}
        cut["supervisions"] = [cut["supervisions"][0] | {"id": f"{name}-sup"}]
        lines.append(json.dumps(cut))
    (GOLDEN / "odd_cuts.jsonl").write_text("\n".join(lines) + "\n")
    # The same bytes every time: gzip files hold the time they were made at.
    for packed in GOLDEN.glob("*.gz"):
        packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes()), mtime=0))
    return {"lhotse/supervisions": rows, "lhotse/cuts": of_cuts}


# --- Kaldi ----------------------------------------------------------------------------------------------------------------------


def run(command, text=""):
    return subprocess.run([str(c) for c in command], input=text, capture_output=True, text=True, check=True).stdout


def hundredths(text):
    """`%07d` of awk's `$4*100`."""
    return int(float(text) * 100)


def kaldi_tedlium(root, kaldi):
    # egs/tedlium/s5_r3/local/prepare_data.sh
    folder = root / "TEDLIUM_release-3/legacy/test"
    lines = [line for stm in sorted((folder / "stm").glob("*.stm")) for line in stm.read_text().splitlines()]
    lines = [re.sub(r"\([^ ]*\)$", "", line) for line in lines if not line.startswith(";;")]
    joined = run(["python3", kaldi / "egs/tedlium/s5_r3/local/join_suffix.py"], "\n".join(lines) + "\n")
    rows = []
    for line in joined.splitlines():
        talk, _, _, start, end, _, *words = line.split()
        if "ignore_time_segment_in_scoring" in line:
            continue
        # conventions of the test set: no <unk>, <sil>, {NOISE}, which Kaldi leaves to its dictionary.
        text = " ".join(word for word in words if not re.fullmatch(r"<\w+>|\{\w+\}", word))
        identity = f"{talk}-{hundredths(start):07d}-{hundredths(end):07d}"
        rows.append(row(f"{talk}.sph", text, float(start), float(end), id=identity))
    return rows


def kaldi_ami(root, kaldi):
    """egs/ami/s5b/local/ami_{text_prep,split_segments,ihm_scoring_data_prep}; NXT's export is done here."""
    import xml.etree.ElementTree as ET

    nite = "{http://nite.sourceforge.net/}"
    notes = next(root.glob("ami_public_manual_*"))
    exported = []
    for meeting in ET.parse(notes / "corpusResources/meetings.xml").getroot():
        name = meeting.attrib["observation"]
        for speaker in meeting:
            agent = speaker.attrib["nxt_agent"]
            words = list(ET.parse(notes / f"words/{name}.{agent}.words.xml").getroot())
            index = {w.attrib[nite + "id"]: i for i, w in enumerate(words)}
            for segment in ET.parse(notes / f"segments/{name}.{agent}.segments.xml").getroot():
                ends = re.findall(r"id\(([^)]*)\)", segment.find(nite + "child").attrib["href"])
                span = words[index[ends[0]] : index[ends[-1]] + 1]
                if not any(w.tag == "w" for w in span):
                    continue
                # Where no element has a time NXT exports none either: such a line is too short for the script.
                start = min((w.attrib["starttime"] for w in span if "starttime" in w.attrib), key=float, default="")
                end = max((w.attrib["endtime"] for w in span if "endtime" in w.attrib), key=float, default="")
                text = " ".join(w.text for w in span if w.text)
                marks = " ".join(w.attrib["starttime"] for w in span if w.attrib.get("punc") == "true" and "starttime" in w.attrib)
                fields = [name, agent, speaker.attrib["global_name"], speaker.attrib["channel"]]
                fields += [segment.attrib["transcriber_start"], segment.attrib["transcriber_end"], start, end, text, marks]
                exported.append(" ".join(fields))
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "transcripts1", Path(folder) / "transcripts2"
        first.write_text("\n".join(exported) + "\n")
        run(["perl", kaldi / "egs/ami/s5b/local/ami_split_segments.pl", first, second])
        split = second.read_text().splitlines()
    lines = set()
    for line in split:
        name, headset, speaker, start, end, *words = line.split()
        # grep -f split_eval.orig
        if name[:6] in ("EN2002", "ES2004", "IS1009", "TS3003"):
            start, end = int(100 * float(start) + 0.5), int(100 * float(end) + 0.5)
            lines.add((f"AMI_{name}_{headset}_{speaker}_{start:07d}_{end:07d}", " ".join(words)))
    rows, last_speaker, last_end = [], "", 0.0
    for identity, words in sorted(lines):
        _, name, headset, speaker, start, end = identity.split("_")
        start, end = int(start) * 10 / 1000, int(end) * 10 / 1000
        # segments_to_fix: no overlap of two segments of one speaker.
        from_ = last_end if last_speaker == (name, headset, speaker) and last_end > start else start
        last_speaker, last_end = (name, headset, speaker), end
        rows.append(row(f"{name}.Headset-{int(headset[1:])}.wav", words, from_, end, speaker=speaker, id=identity))
    return rows


def kaldi_chime6(root, kaldi):
    # egs/chime6/s5_track1/local/prepare_data.sh, worn microphones
    rows = []
    for transcript in sorted((root / "CHiME6/transcriptions/eval").glob("*.json")):
        lines = run(["python3", kaldi / "egs/chime6/s5_track1/local/json2text.py", "--mictype", "worn", transcript])
        for line in lines.splitlines():
            line = re.sub(r"\[inaudible[- 0-9]*\]", "[inaudible]", line).replace(" - ", " ").replace("mm-", "mm")
            identity, _, words = line.partition(" ")
            speaker, session, _ = identity.split("_")
            _, start, end = identity.split("-")
            for channel, side in enumerate("LR"):
                ours = identity.replace("-", f".{side}-", 1)
                audio = f"{session}_{speaker}.wav"
                rows.append(row(audio, words, int(start) / 100, int(end) / 100, speaker=speaker, channel=channel, id=ours))
    return rows


def kaldi_hub5(root, kaldi):
    # egs/{fisher_swbd/s5,swbd/s5c}/local/eval2000_data_prep.sh
    stm = (root / "LDC2002T43/reference/hub5e00.english.000405.stm").read_text()
    pem = (root / "LDC2002S09/hub5e_00/english/hub5e_00.pem").read_text()
    segments = []
    for line in pem.splitlines():
        if ";;" not in line:
            call, side, _, start, end = line.split()
            identity = f"{call}-{side}_{hundredths(start):06d}-{hundredths(end):06d}"
            segments.append(f"{identity} {call}-{side} {start} {end}")
    segments = "\n".join(sorted(set(segments))) + "\n"
    padded = run(["perl", kaldi / "egs/swbd/s5c/local/extend_segments.pl", "0.1"], segments)
    # sed of the STM file used in scoring
    fixed = stm.replace("((", "(").replace("<B_ASIDE>", "").replace("<E_ASIDE>", "")
    text = {}
    for line in fixed.splitlines():
        if ";;" not in line and "IGNORE_TIME_SEGMENT_" not in line:
            call, side, _, start, end, _, *words = line.split()
            text[f"{call}-{side}_{hundredths(start):06d}-{hundredths(end):06d}"] = " ".join(words)
    found = {}
    for name, times in (("kaldi", segments), ("kaldi-padded", padded)):
        for prefix, kind in (("en_", "hub5-callhome"), ("sw_", "hub5-switchboard")):
            rows = found.setdefault(f"{kind}/{name}", [])
            for line in times.splitlines():
                identity, side, start, end = line.split()
                if identity.startswith(prefix) and identity in text:
                    call, letter = side.split("-")
                    channel = ord(letter) - ord("A")
                    rows.append(row(f"{call}.sph", text[identity], float(start), float(end), speaker=side, channel=channel, id=identity))
    return found


def kaldi_wsj(root, kaldi):
    # egs/wsj/s5/local/wsj_data_prep.sh. Names in upper case are given as the recipe expects them.
    local = kaldi / "egs/wsj/s5/local"
    index = (root / "11-13.1/wsj0/doc/indices/test/nvp/si_et_20.ndx").read_text()
    flist = run(["perl", local / "ndx2flist.pl", root / "11-13.1", root / "11-14.1"], index)
    files = [f"{line.split()[0]}.wv1" for line in flist.splitlines()]
    scp = run(["perl", local / "flist2scp.pl"], "\n".join(sorted(files)) + "\n")
    utterances = [line.split()[0] for line in sorted(scp.splitlines())]
    with tempfile.TemporaryDirectory() as folder:
        dots = []
        for dot in root.rglob("*"):
            if dot.name.lower().endswith(".dot"):
                dots.append(Path(folder) / dot.name.lower())
                dots[-1].write_text(dot.read_text())
        flist = Path(folder) / "dot_files.flist"
        flist.write_text("\n".join(map(str, dots)) + "\n")
        found = run(["perl", local / "find_transcripts.pl", flist], "\n".join(utterances) + "\n")
    # Noises are dropped from references.
    text = run(["perl", local / "normalize_transcript.pl", "<NOISE>"], found).replace("<NOISE>", "")
    names = {path.name.lower(): path.name for path in root.rglob("*") if path.name.lower().endswith(".wv1")}
    rows = []
    for line in text.splitlines():
        identity, _, words = line.partition(" ")
        rows.append(row(names[f"{identity}.wv1"], words, speaker=identity[:3], id=identity))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--kaldi", type=Path, required=True, help="a checkout of github.com/kaldi-asr/kaldi")
    options = parser.parse_args()
    root, kaldi = options.corpora.resolve(), options.kaldi.resolve()
    found = {}
    for name, kind, read in (
        ("librispeech/lhotse", "librispeech-clean", lhotse_librispeech),
        ("common-voice/lhotse", "common-voice", lhotse_common_voice),
        ("fleurs/lhotse", "fleurs", lhotse_fleurs),
        ("tedlium/lhotse", "tedlium", lhotse_tedlium),
        ("ami/lhotse", "ami-ihm", lhotse_ami),
        ("chime6/lhotse", "chime6", lhotse_chime6),
        ("kaldi/lhotse", "kaldi", lhotse_kaldi),
    ):
        with tempfile.TemporaryDirectory() as work:
            found[name] = read(root / kind, Path(work))
    found |= lhotse_manifests(root / "lhotse", None)
    found["tedlium/kaldi"] = kaldi_tedlium(root / "tedlium", kaldi)
    found["ami/kaldi"] = kaldi_ami(root / "ami-ihm", kaldi)
    found["chime6/kaldi"] = kaldi_chime6(root / "chime6", kaldi)
    found |= kaldi_hub5(root / "hub5-callhome", kaldi)
    found["wsj-nov92/kaldi"] = kaldi_wsj(root / "wsj-nov92", kaldi)

    import lhotse

    made_by = {"script": "benchmarks/corpora_peer.py", "lhotse": lhotse.__version__, "kaldi": "local/ scripts of egs/ at f400766"}
    lines = ",\n".join(f"  {json.dumps(k)}: [\n    " + ",\n    ".join(json.dumps(r) for r in v) + "\n  ]" for k, v in sorted(found.items()))
    (GOLDEN / "peers.json").write_text(f'{{"made_by": {json.dumps(made_by)},\n"utterances": {{\n{lines}\n}}}}\n')
    for name, rows in sorted(found.items()):
        print(f"{name}: {len(rows)} utterances")


if __name__ == "__main__":
    main()
