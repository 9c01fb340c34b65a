//! Readers of corpora, on small corpora of the same layout that are written here. Where an independent reader exists, what it makes of
//! the same folders is in `tests/golden/corpora/peers.json`, written by `benchmarks/corpora_peer.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use omniscribe::Error;
use omniscribe::audio::{Channel, Limits, Reader};
use omniscribe::eval::corpora::{self, Corpus, CorpusKind, ProblemKind, Rules, Utterance};
use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

use crate::sphere::{Packing, S16, ULAW_LEVELS_2, listen, pack, sphere, tune};

/// A folder with a corpus.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> &Self {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self
    }

    /// A WAV file; channel `c` is a tone of level `0.1 * (c + 1)`.
    fn wav(&self, path: &str, rate: u32, channels: u16, seconds: f64) -> &Self {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let spec = hound::WavSpec { channels, sample_rate: rate, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
        let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
        for i in 0..(f64::from(rate) * seconds) as usize {
            (1..=channels).for_each(|c| writer.write_sample(if i % 20 < 10 { 3277 } else { -3277 } * c as i16).unwrap());
        }
        writer.finalize().unwrap();
        self.write(path, bytes.into_inner())
    }

    /// One of the golden audio files, in another place.
    fn golden(&self, path: &str, name: &str) -> &Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/08_audio/valid").join(name);
        self.write(path, std::fs::read(from).unwrap())
    }

    /// A SPHERE file of 16-bit samples.
    fn sph(&self, path: &str, rate: u32, seconds: f64) -> &Self {
        let frames = (f64::from(rate) * seconds) as usize;
        let data: Vec<u8> = tune(frames, 0, -9_000, 9_000).iter().flat_map(|&v| (v as i16).to_le_bytes()).collect();
        self.write(path, sphere("pcm", 2, rate, 1, frames, &data))
    }

    fn open(&self, kind: CorpusKind, rules: &Rules) -> Corpus {
        corpora::open(kind, self.root(), rules).unwrap()
    }
}

fn rule(name: &str, value: &str) -> Rules {
    Rules::default().with(name, value).unwrap()
}

fn ids(corpus: &Corpus) -> Vec<&str> {
    corpus.utterances.iter().map(|u| u.id.as_str()).collect()
}

fn texts(corpus: &Corpus) -> Vec<&str> {
    corpus.utterances.iter().map(|u| u.reference.as_str()).collect()
}

fn problems(corpus: &Corpus) -> Vec<(ProblemKind, &str)> {
    corpus.problems.iter().map(|p| (p.what, p.place.as_str())).collect()
}

/// The samples of an utterance as the readers of audio give them.
fn heard(utterance: &Utterance) -> Vec<f32> {
    let rate = Reader::open(&utterance.audio, &Limits::default()).unwrap().sample_rate();
    let (samples, _) = listen(&utterance.audio, utterance.channel).unwrap();
    let at = |seconds: f64| rate.samples(seconds).min(samples.len());
    samples[at(utterance.start)..utterance.end.map_or(samples.len(), at)].to_vec()
}

fn librispeech() -> Site {
    let site = Site::new();
    for (name, text) in [
        ("61/70968/61-70968", "61-70968-0000 HE BEGAN A CONFUSED COMPLAINT\n61-70968-0001 GIVE NOT SO EARNEST A MIND\n"),
        ("61/70970/61-70970", "61-70970-0000 YOUNG FITZOOTH\n61-70970-0001  IT'S A  TEST \n"),
        ("121/121726/121-121726", "121-121726-0000 ALSO A POPULAR CONTRIVANCE\n"),
    ] {
        site.write(&format!("LibriSpeech/test-clean/{name}.trans.txt"), text);
        for line in text.lines() {
            let id = line.split(' ').next().unwrap();
            let folder = Path::new(name).parent().unwrap().display();
            site.golden(&format!("LibriSpeech/test-clean/{folder}/{id}.flac"), "flac_s16_16k.flac");
        }
    }
    site.write("LibriSpeech/SPEAKERS.TXT", ";ID |SEX\n");
    site
}

fn common_voice() -> Site {
    let site = Site::new();
    let header = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\tlocale\tsegment\n";
    let row =
        |speaker: &str, clip: &str, text: &str| format!("{speaker}\t{clip}\t{text}\t2\t0\ttwenties\tmale\tUnited States English\t\ten\t\n");
    let table = [
        header.to_string(),
        row("0a1b", "common_voice_en_699711.mp3", "\"What's that?\" he asked."),
        row("0a1b", "common_voice_en_699712.mp3", "\"An unbalanced quote, and a tab-free end"),
        row("ffee", "common_voice_en_99.mp3", "\"\"\"Doubled\"\" quotes\" stay: naïve café — “typographic”."),
    ];
    site.write("cv-corpus-5.1-2020-06-22/en/test.tsv", table.concat());
    for n in ["699711", "699712", "99"] {
        site.golden(&format!("cv-corpus-5.1-2020-06-22/en/clips/common_voice_en_{n}.mp3"), "mp3_48k_noxing.mp3");
    }
    site
}

fn fleurs() -> Site {
    let site = Site::new();
    let row = |id: &str, file: &str, raw: &str, text: &str| format!("{id}\t{file}.wav\t{raw}\t{text}\tc h a r s |\t16000\tFEMALE\n");
    let table = [
        row("1675", "10147450879143253172", "However, due to the slow 3G channels.", "however due to the slow 3g channels"),
        row("1675", "14146198410151243462", "However, due to the slow 3G channels.", "however due to the slow 3g channels"),
        row("1904", "16163331391530294498", "\"All nouns\" start with a capital.", "all nouns start with a capital"),
    ];
    site.write("data/en_us/test.tsv", table.concat());
    for file in ["10147450879143253172", "14146198410151243462", "16163331391530294498"] {
        site.wav(&format!("data/en_us/audio/test/{file}.wav"), 16_000, 1, 1.0);
    }
    site
}

fn tedlium() -> Site {
    let site = Site::new();
    let part = "TEDLIUM_release-3/legacy/test";
    site.write(
        &format!("{part}/stm/AimeeMullins_2009P.stm"),
        "AimeeMullins_2009P 1 AimeeMullins 17.82 28.81 <o,f0,female> i 'd like to share with you a discovery that i made\n\
         AimeeMullins_2009P 1 AimeeMullins 0.29 17.82 <o,f0,female> ignore_time_segment_in_scoring\n\
         AimeeMullins_2009P 1 AimeeMullins 28.9 29.41 <o,f0,female> it was n't easy <unk> they 're there ' cause of {NOISE} it 's\n",
    );
    site.write(
        &format!("{part}/stm/BillGates_2010.stm"),
        "BillGates_2010 1 BillGates 1.5 4.07 <o,f0,male> in the '60s we said\nBillGates_2010 1 BillGates 5 6.25 <o,f0,male> thank you\n",
    );
    site.sph(&format!("{part}/sph/AimeeMullins_2009P.sph"), 16_000, 30.0).sph(&format!("{part}/sph/BillGates_2010.sph"), 16_000, 7.0);
    site
}

