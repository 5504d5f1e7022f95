//! The oracle of request heads: accepts or does not, line by line, written from RFC 9112 §2 to §6 and
//! the house's stricter rules, without regard to cost. It does not say why it refuses.

use std::net::Ipv6Addr;

use theframework_http::{Framing, HeadLimits, TargetForm, Version};

/// All of an accepted head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub method: Vec<u8>,
    pub version: Version,
    pub form: TargetForm,
    pub target: Vec<u8>,
    pub path: Vec<u8>,
    pub query: Option<Vec<u8>>,
    pub host: Option<Vec<u8>>,
    pub keep_alive: bool,
    pub expects_continue: bool,
    pub framing: Framing,
    pub len: usize,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The head at the start of `bytes`, if it is all there and good.
pub fn parse_all(bytes: &[u8], limits: &HeadLimits) -> Option<Parsed> {
    let mut start = 0;
    while start < 8 && bytes[start..].starts_with(b"\r\n") {
        start += 2;
    }
    let end = bytes
        .windows(4)
        .enumerate()
        .position(|(at, window)| at >= start && window == b"\r\n\r\n")?;
    let len = end + 4;
    if len > limits.max_header_size {
        return None;
    }
    let mut lines = lines(&bytes[start..end])?.into_iter();
    let request_line: Vec<&[u8]> = lines.next()?.split(|&byte| byte == b' ').collect();
    let [method, target, version] = request_line[..] else {
        return None;
    };
    if !is_token(method) || method.len() > 32 || target.len() > limits.max_target_size {
        return None;
    }
    let version = match version {
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Version::Http11,
        _ => return None,
    };
    let mut fields = Vec::new();
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        let is_clean = |&byte: &u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        if !is_token(name) || !value.iter().all(is_clean) {
            return None;
        }
        fields.push((name.to_vec(), value.to_vec()));
    }
    let values = |name: &str| -> Vec<&[u8]> {
        fields
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| &value[..])
            .collect()
    };
    let host_field = match values("host")[..] {
        [] if version == Version::Http10 => None,
        [host] => {
            authority(host)?;
            Some(host.to_vec())
        }
        _ => return None,
    };
    if values("content-type").len() > 1 {
        return None;
    }
    let list = |name: &str| -> Vec<Vec<u8>> {
        let whole = values(name).join(&b',');
        let elements = whole.split(|&byte| byte == b',').map(trim);
        let elements = elements.filter(|element| !element.is_empty());
        elements.map(<[u8]>::to_ascii_lowercase).collect()
    };
    let expects = list("expect");
    if version == Version::Http11 && expects.iter().any(|value| value != b"100-continue") {
        return None;
    }
    let options = list("connection");
    let has_option = |option: &str| options.iter().any(|known| known == option.as_bytes());
    let (form, path, query, host) = split_target(method, target)?;
    let framing = framing(
        version,
        &values("content-length"),
        &values("transfer-encoding"),
    )?;
    let keep_alive =
        !has_option("close") && (version == Version::Http11 || has_option("keep-alive"));
    if let Some(host) = &host {
        for (_, value) in fields
            .iter_mut()
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"host"))
        {
            value.clone_from(host);
        }
    }
    Some(Parsed {
        method: method.to_vec(),
        version,
        form,
        target: target.to_vec(),
        path,
        query,
        host: host.or(host_field),
        keep_alive,
        expects_continue: version == Version::Http11 && !expects.is_empty(),
        framing,
        len,
        fields,
    })
}

/// Lines without their CRLF, if there is no other CR or LF.
fn lines(mut text: &[u8]) -> Option<Vec<&[u8]>> {
    let mut lines = Vec::new();
    while let Some(end) = text.windows(2).position(|window| window == b"\r\n") {
        lines.push(&text[..end]);
        text = &text[end + 2..];
    }
    lines.push(text);
    let is_broken = |line: &&[u8]| line.contains(&b'\r') || line.contains(&b'\n');
    (!lines.iter().any(is_broken)).then_some(lines)
}

