//! Tells whether a file is still the one that was decoded: size, time and a 64-bit checksum against accidents (not attacks).

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::UNIX_EPOCH;

const BLOCK_BYTES: usize = 64 << 10;

/// Size in bytes and modification time in ns since 1970 (0 if unknown).
pub(super) fn stamp(path: &Path) -> std::io::Result<(u64, u64)> {
    let data = std::fs::metadata(path)?;
    let modified = data.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos() as u64);
    Ok((data.len(), modified))
}

/// [`checksum`] of a file's bytes, read block by block.
pub(super) fn file_checksum(path: &Path) -> std::io::Result<u64> {
    let (mut file, mut block, mut sum) = (File::open(path)?, Vec::with_capacity(BLOCK_BYTES), 0);
    loop {
        block.clear();
        Read::by_ref(&mut file).take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(sum);
        }
        sum = add_block(sum, &block);
    }
}

/// Multiply and rotate over 8-byte words, block by block so that files can be streamed.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(BLOCK_BYTES).fold(0, add_block)
}

fn add_block(sum: u64, block: &[u8]) -> u64 {
    const ODD: u64 = 0xff51_afd7_ed55_8ccd;
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(ODD).rotate_left(29);
    let words = block.chunks_exact(8);
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    let sum =
        words.fold(mix(sum, block.len() as u64), |sum, w| mix(sum, u64::from_le_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]])));
    mix(sum, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_length_and_place_counts_and_files_agree_with_memory() {
        let mut bytes: Vec<u8> = (0..150_001_u32).map(|i| ((i * i) >> 7) as u8).collect();
        let sum = checksum(&bytes);
        for at in [0, 7, 8, 65_535, 65_536, 150_000] {
            bytes[at] ^= 0x10;
            assert_ne!(checksum(&bytes), sum, "byte {at}");
            bytes[at] ^= 0x10;
        }
        assert_ne!(checksum(&bytes[..150_000]), sum);
        assert_ne!(checksum(&[0; 8]), checksum(&[0; 9]));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        assert_eq!(file_checksum(file.path()).unwrap(), sum);
    }
}