/// Words and segments of one AMI speaker in NXT's XML. Words last 0.3 s; `|` parts segments by half a second; `~` is a sound, `=` at the
/// end a word cut short, `@` at the start a word without times.
fn ami_speaker(site: &Site, meeting: &str, agent: &str, script: &str) {
    let head = |what: &str| {
        format!(
            "<?xml version=\"1.0\" encoding=\"ISO-8859-1\" standalone=\"yes\"?>\n\
             <nite:root nite:id=\"{meeting}.{agent}.{what}\" xmlns:nite=\"http://nite.sourceforge.net/\">\n"
        )
    };
    let (mut words, mut segments) = (head("words"), head("segs"));
    let (mut n, mut hundredths) = (0, 1_000 + 37 * i64::from(agent.as_bytes()[0] - b'A'));
    let time = |hundredths: i64| format!("{}.{:02}", hundredths / 100, hundredths % 100);
    for (s, script) in script.split('|').enumerate() {
        let (first, start) = (n, hundredths);
        for token in script.split_whitespace() {
            let id = format!("nite:id=\"{meeting}.{agent}.words{n}\"");
            let (from, mark) = (hundredths, matches!(token, "." | "," | "?" | "!" | ":" | "-"));
            hundredths += if mark || token.starts_with('@') { 0 } else { 30 };
            let times = format!("starttime=\"{}\" endtime=\"{}\"", time(from), time(hundredths));
            let text = token.trim_matches(['@', '=']).replace('&', "&amp;").replace('\'', "&#39;");
            words += &match token {
                _ if mark => format!("   <w {id} {times} punc=\"true\">{text}</w>\n"),
                _ if token.starts_with('~') => format!("   <vocalsound {id} {times} type=\"{}\"/>\n", &token[1..]),
                _ if token.starts_with('@') => format!("   <w {id}>{text}</w>\n"),
                _ if token.ends_with('=') => format!("   <w {id} {times} trunc=\"true\">{text}</w>\n"),
                _ => format!("   <w {id} {times}>{text}</w>\n"),
            };
            n += 1;
        }
        let last = if n - 1 > first { format!("..id({meeting}.{agent}.words{})", n - 1) } else { String::new() };
        segments += &format!(
            "   <segment nite:id=\"{meeting}.sync.{agent}{s}\" transcriber_start=\"{}\" transcriber_end=\"{}\">\n      \
             <nite:child href=\"{meeting}.{agent}.words.xml#id({meeting}.{agent}.words{first}){last}\"/>\n   </segment>\n",
            time(start - 5),
            time(hundredths + 5)
        );
        hundredths += 50;
    }
    let folder = "ami_public_manual_1.6.2";
    site.write(&format!("{folder}/words/{meeting}.{agent}.words.xml"), words + "</nite:root>\n");
    site.write(&format!("{folder}/segments/{meeting}.{agent}.segments.xml"), segments + "</nite:root>\n");
}

fn ami() -> Site {
    let site = Site::new();
    let mut meetings =
        String::from("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<nite:root xmlns:nite=\"http://nite.sourceforge.net/\">\n");
    for (meeting, speakers) in [("ES2004a", ["FEE013", "MEE014"]), ("ES2002a", ["MEE006", "FEE005"]), ("IB4001", ["MIE001", "FIE002"])] {
        meetings += &format!("  <meeting nite:id=\"m_{meeting}\" observation=\"{meeting}\" type=\"scenario\">\n");
        for (channel, (agent, name)) in ["A", "B"].iter().zip(speakers).enumerate() {
            meetings += &format!(
                "    <speaker nite:id=\"{meeting}.{agent}\" nxt_agent=\"{agent}\" global_name=\"{name}\" channel=\"{channel}\" camera=\"Closeup1\" role=\"PM\"/>\n"
            );
            site.wav(&format!("amicorpus/{meeting}/audio/{meeting}.Headset-{channel}.wav"), 16_000, 1, 80.0);
        }
        meetings += "  </meeting>\n";
    }
    site.write("ami_public_manual_1.6.2/corpusResources/meetings.xml", meetings + "</nite:root>\n");
    let long = |n: usize, word: &str| (0..n).map(|i| format!("{word}{}", (b'a' + (i % 26) as u8) as char)).collect::<Vec<_>>().join(" ");
    ami_speaker(
        &site,
        "ES2004a",
        "A",
        &format!(
            "Okay . Um,I think , we do n't ? ~laugh Mm-hmm ! O_K | ~cough | X_M_L the anti-trust wo= : uh-huh . | \
             {} , {} , {} , {} . Short one , yes ? | @untimed word . | Well - dash .",
            long(14, "one"),
            long(12, "two"),
            long(9, "three"),
            long(20, "four")
        ),
    );
    ami_speaker(
        &site,
        "ES2004a",
        "B",
        &format!("It's {} and no comma at all . | {} , end | Rock&roll , A,B,C , R._M. | hm", long(40, "x"), long(35, "y")),
    );
    for meeting in ["ES2002a", "IB4001"] {
        ami_speaker(&site, meeting, "A", "Not in the test set .");
        ami_speaker(&site, meeting, "B", "Nor this .");
    }
    site
}

fn chime6() -> Site {
    let site = Site::new();
    let segment = |speaker: &str, start: &str, end: &str, words: &str| serde_json::json!({"end_time": end, "start_time": start, "words": words, "speaker": speaker, "ref": "U02", "location": "kitchen", "session_id": "S01"});
    let mut first = vec![
        segment("P01", "0:00:01.05", "0:00:03.44", "Yeah, I \"like\" it -- mm-hmm. Right?  OK!"),
        segment("P02", "0:00:02.00", "0:00:04.10", "[inaudible 0:00:02.40] so - what; no: [laughs]"),
        segment("P01", "0:00:05.00", "0:00:05.90", "my name is [redacted]"),
        segment("P02", "0:00:08.00", "0:00:07.10", "backwards"),
        segment("P02", "0:00:08.10", "0:00:09.55", "It's 5:30."),
    ];
    first[4].as_object_mut().unwrap().remove("location");
    site.write("CHiME6/transcriptions/eval/S01.json", serde_json::to_string_pretty(&first).unwrap());
    let mut second = segment("P45", "0:01:00.10", "0:01:01.00", "second session");
    second["session_id"] = "S21".into();
    site.write("CHiME6/transcriptions/eval/S21.json", serde_json::to_string(&[second]).unwrap());
    for file in ["S01_P01", "S01_P02"] {
        site.wav(&format!("CHiME6/audio/eval/{file}.wav"), 16_000, 2, 10.0);
    }
    site.wav("CHiME6/audio/eval/S21_P45.wav", 16_000, 2, 62.0).wav("CHiME6/audio/eval/S01_U01.CH1.wav", 16_000, 1, 1.0);
    site
}

