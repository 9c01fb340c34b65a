//! What a file is, from its first bytes: the name's extension is never trusted.

/// Bytes that [`sniff`] wants to see (fewer are fine at the end of a short file).
pub(super) const SNIFF_BYTES: usize = 64;

/// Who reads the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Symphonia reads it as a stream.
    Streamable,
    /// Symphonia reads it, but tables may follow the audio: needs seeking.
    NeedsSeek,
    /// WAV or a relative.
    Riff,
    /// Matroska or WebM: Symphonia reads it, unless it was cut.
    Matroska,
    /// Core Audio: needs seeking, and an exact end.
    Caf,
    /// MP4 and QuickTime: needs seeking; its edit list says where the audio begins.
    Mp4,
    /// NIST SPHERE.
    Sphere,
    /// Sun/NeXT audio.
    Au,
    /// A well-known format this build does not decode.
    Unsupported(&'static str),
    /// Nothing known: worth a search for MPEG frames if the name says so.
    Unknown,
}

/// Formats told by the bytes at the start, in the order they are tried: (offset, magic, kind).
const MAGIC: &[(usize, &[u8], Kind)] = &[
    (8, b"WAVE", Kind::Riff),
    (0, b"fLaC", Kind::Streamable),
    (0, b"OggS", Kind::Streamable),
    (0, b"\x1a\x45\xdf\xa3", Kind::Matroska),
    (0, b"ID3", Kind::Streamable),
    (4, b"ftyp", Kind::Mp4),
    (4, b"moov", Kind::Mp4),
    (4, b"mdat", Kind::Mp4),
    (4, b"wide", Kind::Mp4),
    (4, b"free", Kind::Mp4),
    (4, b"skip", Kind::Mp4),
    (4, b"styp", Kind::Mp4),
    (4, b"moof", Kind::Mp4),
    (0, b"caff", Kind::Caf),
    (8, b"AIFF", Kind::NeedsSeek),
    (8, b"AIFC", Kind::NeedsSeek),
    (0, b"NIST_1A", Kind::Sphere),
    (0, b".snd", Kind::Au),
    (0, b"riff\x2e\x91\xcf\x11", Kind::Riff),
    (0, b"wvpk", Kind::Unsupported("WavPack")),
    (0, b"TTA1", Kind::Unsupported("True Audio (TTA)")),
    (0, b"MAC ", Kind::Unsupported("Monkey's Audio")),
    (0, b"MPCK", Kind::Unsupported("Musepack")),
    (0, b"MP+", Kind::Unsupported("Musepack")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Kind::Unsupported("Windows Media (ASF)")),
    (0, b"\x0b\x77", Kind::Unsupported("AC-3")),
    (0, b"\x7f\xfe\x80\x01", Kind::Unsupported("DTS")),
    (0, b"#!AMR", Kind::Unsupported("AMR")),
    (0, b".RMF", Kind::Unsupported("RealMedia")),
    (0, b"DSD ", Kind::Unsupported("DSD")),
    (0, b"FRM8", Kind::Unsupported("DSD")),
    (0, b"MThd", Kind::Unsupported("MIDI")),
    (0, b"FLV\x01", Kind::Unsupported("Flash video")),
    (8, b"AVI ", Kind::Unsupported("AVI")),
    (0, b"\x89PNG", Kind::Unsupported("PNG image")),
    (0, b"\xff\xd8\xff", Kind::Unsupported("JPEG image")),
    (0, b"PK\x03\x04", Kind::Unsupported("ZIP archive")),
    (0, b"\x1f\x8b", Kind::Unsupported("gzip archive")),
    (0, b"%PDF", Kind::Unsupported("PDF document")),
    (0, b"\x7fELF", Kind::Unsupported("program")),
];

/// Tells the kind of a file from its first bytes.
pub(super) fn sniff(head: &[u8]) -> Kind {
    for (offset, magic, kind) in MAGIC {
        if head.get(*offset..offset + magic.len()) == Some(magic) {
            return *kind;
        }
    }
    match head {
        // MPEG audio or ADTS sync word (11 bits), with a legal version/layer; ADTS has layer 0.
        [0xff, b, ..] if b & 0xe0 == 0xe0 && b & 0x18 != 0x08 => Kind::Streamable,
        _ => Kind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_decide() {
        assert_eq!(sniff(b"RIFF\0\0\0\0WAVEfmt "), Kind::Riff);
        assert_eq!(sniff(b"RF64\xff\xff\xff\xffWAVEds64"), Kind::Riff);
        assert_eq!(sniff(b"RIFF\0\0\0\0AVI "), Kind::Unsupported("AVI"));
        assert_eq!(sniff(b"\0\0\0\x20ftypM4A "), Kind::Mp4);
        assert_eq!(sniff(b"NIST_1A\n   1024\n"), Kind::Sphere);
        assert_eq!(sniff(&[0xff, 0xfb, 0x90, 0x00]), Kind::Streamable);
        assert_eq!(sniff(&[0xff, 0xf1, 0x50]), Kind::Streamable);
        assert_eq!(sniff(b"hello"), Kind::Unknown);
        assert_eq!(sniff(b""), Kind::Unknown);
    }
}
