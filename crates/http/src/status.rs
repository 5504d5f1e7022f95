//! Status codes (RFC 9110 §15).
//!
//! Purpose: the reason phrases of the registered codes (the table of the `http` crate), and the two
//! questions that framing asks of a code. What it does not do: pick a code.

/// The reason phrase of a registered status code, or `""` (which RFC 9112 §4 allows) for another.
///
/// Cost: one table lookup, no allocation.
#[must_use]
pub fn reason(status: u16) -> &'static str {
    // RFC 9110 renamed two; the table has the older names.
    match status {
        413 => return "Content Too Large",
        422 => return "Unprocessable Content",
        _ => {}
    }
    match http::StatusCode::from_u16(status) {
        Ok(code) => code.canonical_reason().unwrap_or(""),
        Err(_) => "",
    }
}

/// Whether a response may have this status: 100 to 599 (RFC 9110 §15).
#[must_use]
pub const fn is_valid(status: u16) -> bool {
    status >= 100 && status <= 599
}

/// Whether a response that ends an exchange may have this status: 200 to 599. With 1xx there is more to
/// come (RFC 9110 §15.2).
#[must_use]
pub const fn is_final(status: u16) -> bool {
    status >= 200 && is_valid(status)
}

/// Whether a response has a body of no bytes, whatever the handler wrote, and says so: 205 (RFC 9110
/// §15.3.6). It is not among those that end with their head.
#[must_use]
pub const fn is_empty(status: u16) -> bool {
    status == 205
}

/// Whether a response with this status never has a body, whatever its fields say: 1xx, 204, 304
/// (RFC 9112 §6.3, rule 1).
#[must_use]
pub const fn forbids_body(status: u16) -> bool {
    status < 200 || status == 204 || status == 304
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registered_codes_have_reasons_and_others_none() {
        for (status, text) in [
            (100, "Continue"),
            (200, "OK"),
            (204, "No Content"),
            (404, "Not Found"),
            (408, "Request Timeout"),
            (413, "Content Too Large"),
            (417, "Expectation Failed"),
            (418, "I'm a teapot"),
            (431, "Request Header Fields Too Large"),
            (503, "Service Unavailable"),
            (505, "HTTP Version Not Supported"),
            (299, ""),
            (99, ""),
            (1000, ""),
        ] {
            assert_eq!(reason(status), text);
        }
    }

    #[test]
    fn validity_and_bodies() {
        assert!(is_valid(100) && is_valid(599) && !is_valid(99) && !is_valid(600) && !is_valid(0));
        assert!(forbids_body(100) && forbids_body(199) && forbids_body(204) && forbids_body(304));
        assert!(is_final(200) && is_final(599) && !is_final(199) && !is_final(600));
        assert!(is_empty(205) && !is_empty(204) && !is_empty(200));
        assert!(!forbids_body(200) && !forbids_body(205) && !forbids_body(404));
    }
}
