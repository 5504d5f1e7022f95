"""How to take each rule of tests/requirements.py out of the sources, one at a time.

Each is a text of one source file that is replaced by another, and the rows that must fail then.
tools/rules.py builds and runs them; a test checks that every row has one, and that each text still
stands in its file exactly once.

What `httparse` checks for us cannot be taken out of our sources: there the bytes are made good
before it sees them (`mends`).
"""

from __future__ import annotations

from dataclasses import dataclass

HEAD = "crates/http/src/head.rs"
CHUNKED = "crates/http/src/chunked.rs"
METHOD = "crates/http/src/method.rs"
ANSWER = "crates/http/src/response.rs"
STATUS = "crates/http/src/status.rs"
TARGET = "crates/http/src/target.rs"
CONDITIONAL = "crates/http/src/conditional.rs"
RANGE = "crates/http/src/range.rs"
FILE = "crates/server/src/file.rs"
CLOSE = "crates/server/src/close.rs"
DOWNLOAD = "crates/server/src/download.rs"
ENGINE = "crates/server/src/engine.rs"
OPTIONS = "crates/server/src/options.rs"
RECEIVE = "crates/server/src/receive.rs"
RESPOND = "crates/server/src/respond.rs"
TIMEOUTS = "crates/server/src/timeouts.rs"
ROUTER = "crates/server/src/router.rs"
PY_REQUEST = "crates/python/src/request.rs"
PY_RESPONSE = "crates/python/src/response.rs"
PY_WORKER = "crates/python/src/worker.rs"
SETTINGS = "python/theframework/settings.py"


@dataclass(frozen=True)
class Rule:
    name: str
    path: str
    old: str
    new: str
    rows: tuple[str, ...]


def out(name: str, path: str, old: str, new: str, *rows: str) -> Rule:
    """A rule taken out; it is called as its one row is, if there are no others."""
    return Rule(name, path, old, new, rows or (name,))


_WINDOW = "    let len_max = limits.max_header_size.min(u32::MAX as usize);\n"


def mends(name: str, code: str, *rows: str) -> Rule:
    """Before the head is parsed, `code` makes good what is bad in `owned`, a copy of its bytes."""
    copy = "    let mut owned = bytes.to_vec();\n"
    new = f"{copy}    {code}\n    let bytes = &owned[..];\n{_WINDOW}"
    return out(name, HEAD, _WINDOW, new, *rows)


def _pairs(condition: str, change: str) -> str:
    """For each two bytes `a`, `b` that the condition holds for, `change` what is at `i`."""
    loop = "for i in 1..owned.len() { let (a, b) = (owned[i - 1], owned[i]);"
    return f"{loop} if {condition} {{ {change} }} }}"


_FRAMING = "    match exchange.head.framing {\n        Framing::Length(len) if len > max_body"


def _option(call: str) -> tuple[str, str]:
    """One of the leniencies that `httparse` offers, in the usual path."""
    before = "FIELDS_ON_STACK];\n    let mut request = httparse::Request::new(&mut []);\n    match "
    old = before + "request.parse_with_uninit_headers(input, &mut table)"
    parse = "parse_request_with_uninit_headers(&mut request, input, &mut table)"
    return old, before + f"httparse::ParserConfig::default().{call}(true).{parse}"