/// Two calls: mu-law SPHERE of two channels, one packed with shorten.
fn hub5() -> Site {
    let site = Site::new();
    site.write(
        "LDC2002T43/reference/hub5e00.english.000405.stm",
        ";; LABEL \"O\" \"Overall\" \"Overall\"\n\
         en_4156 A en_4156_A 0.50 1.25 <O,en,F,en-F>  OH YEAH\n\
         en_4156 A en_4156_A 1.25 2.10 <O,en,F,en-F>  IGNORE_TIME_SEGMENT_IN_SCORING\n\
         en_4156 A en_4156_A 2.30 3.64 <O,en,F,en-F>  ((%HESITATION) HE IS { A / THE / @ } POLICE (OFF-) OFFICER [LAUGHTER]\n\
         en_4156 B en_4156_B 0.05 0.90 <O,en,M,en-M>  <B_ASIDE> WHAT'S THAT <E_ASIDE> UM\n\
         en_4156 B en_4156_B 3.00 3.70 <O,en,M,en-M>  UH-HUH\n\
         sw_4390 A sw_4390_A 0.10 1.00 <O,sw,M,sw-M>  HELLO\n\
         sw_4390 A sw_4390_A 1.08 1.90 <O,sw,M,sw-M>  I (I-) KNOW\n\
         sw_4390 B sw_4390_B 1.0 1.95 <O,sw,F,sw-F>  SO\n",
    );
    site.write("LDC2002T43/reference/en20000405_hub5.glm", ";; \n* name \"x\"\n");
    site.write(
        "LDC2002S09/hub5e_00/english/hub5e_00.pem",
        ";; comment\nen_4156 A unknown_speaker 0.50 1.25\nen_4156 A unknown_speaker 1.25 2.10\nen_4156 A unknown_speaker 2.30 3.64\n\
         en_4156 B unknown_speaker 0.05 0.90\nen_4156 B unknown_speaker 3.00 3.70\nsw_4390 A unknown_speaker 0.10 1.00\n\
         sw_4390 A unknown_speaker 1.08 1.90\nsw_4390 B unknown_speaker 1.00 1.95\n",
    );
    let levels: Vec<Vec<i32>> = (0..2).map(|c| tune(32_000, c, -120, 120)).collect();
    let packed = pack(&Packing::plain(2, ULAW_LEVELS_2), &levels, |v, _| v);
    site.write("LDC2002S09/hub5e_00/english/en_4156.sph", sphere("ulaw,embedded-shorten-v2.00", 1, 8_000, 2, 32_000, &packed));
    let codes: Vec<u8> = (0..16_000).flat_map(|i| levels.iter().map(move |l| (255 - l[i].abs()) as u8)).collect();
    site.write("LDC2002S09/hub5e_00/english/sw_4390.sph", sphere("ulaw", 1, 8_000, 2, 16_000, &codes));
    site
}

/// The case of folders and names differs between copies of the disks.
fn wsj() -> Site {
    let site = Site::new();
    site.write(
        "11-13.1/wsj0/doc/indices/test/nvp/si_et_20.ndx",
        ";; comment\n11_14_1:wsj0/si_et_20/440/440c0401\n11_14_1:wsj0/si_et_20/440/440c0402\n11_14_1:wsj0/si_et_20/441/441c0403\n",
    );
    site.write("11-13.1/wsj0/doc/indices/test/vp/si_et_20.ndx", "11_14_1:wsj0/si_et_20/440/440o0401\n");
    site.write("11-13.1/wsj0/doc/indices/test/nvp/si_et_05.ndx", "11_14_1:wsj0/si_et_05/440/440c0201\n");
    site.write(
        "11-14.1/wsj0/transcrp/dots/si_et_20/440/440c0400.dot",
        "Drexel Burnham Lambert Group Incorporated [<door_slam] said . \\[it\\] <and> fifty %percent (440c0401)\n\
         [tongue_click] three .point five --dash it's the [phone_ring/] end [/phone_ring] ~ (440c0402)\n",
    );
    site.write("11-14.1/WSJ0/TRANSCRP/DOTS/SI_ET_20/441/441C0400.DOT", "Upper case names (441c0403)\n");
    site.write("11-14.1/wsj0/transcrp/dots/si_et_05/440/440c0200.dot", "Five thousand words (440c0201)\n");
    for path in [
        "wsj0/si_et_20/440/440c0401.wv1",
        "wsj0/si_et_20/440/440c0402.wv1",
        "WSJ0/SI_ET_20/441/441C0403.WV1",
        "wsj0/si_et_05/440/440c0201.wv1",
    ] {
        let values = vec![tune(8_000, 1, -6_000, 6_000)];
        let data = pack(&Packing::plain(2, S16), &values, |v, _| v);
        site.write(&format!("11-14.1/{path}"), sphere("pcm,embedded-shorten-v2.00", 2, 16_000, 1, 8_000, &data));
    }
    site
}

fn voxpopuli() -> Site {
    let site = Site::new();
    let header = "id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender\tis_gold_transcript\taccent\n";
    let rows = [
        "20090112-0900-PLENARY-13-en_20090112-19:47:31_4\tMr President, \"50%\".\tmr president fifty percent\t28115\ttest\tmale\tTrue\tNone\n",
        "20180612-0900-PLENARY-1-en_20180612-09:10:00_0\tThank you.\tthank you\t\ttest\tfemale\tTrue\tNone\n",
    ];
    site.write("transcribed_data/en/asr_test.tsv", [header, rows[0], rows[1]].concat());
    site.golden("transcribed_data/en/2009/20090112-0900-PLENARY-13-en_20090112-19:47:31_4.ogg", "ogg_vorbis_16k.ogg");
    site.golden("transcribed_data/en/2018/20180612-0900-PLENARY-1-en_20180612-09:10:00_0.ogg", "ogg_vorbis_16k.ogg");
    site
}

fn kaldi() -> Site {
    let site = Site::new();
    site.wav("audio/a.wav", 16_000, 1, 4.0).wav("audio/b c.wav", 8_000, 2, 3.0).golden("audio/d.flac", "flac_s16_16k.flac");
    site.write(
        "data/test/wav.scp",
        "rec-a audio/a.wav\nrec-b sox 'audio/b c.wav' -t wav - remix 2 |\nrec-d flac -c -d -s audio/d.flac |\n",
    );
    site.write("data/test/segments", "a-1 rec-a 0.5 1.75\na-2 rec-a 2 -1\nb-1 rec-b 0 1.5\nd-1 rec-d 0.1 0.6\n");
    site.write("data/test/text", "a-1 first words\na-2 to  the end\nb-1 second channel\nd-1 flac\n");
    site.write("data/test/utt2spk", "a-1 sa\na-2 sa\nb-1 sb\nd-1 sd\n");
    site
}

fn nemo() -> Site {
    let site = Site::new();
    site.wav("wavs/a.wav", 16_000, 1, 4.0).wav("wavs/b.wav", 16_000, 1, 2.0);
    site.write(
        "test_manifest.json",
        "{\"audio_filepath\": \"wavs/a.wav\", \"duration\": 1.5, \"text\": \"from an offset\", \"offset\": 0.5, \"speaker\": 7, \"pnc\": \"yes\"}\n\
         {\"audio_filepath\": \"wavs/a.wav\", \"duration\": 1.0, \"text\": \"and another\", \"offset\": 2.5}\n\
         {\"audio_filepath\": \"wavs/b.wav\", \"duration\": 2.0, \"text\": \"Whole file.\", \"lang\": \"en\"}\n",
    );
    site.write("train_manifest.json", "{\"audio_filepath\": \"wavs/b.wav\", \"duration\": 2.0, \"text\": \"not this\"}\n");
    site
}

