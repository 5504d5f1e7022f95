//! Dates as they are sent, and the `Date` field (RFC 9110 §6.6.1), formatted at most once a second.
//!
//! States: the last second formatted. Invariants: the text is always a valid IMF-fixdate of 29 bytes.
//! What it does not do: read a clock; its owner passes the time.

use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

/// The last second that an IMF-fixdate can say: 9999-12-31 23:59:59.
const LAST_SECOND: u64 = 253_402_300_799;

/// The current `Date` value, kept as bytes.
#[derive(Clone, Debug)]
pub struct DateCache {
    unix_seconds: u64,
    text: [u8; 29],
}

impl DateCache {
    /// A cache that says `unix_seconds`.
    #[must_use]
    pub fn new(unix_seconds: u64) -> Self {
        Self {
            unix_seconds,
            text: format_date(unix_seconds),
        }
    }

    /// Sets the time, in seconds since 1970. Formats (without allocation, about 50 ns) only when the
    /// second is another than last time, whether later or earlier. A time past the year 9999 is shown
    /// as that year's last second.
    #[inline]
    pub fn update(&mut self, unix_seconds: u64) {
        if unix_seconds != self.unix_seconds {
            *self = Self::new(unix_seconds);
        }
    }

    /// The date as it goes on the wire.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 29] {
        &self.text
    }
}

impl Default for DateCache {
    fn default() -> Self {
        Self::new(0)
    }
}

/// A time in seconds since 1970 as an IMF-fixdate (RFC 9110 §5.6.7): no allocation, about 50 ns. A time
/// past the year 9999 is shown as that year's last second.
#[must_use]
pub fn format_date(unix_seconds: u64) -> [u8; 29] {
    let time = UNIX_EPOCH + Duration::from_secs(unix_seconds.min(LAST_SECOND));
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    // An IMF-fixdate is exactly 29 bytes, so the write cannot fall short.
    let _ = write!(&mut text[..], "{}", httpdate::HttpDate::from(time));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_imf_fixdate() {
        assert_eq!(
            DateCache::default().as_bytes(),
            b"Thu, 01 Jan 1970 00:00:00 GMT"
        );
        assert_eq!(
            DateCache::new(784_111_777).as_bytes(),
            b"Sun, 06 Nov 1994 08:49:37 GMT"
        );
        assert_eq!(
            DateCache::new(u64::MAX).as_bytes(),
            b"Fri, 31 Dec 9999 23:59:59 GMT"
        );
    }

    #[test]
    fn follows_the_clock_in_both_directions() {
        let mut cache = DateCache::new(784_111_777);
        cache.update(784_111_778);
        assert_eq!(cache.as_bytes(), b"Sun, 06 Nov 1994 08:49:38 GMT");
        cache.update(784_111_777);
        assert_eq!(cache.as_bytes(), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