RULES: tuple[Rule, ...] = (
    # Messages
    mends("octets", "owned.iter_mut().for_each(|b| *b &= 0x7f);"),
    out("bare-lf", HEAD, '[..name_at].ends_with(b"\\r\\n")', '[..name_at].ends_with(b"\\n")'),
    out("bare-lf-at-the-end", HEAD, 'ends_with(b"\\r\\n\\r\\n")', 'ends_with(b"\\n")', "bare-lf"),
    mends("bare-cr", _pairs("a == b'\\r' && b != b'\\n'", "owned[i - 1] = b' ';")),
    mends(
        "space-before-first-field",
        "if let Some(at) = memchr(b'\\n', &owned) {"
        " if matches!(owned.get(at + 1), Some(b' ' | b'\\t')) { owned[at + 1] = b'Z'; } }",
    ),
    out("blank-lines", HEAD, "BLANK_LINES_MAX: usize = 4", "BLANK_LINES_MAX: usize = 0"),
    out("blank-lines-bound", HEAD, "BLANK_LINES_MAX: usize = 4", "BLANK_LINES_MAX: usize = 9"),
    out("no-message", HEAD, *_option("ignore_invalid_headers_in_requests")),
    mends(
        "version-syntax",
        'if let Some(at) = owned.windows(5).position(|w| w.eq_ignore_ascii_case(b"http/"))'
        ' { owned[at..at + 5].copy_from_slice(b"HTTP/"); }',
    ),
    out("version-minor", HEAD, "if version[5] != b'1' {", "if true {"),
    out("version-major", HEAD, "VersionNotSupported => 505", "VersionNotSupported => 400"),
    out(
        "version-of-answers",
        ANSWER,
        'b"HTTP/1.1 200 OK\\r\\n"',
        'b"HTTP/1.0 200 OK\\r\\n"',
    ),
    # Request line
    out(
        "request-line",
        HEAD,
        *_option("allow_multiple_spaces_in_request_line_delimiters"),
    ),
    out("target-bytes", HEAD, " & (b != b'#')", ""),
    mends(
        "method-token",
        "for b in owned.iter_mut().take(4) { if !is_token(*b) && *b > b' ' { *b = b'A'; } }",
    ),
    out("method-case", METHOD, 'b"GET" => Self::Get', 'b"GET" | b"get" | b"Get" => Self::Get'),
    out(
        "method-unknown",
        RECEIVE,
        "if !router.implements(head.method, name) {",
        "if false && !router.implements(head.method, name) {",
        *("method-unknown", "method-case", "connect", "trace"),
    ),
    out("method-not-allowed", PY_WORKER, 'id, b"Allow",', 'id, b"X-Allow",'),
    out(
        "method-too-long",
        HEAD,
        "Self::TransferCodingUnknown | Self::MethodTooLong => 501,",
        "Self::TransferCodingUnknown => 501,\n            Self::MethodTooLong => 400,",
    ),
    out("target-too-long", HEAD, "Self::TargetTooLong => 414", "Self::TargetTooLong => 400"),
    out(
        "target-of-8000",
        SETTINGS,
        "max_target_size: int = _size(\n        8192,",
        "max_target_size: int = _size(\n        4096,",
    ),
    # Targets and methods
    out(
        "origin-form",
        HEAD,
        "if text.first() == Some(&b'/') {",
        "if text.first() == Some(&b'/') || !text.contains(&b':') && text != b\"*\" {",
    ),
    out("absolute-form", HEAD, '[&b"http://"[..], b"https://"]', '[&b"https://"[..], b"https://"]'),
    out(
        "absolute-form-host",
        HEAD,
        "            *value = authority;\n",
        "            let _ = (&value, authority);\n",
    ),
    out("http-uri-host", HEAD, "Some(authority) if authority.has_host => {}", "Some(_) => {}"),
    out(
        "userinfo",
        HEAD,
        "match Authority::parse(&after[..authority_len]) {",
        "match Authority::parse(after[..authority_len].rsplit(|&b| b == b'@').next()"
        ".unwrap_or_default()) {",
    ),
    out("https-target", RECEIVE, "return Err(RouteFailure::Misdirected);", "return Ok(false);"),
    out("authority-form", HEAD, ".ok_or(HeadError::TargetInvalid)?;", ".unwrap_or(0);"),
    out(
        "connect-port",
        HEAD,
        "if authority.has_host && authority.has_port => Ok",
        "if authority.has_host => Ok",
    ),
    out("connect", ROUTER, "Method::Connect => false,", "Method::Connect => true,"),
    out(
        "asterisk-form",
        HEAD,
        'if text == b"*" && method == Method::Options {',
        'if text == b"*" {',
    ),
    out("options-server", OPTIONS, 'id, b"Allow",', 'id, b"X-Allow",'),
    out(
        "options-server-absolute",
        RECEIVE,
        "Ok(head.method == Method::Options && head.path.is_empty()",
        "Ok(false && head.path.is_empty()",
        "options-server",
    ),
    out(
        "trace",
        ROUTER,
        "Method::Other | Method::Trace => self",
        "Method::Trace => true,\n            Method::Other => self",
    ),
    out(
        "percent-decoding",
        TARGET,
        "let byte = hex_pair(&rest[at + 1..]).ok_or(BadEncoding)?;",
        "let Some(byte) = hex_pair(&rest[at + 1..]) else "
        "{ scratch.push(b'%'); rest = &rest[at + 1..]; continue; };",
    ),
    out(
        "percent-equivalence",
        TARGET,
        "|byte| byte == b'/' || byte == b'%')",
        "|_| true)",
    ),
    # Host
    out(
        "host-missing",
        HEAD,
        "None if version == Version::Http11 =>",
        "None if false && version == Version::Http11 =>",
    ),
    out("host-repeated", HEAD, "if self.host.is_some() {", "if false {"),
    out("host-invalid", HEAD, "if Authority::parse(value).is_none() {", "if false {"),
    out(
        "host-empty",
        HEAD,
        "if Authority::parse(value).is_none() {",
        "if value.is_empty() || Authority::parse(value).is_none() {",
    ),
    # Fields
    out(
        "field-whitespace",
        HEAD,
        "let value = Span::new(value_at, value_at + field.value.len());",
        "let value = Span::new(value_at - 1, value_at + field.value.len());",
    ),
    mends(
        "space-before-colon",
        _pairs("matches!(a, b' ' | b'\\t') && b == b':'", "owned.swap(i - 1, i);"),
    ),
    mends(
        "folded-line",
        _pairs(
            "i > 1 && a == b'\\n' && matches!(b, b' ' | b'\\t')",
            "owned[i - 2] = b' '; owned[i - 1] = b' ';",
        ),
    ),
    out("field-name", HEAD, *_option("ignore_invalid_headers_in_requests")),
    out(
        "field-name-case",
        HEAD,
        '10 if name.eq_ignore_ascii_case(b"connection") =>',
        '10 if name == b"Connection" =>',
    ),
    out(
        "field-unknown",
        HEAD,
        "            _ => Ok(()),\n        }\n    }\n\n    fn note_host",
        "            10 => Err(HeadError::FieldNameInvalid),\n"
        "            _ => Ok(()),\n        }\n    }\n\n    fn note_host",
    ),
    out(
        "field-order",
        PY_REQUEST,
        '{ "; " } else { ", " }',
        '{ ", " } else { "; " }',
    ),
    mends(
        "whole-head-first",
        'if owned.ends_with(b"\\r\\n") && !owned.ends_with(b"\\r\\n\\r\\n")'
        ' { owned.extend_from_slice(b"\\r\\n"); }',
    ),
    out("head-too-large", HEAD, "Self::TooLarge => 431", "Self::TooLarge => 500"),
    mends(
        "field-value-bytes",
        "for b in &mut owned { if *b == 0x7f || *b < b' ' && !b\"\\r\\n\\t\".contains(b)"
        " { *b = b' '; } }",
    ),
    out(
        "empty-elements",
        HEAD,
        "!is_continue && !expectation.is_empty();",
        "!is_continue;",
    ),
    out(
        "empty-codings",
        HEAD,
        "            self.transfer_encoding_invalid |= self.is_chunked;\n",
        "            if coding.is_empty() { continue; }\n"
        "            self.transfer_encoding_invalid |= self.is_chunked;\n",
    ),
    # Bodies
    out(
        "body-of-any-method",
        RECEIVE,
        _FRAMING,
        "    if matches!(exchange.head.method, Method::Get | Method::Head | Method::Delete)"
        " { exchange.head.framing = Framing::None; }\n" + _FRAMING,
    ),
    out(
        "no-body",
        RECEIVE,
        _FRAMING,
        "    if exchange.head.method == Method::Post && exchange.head.framing == Framing::None"
        " { exchange.head.framing = Framing::Length(1); }\n" + _FRAMING,
    ),
    out(
        "length",
        RECEIVE,
        _FRAMING,
        "    if let Framing::Length(len @ 1..) = exchange.head.framing"
        " { exchange.head.framing = Framing::Length(len - 1); }\n" + _FRAMING,
    ),
    out(
        "length-invalid",
        HEAD,
        "let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;",
        "let digit = u64::from(b.wrapping_sub(b'0') % 10);",
    ),
    out(
        "length-overflow",
        HEAD,
        "number.checked_mul(10)?.checked_add(digit)",
        "Some(number.wrapping_mul(10).wrapping_add(digit))",
    ),
    out(
        "length-conflict",
        HEAD,
        "Some(before) if before != length =>",
        "Some(before) if false && before != length =>",
    ),
    out(
        "length-list",
        HEAD,
        "let length = parse_digits(value)",
        "let value = value.split(|&b| b == b',').next().unwrap_or_default();\n"
        "        let length = parse_digits(value)",
    ),
    out(
        "length-and-coding",
        HEAD,
        "if self.content_length.is_some() {",
        "if false {",
    ),
    out(
        "coding-in-1.0",
        HEAD,
        "if version == Version::Http10 {\n            return Err",
        "if false {\n            return Err",
    ),
    out(
        "coding-not-chunked-last",
        HEAD,
        "if self.transfer_encoding_invalid || !self.is_chunked {",
        "if self.transfer_encoding_invalid {",
    ),
    out(
        "coding-chunked-twice",
        HEAD,
        "            self.transfer_encoding_invalid |= self.is_chunked;\n",
        "",
    ),
    out("coding-unknown", HEAD, "if self.has_unknown_coding {", "if false {"),
    out(
        "coding-case",
        HEAD,
        'if coding.eq_ignore_ascii_case(b"chunked") {',
        'if coding == b"chunked" {',
    ),
    out(
        "chunked",
        CHUNKED,
        "self.chunk_left = self.chunk_left << 4 | u64::from(digit);",
        "self.chunk_left = self.chunk_left * 10 + u64::from(digit);",
    ),
    out(
        "chunk-malformed",
        CHUNKED,
        "expect(byte, b'\\r').map(|()| State::DataLf)",
        "Ok(State::DataLf)",
    ),
    out("chunk-overflow", CHUNKED, "if self.digits == SIZE_DIGITS_MAX {", "if false {"),
    out(
        "chunk-extensions",
        CHUNKED,
        "b';' => {\n                self.line_len = 0;",
        "b';' if self.digits == 99 => {\n                self.line_len = 0;",
    ),
    out(
        "chunk-extensions-limit",
        CHUNKED,
        "            max_extension: 256,\n",
        "            max_extension: 1 << 20,\n",
    ),
    out(
        "chunk-extensions-limit-of-all",
        CHUNKED,
        "            max_extensions: 16 * 1024,\n",
        "            max_extensions: 1 << 20,\n",
        "chunk-extensions-limit",
    ),
    out(
        "trailers",
        CHUNKED,
        "_ => Err(ChunkedError::BadTrailer),\n                }",
        "_ => Ok(State::TrailerValue),\n                }",
    ),
    out(
        "trailers-forbidden",
        CHUNKED,
        "let is_forbidden = ",
        "let is_forbidden = false && ",
    ),
    out("trailers-limit", CHUNKED, "max_trailer: 8192", "max_trailer: 1 << 20"),
    out(
        "body-too-large",
        RECEIVE,
        "Framing::Length(len) if len > max_body =>",
        "Framing::Length(len) if len > max_body + 1 =>",
    ),
    out(
        "incomplete-head",
        RECEIVE,
        "return self.refuse(key, 400, false);",
        "return self.begin_close(key);",
    ),
    out(
        "half-closed",
        RECEIVE,
        "Outcome::EndOfStream => {\n                connection.peer_ended = true;",
        "Outcome::EndOfStream => {\n                return self.begin_close(key);",
    ),
    out(
        "incomplete-body",
        RECEIVE,
        "            self.begin_close(key);\n            return Ok(false);",
        "            return Ok(true);",
    ),
    # Connections
    out(
        "persistent",
        HEAD,
        "(version == Version::Http11 || facts.keep_alive)",
        "facts.keep_alive",
    ),
    out(
        "close",
        HEAD,
        "keep_alive: !facts.close && (",
        "keep_alive: (",
        *("close", "connection-options"),
    ),
    out(
        "connection-options",
        HEAD,
        "for option in value.split(|&b| b == b',').map(trim_ows) {",
        "for option in [value] {",
    ),
    out("http-1.0", HEAD, "(version == Version::Http11 || facts.keep_alive)", "true"),
    out(
        "http-1.0-keep-alive",
        HEAD,
        "(version == Version::Http11 || facts.keep_alive)",
        "version == Version::Http11",
    ),
    out(
        "whole-body-read",
        RESPOND,
        "            .consume(exchange.input_len(), &mut self.inputs);",
        "            .consume(exchange.head.len as usize, &mut self.inputs);",
    ),
    out(
        "pipelining",
        RESPOND,
        "            .consume(exchange.input_len(), &mut self.inputs);",
        "            .clear(&mut self.inputs);",
    ),
    out(
        "lingering",
        CLOSE,
        "if connection.peer_ended {\n            return self.begin_close(key);",
        "if connection.peer_ended || true {\n            return self.begin_close(key);",
    ),
    out(
        "timeouts",
        RECEIVE,
        "connection.read_deadline_ms = after(now_ms, timeout_ms);",
        "connection.read_deadline_ms = after(now_ms, timeout_ms * 100);",
    ),
    out("overload", RESPOND, "..1 + usize::from(status == 503)]", "..1]"),
    out(
        "upgrade-ignored",
        HEAD,
        'self.close |= option.eq_ignore_ascii_case(b"close");',
        'if option.eq_ignore_ascii_case(b"upgrade") { return Err(HeadError::ExpectationFailed); }\n'
        '                    self.close |= option.eq_ignore_ascii_case(b"close");',
        *("upgrade-ignored", "upgrade-in-1.0"),
    ),
    out(
        "upgrade-sent",
        ANSWER,
        "7 => has_upgrade |= name",
        "7 => has_upgrade |= false && name",
    ),
    # Expectations
    out(
        "continue",
        RECEIVE,
        "if wants_continue {\n            self.send_continue(key);",
        "if false {\n            self.send_continue(key);",
    ),
    out(
        "continue-omitted",
        RECEIVE,
        "        if exchange.is_complete() {\n            return Ok(true);",
        "        if exchange.is_complete() {\n"
        "            if exchange.head.expects_continue { self.send_continue(key); }\n"
        "            return Ok(true);",
    ),
    out(
        "continue-final",
        RECEIVE,
        "if wants_continue && !matches!",
        "if false && !matches!",
    ),
    out(
        "continue-in-1.0",
        HEAD,
        "Version::Http10 => Ok(false),",
        "Version::Http10 => Ok(self.expects_continue),",
    ),
    out(
        "expectation-unknown",
        HEAD,
        "Version::Http11 if self.expects_other =>",
        "Version::Http11 if false && self.expects_other =>",
    ),
    # Answers
    out(
        "get-and-head",
        ROUTER,
        "position(name).or_else(|| (method == Method::Head)",
        "position(name).or_else(|| (false && method == Method::Head)",
    ),
    out(
        "head-without-content",
        RESPOND,
        "                exchange.head.method.is_head() || forbids_body(status)",
        "                forbids_body(status)",
    ),
    out(
        "head-without-content-in-refusals",
        RESPOND,
        "is_head || is_unparsed && asks_for_head",
        "is_head || false && asks_for_head",
        "head-without-content",
    ),
    out(
        "head-fields",
        RESPOND,
        "ContentLength::Known(body.as_bytes().len() as u64)",
        "ContentLength::Known(if exchange.head.method.is_head() { 0 }"
        " else { body.as_bytes().len() as u64 })",
    ),
    out(
        "status-line",
        ANSWER,
        '(RFC 9112 §4).\n    out.extend(b" ")?;',
        "(RFC 9112 §4).",
    ),
    out("status-valid", PY_RESPONSE, "Ok(status @ 200..=599)", "Ok(status @ 100..=999)"),
    out("204", STATUS, "status < 200 || status == 204 ||", "status < 200 ||"),
    out("205", STATUS, "    status == 205\n", "    status == 1205\n"),
    out("304", STATUS, "status == 204 || status == 304\n", "status == 204\n"),
    out(
        "length-sent",
        RESPOND,
        "ContentLength::Known(body.as_bytes().len() as u64)",
        "if body.as_bytes().is_empty() { ContentLength::None } else "
        "{ ContentLength::Known(body.as_bytes().len() as u64) }",
    ),
    out("one-framing", ANSWER, "if !is_servers(name) {", "if true || !is_servers(name) {"),
    out(
        "chunked-sent",
        DOWNLOAD,
        "if len == 0 || exchange.sending == Sending::Nothing {",
        "if exchange.sending == Sending::Nothing {",
    ),
    out(
        "coding-to-1.0",
        DOWNLOAD,
        "None if is_old => Sending::UntilClose,",
        "None if is_old => Sending::Chunked,",
    ),
    out(
        "coding-without-content",
        DOWNLOAD,
        "_ if forbids_body(status) => ContentLength::None,",
        "_ if false => ContentLength::None,",
    ),
    out(
        "answer-cut-off",
        RESPOND,
        "            self.conclude(connection_key, exchange, true);\n            return false;",
        "            let closes = exchange.closes;\n"
        "            self.conclude(connection_key, exchange, closes);\n            return false;",
    ),
    out("field-once", PY_RESPONSE, "self.set(name, value, true)", "self.set(name, value, false)"),
    out("content-type", PY_RESPONSE, "if !is_empty && !engine", "if false && !engine"),
    out("date", ANSWER, "if !has_date {", "if has_date {"),
    out(
        "date-moves",
        ENGINE,
        "            self.date.update(time.as_secs());\n",
        "            if self.stats.turns < 3 { self.date.update(time.as_secs()); }\n",
    ),
    out("server-field", RESPOND, "[usize::from(server.is_empty())..", "[1.."),
    out("redirect", PY_RESPONSE, 'b"Location", location', 'b"X-Location", location'),
    out(
        "explained",
        PY_WORKER,
        'format!("{status} {}\\n", reason(status))',
        "String::from(&reason(status)[..0])",
    ),
    # Conditions and ranges of files
    out("etag-sent", FILE, "if !has_own.0 {", "if false {"),
    out(
        "last-modified-sent",
        FILE,
        "if let (false, Some(modified)) = (has_own.1, modified) {",
        "if let (true, Some(modified)) = (has_own.1, modified) {",
    ),
    out("last-modified-of-the-future", FILE, ".map(|at| at.min(now));", ".map(|at| at.max(1));"),
    out("if-match", CONDITIONAL, "(Some(matches), _) => matches,", "(Some(_), _) => true,"),
    out(
        "if-match-strong",
        CONDITIONAL,
        "lists(value, current.etag, Comparison::Strong);",
        "lists(value, current.etag, Comparison::Weak);",
    ),
    out(
        "if-none-match",
        CONDITIONAL,
        "(Some(true), _) if is_get_or_head => return Answer::NotModified,",
        "(Some(true), _) if is_get_or_head => {}",
    ),
    out(
        "if-none-match-weak",
        CONDITIONAL,
        "lists(value, current.etag, Comparison::Weak);",
        "lists(value, current.etag, Comparison::Strong);",
    ),
    out("if-modified-since", CONDITIONAL, "&& modified <= date", "&& modified > date"),
    out(
        "if-modified-since-beside-tags",
        CONDITIONAL,
        "(None, Single::Once(value)) if is_get_or_head => {",
        "(_, Single::Once(value)) if is_get_or_head => {",
    ),
    out(
        "condition-dates",
        CONDITIONAL,
        "httpdate::parse_http_date(text).ok()?;",
        "httpdate::parse_http_date(text).unwrap_or_else(|_| std::time::SystemTime::now());",
    ),
    out(
        "condition-dates-repeated",
        CONDITIONAL,
        "            _ => Single::Repeated,\n",
        "            _ => Single::Once(value),\n",
    ),
    out(
        "date-formats",
        CONDITIONAL,
        "    let time = httpdate::",
        "    if text.len() != 29 { return None; }\n    let time = httpdate::",
    ),
    out(
        "if-unmodified-since",
        CONDITIONAL,
        "(Some(date), Some(modified)) => modified <= date,",
        "(Some(date), Some(modified)) => modified <= date || modified > date,",
    ),
    out(
        "if-unmodified-since-beside-tags",
        CONDITIONAL,
        "(Some(matches), _) => matches,\n        (None, Single::Once(value)) => match",
        "(Some(matches), Single::Never | Single::Repeated) => matches,\n"
        "        (_, Single::Once(value)) => match",
    ),
    out(
        "condition-order",
        CONDITIONAL,
        "    if !is_unchanged {\n",
        "    if !is_unchanged && conditions.if_none_match != Some(true) {\n",
    ),
    out("conditions-of-errors", FILE, "if status != 200 || !matches!", "if !matches!"),
    out(
        "conditions-of-other-methods",
        FILE,
        "if status != 200 || !matches!(method, Method::Get | Method::Head) {",
        "if status != 200 {",
    ),
    out(
        "range-of-head",
        CONDITIONAL,
        "if method != Method::Get || !holds {",
        "if !holds {",
        "conditions-of-other-methods",
    ),
    out(
        "304-fields",
        FILE,
        '[&b"content-type"[..], b"content-disposition"]',
        '[&b"content-type"[..], b"etag"]',
    ),
    out(
        "range",
        CONDITIONAL,
        "Selected::Range { first, last } => Answer::Partial { first, last },",
        "Selected::Range { .. } => Answer::Whole,",
    ),
    out(
        "206-fields",
        FILE,
        'self.set_field(id, b"Content-Range", range.as_bytes(), true)?;\n                (206,',
        'self.set_field(id, b"ETag", range.as_bytes(), true)?;\n                (206,',
    ),
    out("range-end", RANGE, "last: last.min(len - 1),", "last: last.min(len - 2),"),
    out(
        "range-end-of-a-suffix",
        RANGE,
        "first: len - suffix.min(len),",
        "first: len.checked_sub(suffix).unwrap_or(len - 1),",
        "range-end",
    ),
    out("range-numbers", RANGE, ".saturating_mul(10)", ".wrapping_mul(10)"),
    out(
        "range-unsatisfiable",
        RANGE,
        "_ if first >= len => Selected::Unsatisfiable,",
        "_ if first >= len => Selected::Whole,",
    ),
    out(
        "range-invalid",
        RANGE,
        "if last < first => Selected::Whole,",
        "if last < first => Selected::Unsatisfiable,",
    ),
    out(
        "range-unit",
        RANGE,
        'if !unit.eq_ignore_ascii_case(b"bytes=") {',
        'if !unit.ends_with(b"=") {',
    ),
    out(
        "range-several",
        RANGE,
        "specs.next().is_none().then_some(first)",
        "Some(first)",
    ),
    out(
        "range-repeated",
        CONDITIONAL,
        "let Single::Once(range) = conditions.range else {",
        "let Single::Once(range) = (match conditions.range {\n"
        '        Single::Repeated => Single::Once(&b"bytes=0-1"[..]),\n'
        "        other => other,\n    }) else {",
    ),
    out("accept-ranges", FILE, 'b"Accept-Ranges", b"bytes"', 'b"Accept-Ranges", b"none"'),
    out(
        "if-range",
        CONDITIONAL,
        "if method != Method::Get || !holds {",
        "if method != Method::Get {",
    ),
    out(
        "if-range-strong",
        CONDITIONAL,
        ".is_some_and(|etag| is_equal(tag, etag, Comparison::Strong));",
        ".is_some_and(|etag| is_equal(tag, etag, Comparison::Weak));",
    ),
    out(
        "if-range-date",
        CONDITIONAL,
        "date == modified && modified < now",
        "date >= modified && modified < now",
    ),
    # Limits, and handlers that fail
    out(
        "field-count",
        HEAD,
        "TooManyHeaders) => parse_many(window, start, limits, arena)",
        "TooManyHeaders) => Err(HeadError::TooLarge)",
    ),
    out(
        "body-rate",
        RECEIVE,
        "< config.min_body_rate.saturating_mul(waited_ms)",
        "< config.min_body_rate.saturating_mul(0)",
    ),
    out("write-timeout", TIMEOUTS, "if untaken >= connection.untaken {", "if false {"),
    out(
        "handler-timeout",
        RESPOND,
        "            && self.config.handler_timeout_ms > 0\n",
        "            && false\n",
    ),
    out(
        "handler-fails",
        PY_WORKER,
        "        None => 500,\n    };",
        "        None => 200,\n    };",
    ),
    out(
        "blank-lines-silent",
        TIMEOUTS,
        "!connection.input.bytes().trim_ascii().is_empty()",
        "!connection.input.bytes().is_empty()",
        "timeouts",
    ),
    out(
        "splitting",
        ANSWER,
        "if value.iter().all(|&b| is_field_value(b)) {",
        "if true || value.iter().all(|&b| is_field_value(b)) {",
    ),
    out(
        "splitting-by-names",
        ANSWER,
        "if !name.is_empty() && name.iter().all(|&b| is_token(b)) {",
        "if true || !name.is_empty() && name.iter().all(|&b| is_token(b)) {",
        "splitting",
    ),
)