/// Manifests that Lhotse itself wrote, with audio where they say.
fn lhotse(manifests: &[&str]) -> Site {
    let site = Site::new();
    site.wav("audio/mono.wav", 16_000, 1, 5.0).wav("audio/stereo.wav", 8_000, 2, 4.0);
    for name in manifests {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/corpora").join(name);
        site.write(name, std::fs::read(from).unwrap());
    }
    site
}

fn huggingface() -> Site {
    let site = Site::new();
    site.wav("test/data/a.wav", 16_000, 1, 1.0).golden("test/data/b.mp3", "mp3_cbr64_16k.mp3");
    site.write("test/metadata.csv", "file_name,transcription,speaker_id\r\ndata/a.wav,\"One, \"\"two\"\".\",s1\r\ndata/b.mp3,three,\r\n");
    site
}

fn sclite() -> Site {
    let site = Site::new();
    site.wav("sw_1.wav", 8_000, 2, 3.0);
    site.write(
        "ref.stm",
        ";; x\nsw_1 A spk-a 0.0 1.5 <o,male> hello { there / their } (uh) [noise]\nsw_1 B spk-b 0.5 2.0 hi\nsw_1 B spk-b 2.0 2.5 ignore_time_segment_in_scoring\n",
    );
    site.write("hyp.ctm", "sw_1 A 0.1 0.2 hello\n");
    site
}

fn folder() -> Site {
    let site = Site::new();
    site.golden("one/x.flac", "flac_8k.flac").write("one/x.txt", "\u{feff}Some words\nover lines.\n");
    site.wav("y.wav", 16_000, 1, 0.5).write("y.txt", "more").write("README.txt", "About this folder.");
    site
}

/// The corpora by kind, but for LibriSpeech's other half, Kaldi and Lhotse.
fn most() -> Vec<(CorpusKind, Site)> {
    use CorpusKind::*;
    let sites: [(CorpusKind, fn() -> Site); 14] = [
        (LibriSpeechClean, librispeech),
        (CommonVoice, common_voice),
        (Fleurs, fleurs),
        (TedLium, tedlium),
        (AmiIhm, ami),
        (Chime6, chime6),
        (Hub5CallHome, hub5),
        (Hub5Switchboard, hub5),
        (WsjNov92, wsj),
        (VoxPopuli, voxpopuli),
        (Nemo, nemo),
        (HuggingFace, huggingface),
        (Sclite, sclite),
        (Folder, folder),
    ];
    sites.map(|(kind, make)| (kind, make())).into()
}

/// What a peer read in one of the folders: objects with the fields it knows.
fn peer(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/corpora/peers.json");
    let peers: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    peers["utterances"][name].as_array().unwrap_or_else(|| panic!("no peer {name}")).clone()
}

/// Times agree to a tenth of a millisecond: peers round to samples or to four decimals.
const TIME_TOLERANCE: f64 = 1e-4;

/// Compares every utterance with the peer's, field by field, in the order of (recording, start, speaker, id); `length` seconds for open ends.
fn assert_as_peer(corpus: &Corpus, name: &str) {
    let mut peer = peer(name);
    let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_string();
    let key = |v: &Value| (text(v, "audio"), v["start"].as_f64().unwrap_or(0.0), v["channel"].as_u64());
    peer.sort_by(|a, b| key(a).partial_cmp(&key(b)).unwrap());
    let mut ours: Vec<&Utterance> = corpus.utterances.iter().collect();
    let file = |u: &Utterance| u.audio.file_name().unwrap().to_string_lossy().into_owned();
    ours.sort_by(|a, b| (file(a), a.start, a.channel).partial_cmp(&(file(b), b.start, b.channel)).unwrap());
    let lines = |u: &Utterance| format!("{} {} {:?} {:?} {}", u.id, u.start, u.end, u.channel, u.reference);
    let all = ours.iter().map(|u| lines(u)).collect::<Vec<_>>().join("\n");
    assert_eq!(ours.len(), peer.len(), "{name}: ours are\n{all}");
    for (ours, theirs) in ours.into_iter().zip(&peer) {
        let what = format!("{name}: {}\nagainst {theirs}", lines(ours));
        assert_eq!(file(ours), text(theirs, "audio"), "{what}");
        let collapsed = text(theirs, "text").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(ours.reference, collapsed, "{what}");
        for (own, field) in [(Some(ours.start), "start"), (ours.end, "end"), (ours.duration, "duration")] {
            if let (Some(own), Some(their)) = (own, theirs[field].as_f64()) {
                assert!((own - their).abs() < TIME_TOLERANCE, "{field}: {what}");
            }
        }
        for (own, field) in [(Some(ours.id.as_str()), "id"), (ours.speaker.as_deref(), "speaker")] {
            if let Some(their) = theirs[field].as_str() {
                assert_eq!(own, Some(their), "{field}: {what}");
            }
        }
        if let Some(channel) = theirs["channel"].as_u64() {
            assert_eq!(ours.channel, Channel::Nth(channel as usize), "{what}");
        }
    }
}

#[test]
fn librispeech_is_read_as_lhotse_reads_it() {
    let site = librispeech();
    let corpus = site.open(CorpusKind::LibriSpeechClean, &Rules::default());
    assert_eq!((corpus.name.as_str(), corpus.utterances.len(), corpus.problems.len()), ("librispeech-clean", 5, 0));
    assert_as_peer(&corpus, "librispeech/lhotse");
    assert_eq!(corpus.utterances[0].recording, "121-121726");
    assert_eq!(heard(&corpus.utterances[0]).len(), 12_800);
    // The folder of the part itself will do too.
    let part = site.root().join("LibriSpeech/test-clean");
    assert_eq!(corpora::open(CorpusKind::LibriSpeechClean, &part, &Rules::default()).unwrap().utterances.len(), 5);
}

#[test]
fn common_voice_is_read_as_lhotse_reads_it() {
    let corpus = common_voice().open(CorpusKind::CommonVoice, &Rules::default());
    assert_as_peer(&corpus, "common-voice/lhotse");
    assert_eq!(texts(&corpus)[0], "\"What's that?\" he asked.");
    assert!(corpus.problems.is_empty());
}

#[test]
fn common_voice_mp3_is_heard() {
    let site = common_voice();
    let corpus = site.open(CorpusKind::CommonVoice, &Rules::default());
    assert!(heard(&corpus.utterances[0]).len() > 1_000);
}

#[test]
fn fleurs_is_read_as_lhotse_reads_it() {
    let site = fleurs();
    let corpus = site.open(CorpusKind::Fleurs, &Rules::default());
    assert_as_peer(&corpus, "fleurs/lhotse");
    assert_eq!(ids(&corpus)[..2], ["1675_1_10147450879143253172", "1675_2_14146198410151243462"]);
    assert_eq!((corpus.utterances[0].duration, corpus.utterances[0].speaker.as_deref()), (Some(1.0), None));
    let raw = site.open(CorpusKind::Fleurs, &rule("fleurs-text", "raw"));
    assert_eq!(texts(&raw)[2], "\"All nouns\" start with a capital.");
    assert_eq!(raw.rules["fleurs-text"], "raw");
}

