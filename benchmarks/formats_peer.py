"""Transcript formats against third-party writers and parsers.

    pip install openai-whisper==20250625 webvtt-py srt pysubs2 praat-parselmouth praatio textgrid openai
    apt-get install sctk
    python benchmarks/formats_peer.py make     # cases and what openai/whisper writes for them -> tests/golden/formats
    UPDATE_GOLDEN=1 cargo test --release --test it formats   # what we write for them -> tests/golden/formats
    python benchmarks/formats_peer.py check    # what we wrote, read by the parsers above
"""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "golden" / "formats"


def word(text, start, end, confidence=0.9):
    return {"word": text, "start": start, "end": end, "confidence": confidence}


def spoken(text, start, step=0.4, gap=0.08, confidence=0.9):
    """Words of `step` seconds less `gap`."""
    return [word(w, round(start + i * step, 3), round(start + (i + 1) * step - gap, 3), confidence) for i, w in enumerate(text.split(" "))]


def transcript(segments, duration, language="en", file="talks/first talk.flac"):
    """`segments`: lists of words, (start, end, text) without words, or (speaker, channel, words)."""
    words, rows = [], []
    for segment in segments:
        speaker = channel = None
        if isinstance(segment, tuple) and isinstance(segment[2], list):
            speaker, channel, segment = segment
        own = segment if isinstance(segment, list) else []
        start, end, text = (own[0]["start"], own[-1]["end"], " ".join(w["word"] for w in own)) if own else segment
        mean = round(sum(w["confidence"] for w in own) / len(own), 3) if own else 0.75
        row = {"start": start, "end": end, "text": text, "words": [len(words), len(words) + len(own)], "confidence": mean}
        if speaker:
            row |= {"speaker": speaker, "channel": channel}
        rows.append(row)
        words += own
    text = " ".join(r["text"] for r in rows)
    return {"schema_version": 2, "file": file, "model": "base", "language": language, "duration": duration, "text": text,
            "segments": rows, "words": words, "warnings": []}


RIVER = ("the river rose in the night, and by the morning it had come up to the second step of the old mill; nobody in the "
         "village had seen it so high since the winter of the great flood. we carried what we could to the upper floor")
CASES = {
    "empty": transcript([], 3.25),
    "segments": transcript([
        (0.0, 0.9995, "Rounded up to a second"), (1.0005, 1.9985, "half to even, twice"), (59.9996, 61.25, " spaces around "),
        (3599.9994, 3600.0, "the last of an hour"), (3600.0, 3723.004, "caf\u00e9 \u65e5\u672c\u8a9e \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \U0001f600"),
        (359999.5, 360000.0, "a hundred hours --> on"), (360001.0, 360002.5, "a\ttab"), (360003.0, 360004.0, 'he said "no", then, "yes"'),
    ], 360005.0),
    "words": transcript([
        spoken("so it goes on", 0.5), spoken("na\u00efve caf\u00e9 don't it's", 12.3456, 0.37),
        [word("short", 59.9996, 60.2504), word("rounds", 60.2504, 60.2516), word("long", 60.5, 61.9995)], spoken("past an hour", 3601.2),
    ], 3610.0),
    "river": transcript([spoken(RIVER, 1.0, 0.31, 0.04, 0.97), spoken("and waited", 20.0)], 22.5),
    "markup": transcript([
        [word("R&D", 0.1, 0.5), word("<b>bold</b>", 0.6, 0.9), word("-->", 1.0, 1.2), word('"quoted"', 1.3, 1.8), word("---->", 1.9, 1.9)],
        [word("two\nlines", 3.0, 3.4), word("a\ttab", 3.5, 3.9), word("{x", 4.0, 4.1), word("/", 4.2, 4.3), word("y}", 4.4, 4.5), word("(maybe)", 4.6, 4.9)],
        [word("[00:01.00]", 6.0, 6.4), word(";;comment", 6.5, 6.9), word("&amp;", 7.0, 7.5)],
    ], 8.0, None, "-"),
    "channels": transcript([
        ("Channel 1", 1, spoken("good morning this is the help desk what can we do", 0.4, 0.3)),
        ("Channel 2", 2, spoken("hello yes i have a question", 2.1, 0.3)),
        ("Channel 1", 1, spoken("go on", 6.0)), ("Channel 2", 2, spoken("it is about a bill", 6.5)),
    ], 9.0, "en", "calls/2024 01.wav"),
}


