"""Makes synthetic English speech with free text-to-speech programs: 16 kHz mono audio files and a NeMo-style manifest.

Voices come from what Debian's `main` section ships (`apt-get install espeak-ng flite festival festvox-kallpc16k festvox-kdlpc16k
festvox-us-slt-hts festlex-cmu festlex-poslex sox opus-tools`); Pico, MBROLA and the other Festival voices are non-free and not used.
Only the Python standard library and those programs are needed. FLAC output needs no opus-tools.

    python3 benchmarks/synthesize.py --text books-en.txt.xz --out synth --hours 12 --exclude dev.jsonl

What is read: sentences of `--text` (plain or .xz, one per line) and generated numbers, dates, times, amounts, digit strings, spelled letters,
commands, names and single words (`KINDS` holds the shares, `--kinds word=1` others). The manifest's `text` holds what is spoken, numbers as words,
letters one by one. A sentence that shares `OVERLAP` words in a row with a transcript of an `--exclude` manifest is left out, so that texts of a test
set are never spoken here. A `word` clip is one isolated digit, letter or short command, or rarely two, between longer silences:

    python3 benchmarks/synthesize.py --out words --hours 1.5 --kinds word=1 --seed 2

Who speaks: `ENGINES` holds the shares. A voice is an espeak-ng accent and variant, or a flite/festival voice read through a change of vocal-tract
length (resampling by `warp`, with rate and pitch compensated in the engine where it can). The `speaker` field names both; rate, pitch and level vary
by clip. A clip depends only on `--seed` and its number, not on `--jobs` or on interruptions: started again with the same arguments, the program
continues after the last line of the manifest until it holds `--hours`.
"""
import argparse
import concurrent.futures
import json
import lzma
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

RATE = 16000
OVERLAP = 6
ENGINES = {"flite": 0.43, "festival": 0.31, "espeak": 0.26}
KINDS = {"book": 0.58, "number": 0.12, "digits": 0.08, "spelled": 0.06, "command": 0.09, "name": 0.07, "word": 0.0}
WORD_SECONDS = 0.35  # a clip of one word may be this short, whatever `--min-seconds` says
LICENCES = {
    "espeak": "output of espeak-ng (GPL-3.0-or-later program; no claim on its output)",
    "flite": "output of flite voices (CMU, BSD-like)",
    "festival": "output of festival voices (CMU/CSTR/HTS, BSD-like)",
}