#[test]
fn fleurs_archives_are_to_be_unpacked() {
    let site = fleurs();
    std::fs::remove_dir_all(site.root().join("data/en_us/audio/test")).unwrap();
    let said = corpora::open(CorpusKind::Fleurs, site.root(), &Rules::default()).unwrap_err().to_string();
    assert!(said.contains("looked for audio/test/"), "{said}");
    site.write("data/en_us/audio/test.tar.gz", "");
    let said = corpora::open(CorpusKind::Fleurs, site.root(), &Rules::default()).unwrap_err().to_string();
    assert!(said.contains("test.tar.gz: the clips are packed: unpack it"), "{said}");
}

#[test]
fn tedlium_is_read_as_kaldi_and_lhotse_read_it() {
    let site = tedlium();
    let kaldi = site.open(CorpusKind::TedLium, &Rules::default());
    assert_as_peer(&kaldi, "tedlium/kaldi");
    assert_as_peer(&site.open(CorpusKind::TedLium, &rule("ted-suffixes", "lhotse")), "tedlium/lhotse");
    assert_eq!(ids(&kaldi)[0], "AimeeMullins_2009P-0001782-0002881");
    assert_eq!(texts(&kaldi)[1], "it was n't easy they're there' cause of it's");
    assert_eq!(kaldi.dropped, BTreeMap::from([("ignore_time_segment_in_scoring", 1)]));
    assert_eq!(
        texts(&site.open(CorpusKind::TedLium, &rule("ted-suffixes", "apart")))[0],
        "i 'd like to share with you a discovery that i made"
    );
    assert_eq!(heard(&kaldi.utterances[2]).len(), (2.57 * 16_000.0) as usize);
}

#[test]
fn ami_is_cut_and_cleaned_as_kaldi_does() {
    let corpus = ami().open(CorpusKind::AmiIhm, &Rules::default());
    assert_as_peer(&corpus, "ami/kaldi");
    assert_eq!(texts(&corpus)[1], "THINK WE DO N'T");
    assert!(
        corpus.dropped["segment without words"] == 1 && corpus.dropped["times of punctuation do not match"] > 0,
        "{:?}",
        corpus.dropped
    );
    // The other meetings of the test set are not there.
    assert_eq!(corpus.problem_counts(), BTreeMap::from([(ProblemKind::MissingTranscript, 15)]));
    let fixed = ami().open(CorpusKind::AmiIhm, &rule("ami-commas", "fixed"));
    assert_eq!(fixed.utterances.len(), corpus.utterances.len());
    assert_eq!(texts(&fixed)[1], "UM I THINK WE DO N'T");
}

#[test]
fn ami_is_cut_and_cleaned_as_lhotse_does() {
    assert_as_peer(&ami().open(CorpusKind::AmiIhm, &rule("ami-segments", "lhotse")), "ami/lhotse");
}

#[test]
fn ami_headsets_are_heard() {
    let site = ami();
    let corpus = site.open(CorpusKind::AmiIhm, &Rules::default());
    let utterance = &corpus.utterances[0];
    assert_eq!(heard(utterance).len(), (utterance.duration.unwrap() * 16_000.0).round() as usize);
    assert_eq!((utterance.speaker.as_deref(), utterance.recording.as_str()), (Some("FEE013"), "ES2004a"));
}

#[test]
fn chime6_is_read_as_kaldi_and_lhotse_read_it() {
    let site = chime6();
    let both = site.open(CorpusKind::Chime6, &rule("chime6-channels", "left-and-right"));
    assert_as_peer(&both, "chime6/kaldi");
    let mix = site.open(CorpusKind::Chime6, &Rules::default());
    assert_as_peer(&mix, "chime6/lhotse");
    assert_eq!(mix.dropped, BTreeMap::from([("[redacted]", 1), ("end before start", 1)]));
    assert!(mix.problems.is_empty(), "{:?}", mix.problems);
    let level = |u: &Utterance| heard(u).iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let near = |a: f32, b: f32| (a - b).abs() < 1e-3;
    assert!(near(level(&both.utterances[0]), 0.1) && near(level(&both.utterances[1]), 0.2) && near(level(&mix.utterances[0]), 0.15));
    let seven = site.open(CorpusKind::Chime6, &rule("chime6-sessions", "chime7"));
    assert_eq!(
        problems(&seven),
        [(ProblemKind::MissingTranscript, "S19"), (ProblemKind::MissingTranscript, "S20"), (ProblemKind::MissingTranscript, "S21")][..2]
    );
}

#[test]
fn chime5_times_are_those_of_the_worn_microphone() {
    let site = chime6();
    let segment = "[{\"session_id\": \"S01\", \"speaker\": \"P01\", \"words\": \"a\", \"start_time\": {\"original\": \"0:00:01.50\", \"U01\": \"0:00:09.00\"}, \
                   \"end_time\": {\"U01\": \"0:00:09.10\", \"original\": \"0:00:02.00\"}}, \
                   {\"session_id\": \"S01\", \"words\": \"nobody\", \"start_time\": {\"original\": \"0:00:01.50\"}, \"end_time\": {\"original\": \"0:00:02.00\"}}]";
    site.write("CHiME6/transcriptions/eval/S01.json", segment);
    let corpus = site.open(CorpusKind::Chime6, &Rules::default());
    assert_eq!((corpus.utterances[0].start, corpus.utterances[0].end), (1.5, Some(2.0)));
    assert_eq!(ids(&corpus)[0], "P01_S01_NOLOCATION-0000150-0000200");
    assert_eq!(corpus.dropped, BTreeMap::from([("no speaker or words", 1)]));
}

#[test]
fn hub5_is_read_as_kaldi_reads_it() {
    let site = hub5();
    for (kind, name) in [(CorpusKind::Hub5CallHome, "hub5-callhome"), (CorpusKind::Hub5Switchboard, "hub5-switchboard")] {
        let corpus = site.open(kind, &Rules::default());
        assert_eq!((corpus.name.as_str(), corpus.problems.len()), (name, 0), "{:?}", corpus.problems);
        assert_as_peer(&corpus, &format!("{name}/kaldi"));
        assert_as_peer(&site.open(kind, &rule("hub5-padding", "tenth")), &format!("{name}/kaldi-padded"));
    }
}