fn is_token(text: &[u8]) -> bool {
    let is_one = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_one)
}

fn trim(text: &[u8]) -> &[u8] {
    let is_white = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let Some(first) = text.iter().position(|byte| !is_white(byte)) else {
        return b"";
    };
    let last = text.iter().rposition(|byte| !is_white(byte));
    &text[first..=last.unwrap_or(first)]
}

fn framing(version: Version, lengths: &[&[u8]], codings: &[&[u8]]) -> Option<Framing> {
    if codings.is_empty() {
        let Some(first) = lengths.first() else {
            return Some(Framing::None);
        };
        let number = |text: &&[u8]| {
            let text = std::str::from_utf8(text).ok()?;
            // `parse` alone would take a plus sign.
            let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u64>().ok().filter(|_| is_digits)
        };
        let length = number(first)?;
        let is_same = |other: &&[u8]| number(other) == Some(length);
        return lengths
            .iter()
            .all(is_same)
            .then_some(Framing::Length(length));
    }
    let is_chunked = codings.len() == 1 && codings[0].eq_ignore_ascii_case(b"chunked");
    (is_chunked && lengths.is_empty() && version == Version::Http11).then_some(Framing::Chunked)
}

type Target = (TargetForm, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

fn split_target(method: &[u8], target: &[u8]) -> Option<Target> {
    let is_uri = |&byte: &u8| (b'!'..=b'~').contains(&byte) && byte != b'#';
    if target.is_empty() || !target.iter().all(is_uri) {
        return None;
    }
    if method == b"CONNECT" {
        let (host, port) = authority(target)?;
        let is_whole = !host.is_empty() && port.is_some_and(|port| !port.is_empty());
        return is_whole.then(|| {
            (
                TargetForm::Authority,
                Vec::new(),
                None,
                Some(target.to_vec()),
            )
        });
    }
    if target == b"*" && method == b"OPTIONS" {
        return Some((TargetForm::Asterisk, b"*".to_vec(), None, None));
    }
    let lower = target.to_ascii_lowercase();
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| lower.starts_with(scheme));
    let (form, host, rest) = if target.starts_with(b"/") {
        (TargetForm::Origin, None, target)
    } else {
        let rest = &target[scheme?.len()..];
        let is_end = |&byte: &u8| byte == b'/' || byte == b'?';
        let (host, rest) = rest.split_at(rest.iter().position(is_end).unwrap_or(rest.len()));
        if authority(host)?.0.is_empty() {
            return None;
        }
        (TargetForm::Absolute, Some(host.to_vec()), rest)
    };
    let mut parts = rest.splitn(2, |&byte| byte == b'?');
    let path = parts.next().unwrap_or_default().to_vec();
    Some((form, path, parts.next().map(<[u8]>::to_vec), host))
}

/// Host and port of an authority without user information (RFC 3986 §3.2).
fn authority(text: &[u8]) -> Option<(String, Option<String>)> {
    let text = std::str::from_utf8(text).ok()?;
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let (address, rest) = inner.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (address, rest)
        }
        None => {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            let mut characters = name.chars();
            while let Some(character) = characters.next() {
                let is_plain =
                    character.is_ascii_alphanumeric() || "-._~!$&'()*+;=".contains(character);
                let mut is_hex = || {
                    characters
                        .next()
                        .is_some_and(|next| next.is_ascii_hexdigit())
                };
                if !(is_plain || character == '%' && is_hex() && is_hex()) {
                    return None;
                }
            }
            (name, rest)
        }
    };
    if rest.is_empty() {
        return Some((host.to_owned(), None));
    }
    let port = rest.strip_prefix(':')?;
    let is_digits = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_port = port.is_empty() || port.parse::<u16>().is_ok();
    (is_digits && is_port).then(|| (host.to_owned(), Some(port.to_owned())))
}