def whisper_result(case):
    segments = []
    for i, s in enumerate(case["segments"]):
        own = case["words"][s["words"][0]:s["words"][1]]
        row = {"id": i, "start": s["start"], "end": s["end"], "text": " " + s["text"]}
        if own:
            row["words"] = [{"word": " " + w["word"], "start": w["start"], "end": w["end"], "probability": w["confidence"]} for w in own]
        segments.append(row)
    return {"text": case["text"], "segments": segments, "language": case["language"]}


def make():
    from whisper.utils import get_writer

    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "cases.json").write_text(json.dumps(CASES, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for name in ["empty", "segments", "words"]:
        for kind in ["txt", "tsv", "srt", "vtt"]:
            for options, part in [({}, ""), ({"highlight_words": True}, ".highlight")]:
                if part and (kind in ("txt", "tsv") or name != "words"):
                    continue
                out = io.StringIO()
                get_writer(kind, "").write_result(whisper_result(CASES[name]), file=out, options=options)
                (FOLDER / f"{name}{part}.whisper.{kind}").write_text(out.getvalue(), encoding="utf-8")


def flat(text):
    return " ".join(text.split())


def ours(name, extension):
    return (FOLDER / f"{name}.{extension}").read_text(encoding="utf-8")


def shown(case, segment):
    """The words of a segment as subtitles may show them."""
    own = case["words"][segment["words"][0]:segment["words"][1]]
    text = flat(" ".join(w["word"] for w in own) or segment["text"])
    while "-->" in text:
        text = text.replace("-->", "->")
    return text


def everything(case):
    return flat(" ".join(shown(case, s) for s in case["segments"]))


def check_srt(name, case):
    import pysubs2
    import srt

    text = ours(name, "srt")
    cues = list(srt.parse(text))
    assert [c.index for c in cues] == list(range(1, len(cues) + 1))
    name_of = re.compile(r"^Channel \d: ")
    assert flat(" ".join(name_of.sub("", c.content) for c in cues)) == everything(case)
    assert srt.compose(cues, reindex=False) == text, "another writer writes the same bytes"
    if all("speaker" not in s for s in case["segments"]):
        assert all(a.end <= b.start for a, b in zip(cues, cues[1:]))
    for cue in cues:
        if name not in ("segments", "words"):
            assert all(len(line) <= 42 for line in cue.content.split("\n")) and len(cue.content.split("\n")) <= 2
    assert len(pysubs2.SSAFile.from_string(text, format_="srt")) == len(cues)
    return f"srt, pysubs2: {len(cues)} cues"


def check_vtt(name, case):
    import html

    import webvtt

    for variant in ["vtt", "highlight.vtt"]:
        cues = webvtt.from_string(ours(name, variant)).captions
        if variant == "vtt":
            voices = [s.get("speaker") for s in case["segments"]]
            assert flat(html.unescape(" ".join(c.text for c in cues))) == everything(case), everything(case)
            assert {c.voice for c in cues} <= set(voices)
        assert all(c.start_in_seconds <= c.end_in_seconds for c in cues)
    return f"webvtt-py: {len(cues)} cues with highlights"


def check_tables(name, case):
    rows = list(csv.DictReader(io.StringIO(ours(name, "csv"))))
    assert [flat(r["text"]) for r in rows] == [flat(s["text"]) for s in case["segments"]]
    assert [int(r["start"]) for r in rows] == [round(s["start"] * 1000) for s in case["segments"]]
    tsv = list(csv.DictReader(io.StringIO(ours(name, "tsv")), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [int(r["end"]) for r in tsv] == [round(s["end"] * 1000) for s in case["segments"]]
    assert [flat(re.sub(r"^Channel \d: ", "", r["text"])) for r in tsv] == [flat(s["text"]) for s in case["segments"]]
    assert ours(name, "txt").count("\n") == len(case["segments"])
    return f"csv module: {len(rows)} rows"


def check_lrc(name, case):
    lines = ours(name, "lrc").splitlines()
    assert lines[0] == "[by:omniscribe]"
    parts = [re.fullmatch(r"\[(\d{2,}):([0-5]\d)\.(\d\d)\](.*)", line).group(4) for line in lines[1:]]
    text = flat(" ".join(re.sub(r"^Channel \d: ", "", p) for p in parts))
    assert text == everything(case), text
    return f"pattern: {len(parts)} lines"


def check_textgrid(name, case):
    import parselmouth
    import textgrid as textgrid_package
    from praatio import textgrid

    path = str(FOLDER / f"{name}.TextGrid")
    praat = parselmouth.read(path)
    tiers = parselmouth.praat.call(praat, "Get number of tiers")
    counts = [parselmouth.praat.call(praat, "Get number of intervals", t + 1) for t in range(tiers)]
    read = textgrid.openTextgrid(path, includeEmptyIntervals=True)
    assert [len(read.getTier(n).entries) for n in read.tierNames] == counts
    words = [e.label for n in read.tierNames if n.endswith("words") for e in read.getTier(n).entries if e.label]
    assert sorted(flat(w) for w in words) == sorted(flat(w["word"]) for w in case["words"])
    third = textgrid_package.TextGrid.fromFile(path)
    assert [len(t) for t in third] == counts
    assert abs(parselmouth.praat.call(praat, "Get end time") - max([case["duration"]] + [s["end"] for s in case["segments"]])) < 2e-3
    return f"Praat (parselmouth), praatio, textgrid: {tiers} tiers, {sum(counts)} intervals"


def check_nist(name, case):
    ctm, stm = FOLDER / f"{name}.ctm", FOLDER / f"{name}.stm"
    if not case["words"]:
        assert not ctm.read_text()
        return "empty"
    run = subprocess.run(["sctk", "sclite", "-r", stm, "stm", "-h", ctm, "ctm", "-o", "sum", "stdout"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    total = next(line for line in run.stdout.splitlines() if "Sum/Avg" in line)
    sentences, words, correct, *errors = [float(x) for x in re.findall(r"[\d.]+", total)]
    assert (correct, errors[0], errors[1], errors[2], errors[3]) == (100.0, 0.0, 0.0, 0.0, 0.0), total
    if name == "channels":  # the validators want English letters, the file names of `ctm`, and no punctuation
        for tool, path in [("ctmValidator.pl", ctm), ("stmValidator.pl", stm)]:
            run = subprocess.run(["perl", f"/usr/lib/sctk/bin/{tool}", "-l", "english", "-i", path], capture_output=True, text=True)
            assert run.returncode == 0, tool + run.stdout + run.stderr
    return f"sclite: {int(sentences)} segments, {int(words)} words, all correct"


def rounded(value):
    """Numbers to the thousandth, halves up."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value + 1e-7, 3) if isinstance(value, float) else value


def check_json(name, case):
    from openai.types.audio import TranscriptionVerbose

    assert rounded(json.loads(ours(name, "json"))) == rounded(case)
    result = json.loads(ours(name, "verbose.json"))
    api = TranscriptionVerbose.model_validate(result, strict=True)
    assert len(api.segments) == len(case["segments"]) and len(api.words) == len(case["words"])
    from whisper.utils import get_writer

    if name in ("empty", "words"):
        for kind in ["txt", "tsv", "srt", "vtt"]:
            out = io.StringIO()
            get_writer(kind, "").write_result(result, file=out, options={})
            assert flat(out.getvalue()) == flat(ours(name, "whisper." + kind)) or name == "words"
    return f"openai's TranscriptionVerbose (strict): {len(api.segments)} segments; whisper's writers take it"


def check():
    for name, case in CASES.items():
        assert json.loads((FOLDER / "cases.json").read_text(encoding="utf-8"))[name] == case
        for kind in [check_srt, check_vtt, check_tables, check_lrc, check_textgrid, check_nist, check_json]:
            print(f"{name:9} {kind.__name__[6:]:9} {kind(name, case)}")


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]]()