#[test]
fn hub5_sides_are_channels_of_packed_files() {
    let site = hub5();
    let callhome = site.open(CorpusKind::Hub5CallHome, &Rules::default());
    assert_eq!(callhome.dropped, BTreeMap::from([("IGNORE_TIME_SEGMENT_IN_SCORING", 1)]));
    let (a, b) = (&callhome.utterances[0], &callhome.utterances[2]);
    assert_eq!(
        (a.channel, b.channel, a.speaker.as_deref(), b.recording.as_str()),
        (Channel::Nth(0), Channel::Nth(1), Some("en_4156-A"), "en_4156")
    );
    assert_eq!(heard(a).len(), 6_000);
    assert_ne!(heard(a)[..100], heard(b)[..100]);
    let words = site.open(CorpusKind::Hub5CallHome, &rule("stm-text", "words"));
    assert_eq!(texts(&words), ["OH YEAH", "HE IS A POLICE OFFICER", "WHAT'S THAT", "UH-HUH"]);
    // The partition and the references may contradict each other.
    site.write("LDC2002S09/hub5e_00/english/hub5e_00.pem", "en_4156 A unknown_speaker 0.50 1.25\nen_4156 A unknown_speaker 9 10\n");
    let corpus = site.open(CorpusKind::Hub5CallHome, &Rules::default());
    assert_eq!(corpus.problem_counts(), BTreeMap::from([(ProblemKind::Contradiction, 5)]));
    assert!(corpora::open(CorpusKind::Hub5CallHome, site.root(), &rule("split", "dev")).is_err());
}

#[test]
fn wsj_is_read_as_kaldi_reads_it() {
    let site = wsj();
    let corpus = site.open(CorpusKind::WsjNov92, &Rules::default());
    assert_eq!(ids(&corpus), ["440c0401", "440c0402", "441c0403"]);
    assert_as_peer(&corpus, "wsj-nov92/kaldi");
    assert_eq!(texts(&site.open(CorpusKind::WsjNov92, &rule("wsj-vocabulary", "5k"))), ["FIVE THOUSAND WORDS"]);
    let samples = heard(&corpus.utterances[2]);
    let expected = tune(8_000, 1, -6_000, 6_000);
    assert!(samples.iter().zip(&expected).all(|(s, &e)| *s == e as f32 / 32_768.0) && samples.len() == 8_000);
}

#[test]
fn wsj_names_what_is_missing() {
    let site = wsj();
    std::fs::remove_file(site.root().join("11-14.1/wsj0/si_et_20/440/440c0401.wv1")).unwrap();
    site.write("11-14.1/wsj0/transcrp/dots/si_et_20/440/440c0400.dot", "one (440c0401)\nno id\n");
    let corpus = site.open(CorpusKind::WsjNov92, &Rules::default());
    assert_eq!(ids(&corpus), ["441c0403"]);
    let counts = corpus.problem_counts();
    assert_eq!(counts, BTreeMap::from([(ProblemKind::MissingAudio, 1), (ProblemKind::MissingTranscript, 1), (ProblemKind::BadLine, 1)]));
}

#[test]
fn voxpopuli_by_year() {
    let site = voxpopuli();
    let corpus = site.open(CorpusKind::VoxPopuli, &Rules::default());
    assert_eq!(texts(&corpus), ["mr president fifty percent", "thank you"]);
    assert_eq!((corpus.utterances[0].speaker.as_deref(), corpus.utterances[1].speaker.as_deref()), (Some("28115"), None));
    assert_eq!(corpus.utterances[0].recording, "20090112-0900-PLENARY-13-en");
    assert!(heard(&corpus.utterances[0]).len() > 10_000);
    let raw = site.open(CorpusKind::VoxPopuli, &rule("voxpopuli-text", "raw"));
    assert_eq!(texts(&raw)[0], "Mr President, \"50%\".");
}

#[test]
fn kaldi_directories_are_read_as_lhotse_reads_them() {
    let site = kaldi();
    let data = site.root().join("data/test");
    let corpus = corpora::open(CorpusKind::Kaldi, &data, &Rules::default()).unwrap();
    assert!(corpus.problems.is_empty(), "{:?}", corpus.problems);
    assert_eq!(texts(&corpus), ["first words", "to the end", "second channel", "flac"]);
    assert_as_peer(&corpus, "kaldi/lhotse");
    assert_eq!(corpus.utterances[2].channel, Channel::Nth(1));
    assert!(heard(&corpus.utterances[2]).iter().all(|x| (x.abs() - 0.2).abs() < 1e-3));
    assert_eq!((heard(&corpus.utterances[1]).len(), corpus.utterances[1].end), (32_000, None));
    // Without segments an utterance is a recording.
    std::fs::remove_file(data.join("segments")).unwrap();
    std::fs::write(data.join("text"), "rec-a whole\nrec-z lost\n").unwrap();
    std::fs::write(data.join("utt2dur"), "rec-a 4.0\n").unwrap();
    let corpus = corpora::open(CorpusKind::Kaldi, &data, &Rules::default()).unwrap();
    assert_eq!((ids(&corpus), corpus.utterances[0].duration), (vec!["rec-a"], Some(4.0)));
    assert_eq!(problems(&corpus), [(ProblemKind::MissingAudio, "rec-z")]);
}

#[test]
fn kaldi_directories_never_run_a_shell() {
    let site = kaldi();
    let canary = site.root().join("canary");
    site.write(
        "data/test/wav.scp",
        format!("rec-a touch {0}; cat audio/a.wav |\nrec-b cat $(touch {0}) |\nrec-d touch {0} |\n", canary.display()),
    );
    let corpus = corpora::open(CorpusKind::Kaldi, &site.root().join("data/test"), &Rules::default()).unwrap();
    assert!(!canary.exists() && corpus.utterances.is_empty());
    assert_eq!(corpus.problem_counts(), BTreeMap::from([(ProblemKind::UnsupportedSource, 3)]));
    site.write("data/test/wav.scp", "rec-a audio/a.wav\n")
        .write("data/test/segments", "a-1 rec-a 1 0.5\na-2 rec-a x 1\na-3 rec-a\nz-1 rec-a 0 1\n");
    let corpus = corpora::open(CorpusKind::Kaldi, &site.root().join("data/test"), &Rules::default()).unwrap();
    use ProblemKind::*;
    assert_eq!(corpus.problem_counts(), BTreeMap::from([(ImpossibleTimes, 1), (BadLine, 2), (MissingAudio, 3), (MissingTranscript, 1)]));
}

#[test]
fn nemo_manifests() {
    let site = nemo();
    let corpus = site.open(CorpusKind::Nemo, &Rules::default());
    assert_eq!(ids(&corpus), ["a-0000050", "a-0000250", "b"]);
    assert_eq!((corpus.utterances[0].start, corpus.utterances[0].end, corpus.utterances[2].end), (0.5, Some(2.0), None));
    assert_eq!((corpus.utterances[0].speaker.as_deref(), corpus.utterances[2].duration), (Some("7"), Some(2.0)));
    assert_eq!(heard(&corpus.utterances[0]).len(), 24_000);
    // The file itself, and what may be wrong with its lines.
    let train = site.root().join("train_manifest.json");
    assert_eq!(texts(&corpora::open(CorpusKind::Nemo, &train, &Rules::default()).unwrap()), ["not this"]);
    let lines = [
        "{\"audio_filepath\": \"wavs/b.wav\", \"duration\": 2.0, \"text\": \" \"}",
        "{\"audio_filepath\": \"wavs/b.wav\", \"duration\": 2.0, \"text\": \"again\"}",
        "{\"audio_filepath\": \"wavs/c.wav\", \"duration\": 2.0, \"text\": \"gone\"}",
        "{\"audio_filepath\": \"audio__OP_0..511_CL_.tar\", \"duration\": 2.0, \"text\": \"packed\"}",
        "{\"audio_filepath\": \"wavs/a.wav\", \"duration\": 2.0}",
        "{\"audio_filepath\": \"wavs/a.wav\", \"duration\": -2.0, \"offset\": 1, \"text\": \"reversed\"}",
        "{\"audio_filepath\": ",
    ];
    std::fs::write(&train, lines.join("\n")).unwrap();
    let corpus = corpora::open(CorpusKind::Nemo, &train, &Rules::default()).unwrap();
    use ProblemKind::*;
    let counts = [
        (EmptyReference, 1),
        (DuplicateId, 1),
        (MissingAudio, 1),
        (UnsupportedSource, 1),
        (MissingTranscript, 1),
        (ImpossibleTimes, 1),
        (BadLine, 1),
    ];
    assert_eq!((ids(&corpus), corpus.problem_counts()), (vec!["b"], BTreeMap::from(counts)));
    // Several manifests and none for the split.
    let said = corpora::open(CorpusKind::Nemo, site.root(), &rule("split", "dev")).unwrap_err().to_string();
    assert!(said.contains("name one: test_manifest.json, train_manifest.json"), "{said}");
}

