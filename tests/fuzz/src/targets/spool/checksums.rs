//! The checksums of a segment, put right from outside, so that bytes behind them are reached.
//!
//! The format is that of the heads of `frame.rs` and `segment_scan.rs` of the spool.

const MAGIC: [u8; 4] = [0xFF, b'T', b'G', 0xFE];

const HEADER_BYTES: usize = 64;

const SEGMENT_HEADER_BYTES: usize = 1024;

/// The header of a segment.
pub fn segment_header(segment: u64, salt: u32) -> Vec<u8> {
    let mut copy = b"TGSPOOL1".to_vec();
    copy.extend_from_slice(&segment.to_le_bytes());
    copy.extend_from_slice(&salt.to_le_bytes());
    let crc = crc32c::crc32c(&copy);
    copy.extend_from_slice(&crc.to_le_bytes());
    let mut header = vec![0; SEGMENT_HEADER_BYTES];
    for at in [0, SEGMENT_HEADER_BYTES / 2] {
        header[at..at + copy.len()].copy_from_slice(&copy);
    }
    header
}

/// Puts right the checksums of every frame that is there whole.
pub fn put_right(segment: &mut [u8], salt: u32) {
    let mut at = SEGMENT_HEADER_BYTES;
    while at < segment.len() {
        at += frame(&mut segment[at..], salt).unwrap_or(1);
    }
}

/// Puts right the frame that bytes begin with, and gives its length.
fn frame(bytes: &mut [u8], salt: u32) -> Option<usize> {
    let fixed = bytes.get(..HEADER_BYTES)?;
    if fixed[..4] != MAGIC {
        return None;
    }
    let short = |at: usize| usize::from(u16::from_le_bytes([fixed[at], fixed[at + 1]]));
    let names_end = HEADER_BYTES + short(12) + short(14);
    let body_bytes = u32::from_le_bytes(fixed[16..20].try_into().expect("four bytes")) as usize;
    let end = names_end.checked_add(body_bytes)?;
    let body_crc = crc32c::crc32c(bytes.get(names_end..end)?);
    bytes[20..24].copy_from_slice(&body_crc.to_le_bytes());
    let crc = crc32c::crc32c_append(salt, &bytes[8..names_end]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    Some(end)
}
