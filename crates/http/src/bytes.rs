//! The byte classes of RFC 9110 §5.6 and RFC 3986, as tables made at compile time.
//!
//! Invariants: one lookup per byte, no branches on the class. What it does not do: anything about
//! more than one byte.

/// `tchar` of RFC 9110 §5.6.2.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        table[i] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        i += 1;
    }
    table
};

/// `unreserved` and `sub-delims` of RFC 3986 §2 without the comma, which no host name has and which
/// a list-minded reader would take for two hosts. `%` is looked at apart.
const REG_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        table[i] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b';'
                    | b'='
            );
        i += 1;
    }
    table
};

/// Whether `b` may stand in a token (method, field name, coding name).
#[inline]
pub(crate) fn is_token(b: u8) -> bool {
    TOKEN[b as usize]
}

/// Whether `b` may stand in a registered name of a URI authority.
#[inline]
pub(crate) fn is_reg_name(b: u8) -> bool {
    REG_NAME[b as usize]
}

/// Whether `b` may stand in a field value: visible ASCII, SP, HTAB, obs-text (RFC 9110 §5.5).
#[inline]
pub(crate) fn is_field_value(b: u8) -> bool {
    (b >= 0x20 && b != 0x7f) || b == b'\t'
}

/// The value of a hexadecimal digit.
#[inline]
pub(crate) fn hex_value(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

/// The value of the two hexadecimal digits at the start of `bytes`, where a `%` stood before them.
#[inline]
pub(crate) fn hex_pair(bytes: &[u8]) -> Option<u8> {
    match *bytes {
        [high, low, ..] => Some(hex_value(high)? << 4 | hex_value(low)?),
        _ => None,
    }
}

/// `bytes` without SP and HTAB at both ends (OWS of RFC 9110 §5.6.3, and no other white space).
#[inline]
pub(crate) fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
