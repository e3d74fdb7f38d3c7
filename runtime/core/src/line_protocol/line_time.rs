//! The time of a checked line.

/// The time at the end of a line that was checked; `None` where there is none.
pub fn line_time(line: &[u8]) -> Option<i64> {
    let start = memchr::memrchr(b' ', line)? + 1;
    std::str::from_utf8(&line[start..]).ok()?.parse().ok()
}