#[test]
fn lhotse_manifests_are_read_as_lhotse_means_them() {
    for manifests in [&["cuts_test.jsonl.gz"][..], &["x_recordings_test.jsonl.gz", "x_supervisions_test.jsonl.gz"]] {
        let site = lhotse(manifests);
        let corpus = site.open(CorpusKind::Lhotse, &Rules::default());
        assert_as_peer(&corpus, if manifests.len() == 1 { "lhotse/cuts" } else { "lhotse/supervisions" });
        let right = corpus.utterances.iter().find(|u| u.id == "stereo-right").unwrap();
        assert!(heard(right).iter().all(|x| (x.abs() - 0.2).abs() < 1e-3));
        assert_eq!((right.speaker.as_deref(), right.recording.as_str()), (Some("sp-2"), "stereo"));
    }
}

#[test]
fn lhotse_cuts_that_are_no_plain_audio_are_listed() {
    let site = lhotse(&["odd_cuts.jsonl"]);
    let corpus = corpora::open(CorpusKind::Lhotse, &site.root().join("odd_cuts.jsonl"), &Rules::default()).unwrap();
    assert_eq!(ids(&corpus), ["resampled-sup"]);
    let said: Vec<String> = corpus.problems.iter().map(|p| p.to_string()).collect();
    let expected = ["MixedCut", "changed by Speed", "audio of type \"url\"", "`curl`", "PaddingCut"];
    assert!(expected.iter().all(|e| said.iter().any(|s| s.contains(e))) && said.len() == expected.len(), "{said:#?}");
}

#[test]
fn huggingface_folders() {
    let site = huggingface();
    let corpus = site.open(CorpusKind::HuggingFace, &Rules::default());
    assert_eq!((ids(&corpus), texts(&corpus)), (vec!["data/a", "data/b"], vec!["One, \"two\".", "three"]));
    assert_eq!((corpus.utterances[0].speaker.as_deref(), corpus.utterances[1].speaker.as_deref()), (Some("s1"), None));
    assert!(heard(&corpus.utterances[1]).len() > 1_000);
    std::fs::remove_file(site.root().join("test/metadata.csv")).unwrap();
    site.write("test/metadata.jsonl", "{\"file_name\": \"data/a.wav\", \"text\": \"json\", \"duration\": 1.0, \"speaker\": null}\n{\"text\": 1}\n{\"file_name\": \"x.wav\"}\n");
    let corpus = site.open(CorpusKind::HuggingFace, &Rules::default());
    assert_eq!((texts(&corpus), corpus.utterances[0].duration), (vec!["json"], Some(1.0)));
    assert_eq!(corpus.problem_counts(), BTreeMap::from([(ProblemKind::BadLine, 1), (ProblemKind::MissingTranscript, 1)]));
}

#[test]
fn sclite_references_of_all_three_kinds() {
    let site = sclite();
    let corpus = site.open(CorpusKind::Sclite, &Rules::default());
    assert_eq!(texts(&corpus), ["hello { there / their } (uh) [noise]", "hi"]);
    assert_eq!(corpus.utterances[1].channel, Channel::Nth(1));
    assert!(heard(&corpus.utterances[1]).len() == 12_000);
    assert_eq!(texts(&site.open(CorpusKind::Sclite, &rule("stm-text", "words"))), ["hello there", "hi"]);
    std::fs::remove_file(site.root().join("ref.stm")).unwrap();
    site.write("ref.trn", "one two (spk-001_1)\n(spk-001_2)\nno id\n").write("hyp.trn", "x (spk-001_1)\n");
    site.wav("spk-001_1.wav", 8_000, 1, 0.2).wav("spk-001_2.wav", 8_000, 1, 0.2);
    let corpus = site.open(CorpusKind::Sclite, &Rules::default());
    assert_eq!((ids(&corpus), texts(&corpus)), (vec!["spk-001_1", "spk-001_2"], vec!["one two", ""]));
    assert_eq!(corpus.utterances[0].speaker.as_deref(), Some("spk"));
    assert_eq!(corpus.problem_counts(), BTreeMap::from([(ProblemKind::BadLine, 1), (ProblemKind::EmptyReference, 1)]));
    // Timed words: one utterance for each channel, the first of alternatives.
    let ctm = ";; c\nsw_1 B 1.0 0.2 second 0.9\nsw_1 A 0.5 0.2 b\nsw_1 A 0.1 0.2 a\nsw_1 A * * <ALT_BEGIN>\nsw_1 A 1.0 0.1 c\nsw_1 A * * <ALT>\n\
               sw_1 A 1.0 0.1 d\nsw_1 A * * <ALT_END>\nsw_1 A 1.2 0.1 @\nshort line\n";
    site.write("ctm/ref.ctm", ctm).wav("ctm/sw_1.wav", 8_000, 2, 2.0);
    let corpus = corpora::open(CorpusKind::Sclite, &site.root().join("ctm"), &Rules::default()).unwrap();
    assert_eq!((ids(&corpus), texts(&corpus)), (vec!["sw_1-A", "sw_1-B"], vec!["a b c", "second"]));
    assert_eq!(corpus.problem_counts(), BTreeMap::from([(ProblemKind::BadLine, 1)]));
}

#[test]
fn plain_folders() {
    let site = folder();
    let corpus = site.open(CorpusKind::Folder, &Rules::default());
    assert_eq!((ids(&corpus), texts(&corpus)), (vec!["one/x", "y"], vec!["Some words over lines.", "more"]));
    assert!(corpus.problems.is_empty());
    site.wav("z.wav", 16_000, 1, 0.1).write("one/w.txt", "no audio").write("y.txt", "");
    let corpus = site.open(CorpusKind::Folder, &Rules::default());
    use ProblemKind::*;
    assert_eq!(problems(&corpus), [(EmptyReference, "y"), (MissingTranscript, "z"), (MissingAudio, "one/w")]);
    assert_eq!(corpus.utterances.len(), 2);
}