ACCENTS = ["en-us", "en-us", "en-us", "en-gb", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc"]
VARIANTS = """m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 adam Alex Alicia Andrea Andy Annie belinda benjamin boris caleb david Denis Diogo ed edward Gene
Gene2 gustave Henrique Hugo iven Jacky john kaukovalta Lee linda marcelo Marco Mario max Michael michel miguel Mike pablo paul pedro quincy
rob robert sandro shelby steph steph2 travis victor zac anika grandma grandpa klatt klatt2 klatt4""".split()
FLITE = ["awb", "kal16", "rms", "rms", "slt", "slt", "awb"]
FESTIVAL = {"kal": "voice_kal_diphone", "ked": "voice_ked_diphone", "slt-hts": "voice_cmu_us_slt_arctic_hts"}
WARPS = [0.86, 0.90, 0.94, 0.97, 1.0, 1.03, 1.06, 1.10, 1.15, 1.20]

ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen""".split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
IRREGULAR = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth", "twelve": "twelfth"}
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
UNITS = """kilometres miles grams pounds litres degrees minutes hours seconds days weeks years metres inches feet people pages votes points""".split()
FIRST = """James Mary Robert Patricia John Jennifer Michael Linda David Elizabeth William Barbara Richard Susan Joseph Jessica Thomas Sarah Charles Karen
Christopher Lisa Daniel Nancy Matthew Betty Anthony Sandra Mark Margaret Ashley Steven Kimberly Andrew Emily Paul Donna Joshua Michelle Kenneth Carol
Kevin Amanda Brian Melissa George Deborah Edward Stephanie Ronald Rebecca Laura Jason Helen Jeffrey Sharon Ryan Cynthia Jacob Kathleen Gary Amy
Nicholas Angela Eric Anna Jonathan Ruth Stephen Brenda Larry Pamela Justin Nicole Scott Catherine Brandon Samantha Frank Alice Peter Julia Walter Grace
Harold Victoria Douglas Rose Henry Martha Arthur Diana Oscar Sophie Felix Clara Simon Irene Leo Hannah""".split()
LAST = """Smith Johnson Williams Brown Jones Miller Davis Wilson Anderson Thomas Taylor Moore Jackson Martin Thompson White Harris Clark Lewis Robinson
Walker Young Allen King Wright Scott Hill Green Adams Nelson Baker Hall Campbell Mitchell Carter Roberts Phillips Evans Turner Parker Collins Edwards
Stewart Morris Murphy Cook Rogers Morgan Cooper Reed Bailey Bell Kelly Howard Ward Cox Richardson Wood Watson Brooks Bennett Gray Hughes Price Myers
Long Foster Sanders Ross Sullivan Fisher Henderson Cole West Jordan Reynolds Hamilton Graham Wallace Woods Marshall Porter Hunter Stone""".split()
PLACES = """London Paris Berlin Rome Madrid Vienna Boston Chicago Denver Dallas Seattle Toronto Sydney Dublin Edinburgh Oxford Cambridge Liverpool
Manchester Amsterdam Brussels Lisbon Athens Moscow Cairo Bombay Calcutta Singapore Tokyo California Texas Florida Georgia Virginia Ohio Michigan
Canada Mexico Brazil Argentina France Germany Italy Spain Portugal Norway Sweden Denmark Poland Hungary Turkey Egypt Kenya India China Japan
Australia England Scotland Ireland Wales""".split()
ROOMS = "kitchen,bedroom,living room,bathroom,garage,hall,office,dining room,garden,basement".split(",")
DEVICES = "light,lamp,heating,fan,radio,television,air conditioning,music,alarm,coffee machine,blinds,door lock,camera,vacuum cleaner".split(",")
THINGS = """milk,bread,apples,batteries,a birthday card,the dentist appointment,the meeting notes,flour and sugar,an umbrella,train tickets,
a phone charger,the weekly report,orange juice,toothpaste,two bottles of water,fresh vegetables""".replace("\n", "").split(",")
MUSIC = "some jazz,classical music,the news,my favourite songs,something quiet,the last album,rock music,the radio,a podcast about history".split(",")
NATO = """alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec romeo sierra tango uniform victor
whiskey x-ray yankee zulu""".split()
WORDS = """yes no stop go left right up down on off start cancel repeat help open close next back forward backward follow learn visual marvin sheila bed
bird cat dog happy house tree wow okay play pause louder quieter hello goodbye thanks please wait now today tomorrow computer lights music volume mute
call answer ignore save delete undo enter escape home menu search select first second third more less left turn again continue finish ready done
red green blue yellow white black hot cold high low fast slow in out oh hundred thousand""".split()
ROLES = "mayor,president,director,conductor,captain,author,founder,chairman,bishop,head coach,architect,lead singer,governor,editor".split(",")
FIELDS = """football,chemistry,the piano,medicine,law,painting,engineering,the violin,mathematics,biology,poetry,economics,journalism,
photography,tennis,architecture,philosophy,cricket""".replace("\n", "").split(",")
WORKS = "the city council,the national team,a small company,the university,the local newspaper,a record label,the railway,the museum".split(",")


def cardinal(n):
    """`n` (0 to 999 999 999) in words without hyphens."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (" " + ONES[n % 10] if n % 10 else "")
    for size, name in ((10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if n >= size:
            rest = n % size
            joint = " and " if rest and rest < 100 and size == 100 and n % 2 else " "
            return cardinal(n // size) + " " + name + (joint + cardinal(rest) if rest else "")
    raise AssertionError(n)


def ordinal(n):
    """`n` as an ordinal in words."""
    head, _, last = cardinal(n).rpartition(" ")
    last = IRREGULAR.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return (head + " " + last).strip()


def year(n):
    """A year from 1100 to 2099 as it is read."""
    if 2000 <= n < 2010:
        return "two thousand" + (" and " + ONES[n - 2000] if n > 2000 else "")
    high, low = divmod(n, 100)
    return cardinal(high) + " " + ("hundred" if low == 0 else ("oh " + ONES[low] if low < 10 else cardinal(low)))


def number_text(r):
    """One sentence about a quantity, date, time or amount."""
    n = r.choice([r.randint(0, 20), r.randint(21, 99), r.randint(100, 999), r.randint(1000, 9999), r.randint(10**4, 10**6), r.randint(10**6, 10**8)])
    small, hour = r.randint(2, 99), cardinal(r.randint(1, 12))
    clock = r.choice([f"{hour} o'clock", f"half past {hour}", f"a quarter to {hour}", f"a quarter past {hour}", f"{hour} {cardinal(r.randint(10, 59))}",
                      f"{cardinal(r.randint(2, 29))} minutes past {hour}", f"{hour} in the {r.choice(['morning', 'evening'])}"])
    date = r.choice([f"the {ordinal(r.randint(1, 31))} of {r.choice(MONTHS)}", f"{r.choice(MONTHS)} {ordinal(r.randint(1, 31))}", f"{r.choice(MONTHS)} the {ordinal(r.randint(1, 31))}"])
    decimal = f"{cardinal(r.randint(0, 99))} point {' '.join(ONES[r.randint(0, 9)] for _ in range(r.randint(1, 3)))}"
    return r.choice([
        lambda: f"There were {cardinal(n)} {r.choice(UNITS)} in total.",
        lambda: f"The answer is {cardinal(n)}, not {cardinal(small)}.",
        lambda: f"It was founded on {date}, {year(r.randint(1700, 2029))}.",
        lambda: f"The meeting on {r.choice(DAYS)} starts at {clock}.",
        lambda: f"We arrive in {r.choice(PLACES)} on {date} at {clock}.",
        lambda: f"It costs {cardinal(small)} {r.choice(['dollars and X cents', 'pounds and X pence', 'euros and X cents'])}.".replace("X", cardinal(r.randint(2, 99))),
        lambda: f"About {cardinal(small)} percent of the {r.choice(UNITS)} were counted in {year(r.randint(1800, 2029))}.",
        lambda: f"The value is {decimal}, roughly {cardinal(small)} {r.choice(UNITS)}.",
        lambda: f"From {year(r.randint(1100, 1999))} to {year(r.randint(1900, 2029))} the town had {cardinal(n)} inhabitants.",
        lambda: f"{cardinal(small)} times {cardinal(r.randint(2, 20))} is {cardinal(n)}.".capitalize(),
        lambda: f"This is the {ordinal(r.randint(1, 120))} time in {cardinal(small)} {r.choice(['days', 'weeks', 'months', 'years'])}.",
        lambda: f"Turn to page {cardinal(r.randint(10, 999))}, chapter {cardinal(r.randint(1, 40))}.",
        lambda: f"{cardinal(small)}, {cardinal(r.randint(2, 99))}, {cardinal(r.randint(2, 999))}, {cardinal(n)}.".capitalize(),
    ])()


def digits_text(r):
    """A string of 3 to 12 digits in groups; zero is "oh" in a quarter of the strings that have one."""
    count, zero = r.randint(3, 12), r.choice(["zero", "zero", "zero", "oh"])
    words = [zero if d == 0 else ONES[d] for d in (r.randint(0, 9) for _ in range(count))]
    group = r.choice([1, 2, 3, 3, 4, count])
    body = ", ".join(" ".join(words[i:i + group]) for i in range(0, count, group))
    return r.choice(["", "", "", "", "The number is ", "Please call ", "My code is ", "Account number "]) + body


def spelled_text(r):
    """Letters one by one: a spelled name or word, a code, or the spelling alphabet. Letters are capitals here, lower case in the manifest."""
    letters = lambda word: r.choice([" ", ", "]).join(word.upper())
    name = r.choice(FIRST + LAST + PLACES)
    return r.choice([
        lambda: f"{name}, {letters(name)}.",
        lambda: f"My name is {name}, spelled {letters(name)}.",
        lambda: letters(name) + ".",
        lambda: ", ".join(r.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(r.randint(3, 8))) + ".",
        lambda: ", ".join(r.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") if r.random() < 0.6 else r.choice(ONES[:10]) for _ in range(r.randint(4, 8))) + ".",
        lambda: ", ".join(r.choice(NATO) for _ in range(r.randint(3, 6))) + ".",
    ])()


def command_text(r):
    """Something one says to a device."""
    person, number = f"{r.choice(FIRST)} {r.choice(LAST)}", cardinal(r.randint(2, 60))
    return r.choice([
        lambda: f"Please turn {r.choice(['on', 'off'])} the {r.choice(DEVICES)} in the {r.choice(ROOMS)}.",
        lambda: f"Set a timer for {number} {r.choice(['minutes', 'seconds', 'hours'])}.",
        lambda: f"Wake me up at {cardinal(r.randint(1, 12))} {cardinal(r.randint(10, 59))} on {r.choice(DAYS)}.",
        lambda: f"Call {person} on {r.choice(['the mobile phone', 'the office number', 'speaker'])}.",
        lambda: f"Send a message to {r.choice(FIRST)}: I will be {number} minutes late.",
        lambda: f"Play {r.choice(MUSIC)} in the {r.choice(ROOMS)}.",
        lambda: f"What will the weather be like in {r.choice(PLACES)} on {r.choice(DAYS)}?",
        lambda: f"Add {r.choice(THINGS)} to my shopping list.",
        lambda: f"Remind me about {r.choice(THINGS)} on {r.choice(DAYS)} {r.choice(['morning', 'afternoon', 'evening'])}.",
        lambda: f"Set the temperature in the {r.choice(ROOMS)} to {cardinal(r.randint(15, 28))} degrees.",
        lambda: f"How long does it take to drive from {r.choice(PLACES)} to {r.choice(PLACES)}?",
        lambda: f"Go to the {r.choice(['next', 'previous', 'first', 'last'])} page and {r.choice(['stop', 'start', 'open', 'close', 'repeat', 'delete'])} it.",
        lambda: ", ".join(r.choice("yes no stop go left right up down start cancel repeat help open close next back on off".split()) for _ in range(r.randint(3, 6))) + ".",
    ])()


def word_text(r):
    """An isolated word, said once or (rarely) twice or with another: digits above all. "A" is left out of the letters, as engines read it as the article."""
    one = lambda: r.choices([
        lambda: r.choice(ONES[:10]),
        lambda: r.choice(WORDS),
        lambda: r.choice("BCDEFGHIJKLMNOPQRSTUVWXYZ"),
        lambda: r.choice([cardinal(r.randint(10, 99)), r.choice(NATO), r.choice(DAYS), r.choice(MONTHS), r.choice(FIRST)]),
    ], [0.6, 0.22, 0.08, 0.1])[0]()
    return r.choices([lambda: one(), lambda: f"{one()}, {one()}"], [0.9, 0.1])[0]()


def name_text(r):
    """A plain sentence about people and places, in the manner of an encyclopedia."""
    person, other, place = f"{r.choice(FIRST)} {r.choice(LAST)}", f"{r.choice(FIRST)} {r.choice(LAST)}", r.choice(PLACES)
    return r.choice([
        lambda: f"{person} was born in {place} and studied {r.choice(FIELDS)}.",
        lambda: f"{person} became {r.choice(ROLES)} of {r.choice(WORKS)} in {year(r.randint(1850, 2029))}.",
        lambda: f"{person} and {other} met in {place} and worked for {r.choice(WORKS)}.",
        lambda: f"The {r.choice(ROLES)}, {person}, moved from {place} to {r.choice(PLACES)}.",
        lambda: f"After leaving {r.choice(WORKS)}, {person} returned to {place} to teach {r.choice(FIELDS)}.",
        lambda: f"It was recorded in {place} by {person} with the help of {other}.",
        lambda: f"He was succeeded as {r.choice(ROLES)} by {person} of {place}.",
        lambda: f"She lives in {place} with her sister, {other}, and {cardinal(r.randint(2, 5))} children.",
    ])()


def sentences(path, excluded, seed):
    """The usable sentences of a text file in a fixed random order: letters and plain punctuation only, nothing that voices read differently."""
    out = []
    with (lzma.open if path.endswith(".xz") else open)(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            s = re.sub(r'["“”_*]', "", line.replace("’", "'").replace("—", ", ").replace("–", ", ").replace("--", ", ")).strip()
            for short, full in (("Mr.", "Mister"), ("Mrs.", "Missus"), ("Dr.", "Doctor")):
                s = s.replace(short, full)
            s = re.sub(r"\s+([,;:.!?])", r"\1", re.sub(r",(\s*,)+", ",", re.sub(r"\s+", " ", s))).lstrip(" ,;:.-")
            if not 25 <= len(s) <= 190 or not re.fullmatch(r"[A-Z][A-Za-z ,.;:'!?-]*[.!?]", s):
                continue
            if re.search(r"\b[A-Z]{2,}\b|\b[B-HJ-NP-Z]\b|\.\s*\S|(?<![A-Za-z])'|'(?![A-Za-z])|\b(St|Esq|Jr|viz|etc|no|vs|Mt|Hon|Rev|Capt|Col|Gen)\.|(?<![A-Za-z])-|-(?![A-Za-z])", s):
                continue
            if not overlaps(s, excluded):
                out.append(s)
    random.Random(f"{seed}/sentences").shuffle(out)
    return out


def grams(text):
    """All runs of `OVERLAP` words of a text."""
    words = re.findall(r"[a-z']+", text.lower())
    return {" ".join(words[i:i + OVERLAP]) for i in range(len(words) - OVERLAP + 1)}


def overlaps(text, excluded):
    """Whether a text shares a run of words with the excluded ones."""
    return bool(excluded) and not excluded.isdisjoint(grams(text))


def spoken_text(r, number, kinds, books):
    """`(kind, text for the engine)` of a clip."""
    kind = r.choices(list(kinds), list(kinds.values()))[0]
    if kind == "book":
        return (kind, books[number % len(books)]) if books else ("name", name_text(r))
    return kind, {"number": number_text, "digits": digits_text, "spelled": spelled_text, "command": command_text, "name": name_text,
                  "word": word_text}[kind](r)


def manifest_text(kind, text):
    """What the manifest says for an engine's text: spelled letters in lower case without separators."""
    if kind in ("spelled", "word"):
        return re.sub(r"\b([A-Z])\b,?", lambda m: m.group(1).lower(), text)
    return text


def run(command, **options):
    """Runs a program; its output matters only when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed ({done.returncode}): {done.stdout.decode(errors='replace')[-500:]}")


def speak(r, engine, kind, text, wav):
    """Writes one clip with a random voice of an engine; returns `(speaker, sox effects that finish the voice)`."""
    pace, warp = r.uniform(0.82, 1.22), r.choice(WARPS)
    if engine == "espeak":
        accent, variant = r.choice(ACCENTS), r.choice(VARIANTS)
        if kind == "spelled":
            text = re.sub(r"\bA\b", "[[eI]]", text)
        run(["espeak-ng", "-v", f"{accent}+{variant}", "-s", str(round(165 * pace)), "-p", str(r.randint(20, 80)), "-g", str(r.randint(0, 4)), "-w", wav, "--", text])
        return f"espeak-{accent}+{variant}", []
    if engine == "flite":
        voice = r.choice(FLITE)
        # `rms` ignores the pitch factor; the others keep their pitch within a fifth of its own after the warp
        pitch = r.uniform(0.85, 1.2)
        run(["flite", "-voice", voice, "--setf", f"duration_stretch={warp / pace:.3f}", "--setf", f"f0_shift={pitch / warp:.3f}", "-t", text, wav])
        return f"flite-{voice}-w{round(100 * warp)}", ["speed", f"{warp:.2f}"]
    voice = r.choice(list(FESTIVAL))
    pitch, spread = r.uniform(85, 190), r.uniform(8, 22)
    # the HTS voice takes neither rate nor pitch: its rate is changed afterwards, in the wave
    prosody = "" if voice == "slt-hts" else (
        f"(Parameter.set 'Duration_Stretch {warp / pace:.3f}) (set! int_lr_params '((target_f0_mean {pitch / warp:.0f}) (target_f0_std {spread:.0f})"
        " (model_f0_mean 170) (model_f0_std 34)))")
    scheme = f'({FESTIVAL[voice]}) {prosody} (utt.save.wave (utt.synth (Utterance Text "{text}")) "{wav}" (quote riff))'
    # a fifth of the default heap: clearing it is most of a start's time
    run(["festival", "--heap", "2000000", "--pipe"], input=scheme.encode())
    effects = ["speed", f"{warp:.2f}"] + (["tempo", "-s", f"{pace / warp:.3f}"] if voice == "slt-hts" else [])
    return f"festival-{voice}-w{round(100 * warp)}", effects


def clip(number, options, books):
    """Makes clip `number`: its manifest row, or None where its length is out of bounds or the text is excluded."""
    r = random.Random(f"{options.seed}/{number}")
    kind, text = spoken_text(r, number, options.kinds, books)
    engine = r.choices(list(options.engines), list(options.engines.values()))[0]
    name = f"{number // 1000:03}/{number:06}.{options.format}"
    path = os.path.join(options.out, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.temporary) as folder:
        raw, wav, final = (os.path.join(folder, f) for f in ("raw.wav", "clip.wav", f"clip.{options.format}"))
        try:
            speaker, effects = speak(r, engine, kind, text, raw)
        except RuntimeError as error:
            print(f"\nclip {number} left out: {error}", file=sys.stderr)
            return None
        silence = 0.7 if kind == "word" else 0.3
        pads, level = [f"{r.uniform(0.0, silence):.2f}" for _ in range(2)], r.uniform(1, 14)
        run(["sox", "-R", raw, "-b", "16", wav, *effects, "gain", "-n", f"-{level:.1f}", "rate", str(RATE), "pad", *pads])
        seconds = (os.path.getsize(wav) - 44) / 2 / RATE
        if not (WORD_SECONDS if kind == "word" else options.min_seconds) <= seconds <= options.max_seconds:
            return None
        if options.format == "opus":
            run(["opusenc", "--quiet", "--bitrate", "20", "--comp", "5", "--serial", str(number), wav, final])
        else:
            run(["sox", "-R", wav, final])
        shutil.copyfile(final, path + ".part")
        os.replace(path + ".part", path)
    return {"audio_filepath": name, "duration": round(seconds, 3), "text": manifest_text(kind, text), "speaker": speaker, "set": f"synthetic-{engine}",
            "lang": "en", "licence": LICENCES[engine], "source": f"synthesize.py seed {options.seed} clip {number} ({kind})"}


def shares(known):
    """A reader of `name=share,...` for `argparse`; the names must be among the known ones."""
    def read(text):
        out = {name: float(share) for name, share in (pair.split("=") for pair in text.split(","))}
        if unknown := set(out) - set(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
        return out
    return read


def resume(path):
    """Reads the manifest of an earlier start: `(next number, seconds so far)`; a half-written last line is cut off."""
    number, seconds, good = 0, 0.0, 0
    if os.path.exists(path):
        with open(path, "rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                row = json.loads(line)
                number, seconds, good = int(os.path.basename(row["audio_filepath"]).split(".")[0]) + 1, seconds + row["duration"], good + len(line)
        os.truncate(path, good)
    return number, seconds


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--out", required=True, help="folder for the audio and manifest.jsonl")
    p.add_argument("--text", help="sentences, one per line (.xz or plain); without it only generated texts are read")
    p.add_argument("--exclude", nargs="*", default=[], help="manifests whose transcripts must not be spoken")
    p.add_argument("--hours", type=float, default=1.0)
    p.add_argument("--kinds", type=shares(KINDS), default=KINDS, help="shares of the kinds of text, as in book=0.7,word=0.3")
    p.add_argument("--engines", type=shares(ENGINES), default=ENGINES, help="shares of the engines, as in flite=0.5,espeak=0.5")
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--format", choices=["opus", "flac"], default="opus")
    p.add_argument("--min-seconds", type=float, default=2.0)
    p.add_argument("--max-seconds", type=float, default=14.0)
    options = p.parse_args()
    needed = ["espeak-ng", "flite", "festival", "sox"] + (["opusenc"] if options.format == "opus" else [])
    if missing := [program for program in needed if not shutil.which(program)]:
        sys.exit(f"error: not installed: {', '.join(missing)}")
    excluded = set()
    for path in options.exclude:
        with open(path, encoding="utf-8") as lines:
            excluded.update(*(grams(json.loads(line)["text"]) for line in lines))
    books = sentences(options.text, excluded, options.seed) if options.text else []
    os.makedirs(options.out, exist_ok=True)
    options.temporary = "/dev/shm" if os.path.isdir("/dev/shm") else None
    path = os.path.join(options.out, "manifest.jsonl")
    number, seconds = resume(path)
    print(f"{len(books)} sentences; starting at clip {number} with {seconds / 3600:.2f} h", file=sys.stderr)
    began, before, block = time.time(), seconds, 16 * options.jobs
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool, open(path, "a", encoding="utf-8") as manifest:
        while seconds < options.hours * 3600:
            # rows are written in the order of their numbers, so the manifest is the state
            rows = list(pool.map(lambda n: clip(n, options, books), range(number, number + block)))
            if not any(rows):
                sys.exit(f"error: none of the clips {number} to {number + block - 1} could be made or had an allowed length")
            for row in rows:
                if row and seconds < options.hours * 3600:
                    manifest.write(json.dumps(row, ensure_ascii=False) + "\n")
                    seconds += row["duration"]
            manifest.flush()
            number += block
            speed = (seconds - before) / max(time.time() - began, 1e-9)
            print(f"\r{seconds / 3600:.2f} of {options.hours} h, {speed:.0f} times real time", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


if __name__ == "__main__":
    main()