#[test]
fn missing_audio_is_listed_and_the_rest_goes_on() {
    let site = librispeech();
    let part = site.root().join("LibriSpeech/test-clean");
    std::fs::remove_file(part.join("61/70968/61-70968-0001.flac")).unwrap();
    site.golden("LibriSpeech/test-clean/61/70970/61-70970-0009.flac", "flac_8k.flac");
    site.write("LibriSpeech/test-clean/121/121726/121-121726.trans.txt", "121-121726-0000\n121-121726-0000 TWICE\n");
    let corpus = site.open(CorpusKind::LibriSpeechClean, &Rules::default());
    use ProblemKind::*;
    let expected = [
        (EmptyReference, "121-121726-0000"),
        (DuplicateId, "121-121726-0000"),
        (MissingAudio, "61-70968-0001"),
        (MissingTranscript, "61-70970-0009"),
    ];
    assert_eq!(problems(&corpus), expected);
    assert_eq!(corpus.utterances.len(), 4);
}

#[test]
fn folders_of_the_wrong_kind_say_what_was_looked_for_and_found() {
    let site = Site::new();
    site.write("notes/a.md", "").write("list.csv", "").write("dev-clean/x", "");
    for kind in CorpusKind::ALL {
        let error = corpora::open(kind, site.root(), &Rules::default()).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, Error::Config { .. }) && said.contains(kind.id()), "{said}");
        assert!(said.contains("looked for") && said.ends_with("found dev-clean/, list.csv, notes/"), "{said}");
        let gone = corpora::open(kind, &site.root().join("gone"), &Rules::default()).unwrap_err();
        assert!(matches!(gone, Error::Io { .. }), "{kind:?}: {gone}");
    }
    let said = corpora::detect(site.root(), &Rules::default()).unwrap_err().to_string();
    assert!(said.contains("ami-ihm, chime6") && said.contains("found dev-clean/"), "{said}");
}

#[test]
fn columns_that_must_be_there_are_named() {
    let site = common_voice();
    site.write("cv-corpus-5.1-2020-06-22/en/test.tsv", "client_id\tpath\ttext\nx\ty\tz\n");
    let said = corpora::open(CorpusKind::CommonVoice, site.root(), &Rules::default()).unwrap_err().to_string();
    assert!(said.contains("test.tsv:1: no column \"sentence\" in the header: client_id, path, text"), "{said}");
}

#[test]
fn every_layout_is_told_from_the_others() {
    let mut sites = most();
    sites.push((CorpusKind::Lhotse, lhotse(&["cuts_test.jsonl.gz"])));
    for (kind, site) in sites {
        let detected = corpora::detect(site.root(), &Rules::default());
        match kind {
            // Two halves of one release.
            CorpusKind::Hub5CallHome | CorpusKind::Hub5Switchboard => {
                assert!(detected.unwrap_err().to_string().contains("name one of hub5-callhome, hub5-switchboard"));
            }
            _ => assert_eq!(detected.unwrap(), kind),
        }
    }
    assert_eq!(corpora::detect(&kaldi().root().join("data/test"), &Rules::default()).unwrap(), CorpusKind::Kaldi);
    let both = librispeech();
    both.write("LibriSpeech/test-other/1/2/1-2.trans.txt", "1-2-0000 X\n");
    let said = corpora::detect(both.root(), &Rules::default()).unwrap_err().to_string();
    assert!(said.contains("name one of librispeech-clean, librispeech-other"), "{said}");
    assert_eq!(both.open(CorpusKind::LibriSpeechOther, &Rules::default()).problem_counts()[&ProblemKind::MissingAudio], 1);
}

#[test]
fn development_splits() {
    let site = librispeech();
    let from = site.root().join("LibriSpeech/test-clean");
    std::fs::rename(from, site.root().join("LibriSpeech/dev-clean")).unwrap();
    assert_eq!(site.open(CorpusKind::LibriSpeechClean, &rule("split", "dev")).utterances.len(), 5);
    let ami = ami().open(CorpusKind::AmiIhm, &rule("split", "dev"));
    assert_eq!(texts(&ami), ["NOT IN THE TEST SET", "NOR THIS"]);
}

/// Every file under a folder.
fn files_under(folder: &Path) -> Vec<PathBuf> {
    let entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut found: Vec<PathBuf> =
        entries.into_iter().flat_map(|path| if path.is_dir() { files_under(&path) } else { vec![path] }).collect();
    found.sort();
    found
}

#[test]
fn damaged_index_files_never_break_a_reader() {
    const AUDIO: [&str; 7] = ["wav", "flac", "mp3", "ogg", "sph", "wv1", "WV1"];
    let is_index = |path: &PathBuf| path.extension().is_none_or(|e| !AUDIO.contains(&e.to_string_lossy().as_ref()));
    let mut sites = most();
    sites.push((CorpusKind::Kaldi, kaldi()));
    sites.push((CorpusKind::Lhotse, lhotse(&["cuts_test.jsonl.gz"])));
    sites.push((CorpusKind::Lhotse, lhotse(&["odd_cuts.jsonl"])));
    for (kind, site) in sites {
        let root = if kind == CorpusKind::Kaldi { site.root().join("data/test") } else { site.root().to_path_buf() };
        let index: Vec<PathBuf> = files_under(site.root()).into_iter().filter(is_index).collect();
        let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
        let changes = (0..index.len(), proptest::collection::vec((any::<usize>(), any::<u8>()), 0..12), any::<usize>(), any::<bool>());
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let outcome = runner.run(&changes, |(file, changes, cut, replace)| {
            let good = std::fs::read(&index[file]).unwrap();
            let mut bytes = good.clone();
            if !bytes.is_empty() {
                for (at, value) in &changes {
                    let at = at % bytes.len();
                    if replace { bytes[at] = *value } else { bytes.insert(at, *value) }
                }
                bytes.truncate(bytes.len() - cut % bytes.len() / 2);
            }
            std::fs::write(&index[file], &bytes).unwrap();
            let opened = corpora::open(kind, &root, &Rules::default());
            let lhotse_way = corpora::open(kind, &root, &rule("ami-segments", "lhotse"));
            std::fs::write(&index[file], good).unwrap();
            for corpus in [opened, lhotse_way].into_iter().flatten() {
                for u in &corpus.utterances {
                    prop_assert!(u.start >= 0.0 && u.end.is_none_or(|end| end > u.start && end.is_finite()), "{u:?}");
                }
            }
            Ok(())
        });
        outcome.unwrap_or_else(|e| panic!("{kind:?}: {e}"));
    }
}

#[test]
#[ignore = "needs OMNISCRIBE_CORPORA, a folder to write the corpora to for benchmarks/corpora_peer.py"]
fn the_corpora_on_disk_for_the_peers() {
    let to = PathBuf::from(std::env::var_os("OMNISCRIBE_CORPORA").expect("OMNISCRIBE_CORPORA"));
    let mut sites = most();
    sites.push((CorpusKind::Kaldi, kaldi()));
    sites.push((CorpusKind::Lhotse, lhotse(&[])));
    for (kind, site) in sites {
        for file in files_under(site.root()) {
            let copy = to.join(kind.id()).join(file.strip_prefix(site.root()).unwrap());
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::copy(&file, copy).unwrap();
        }
    }
}
