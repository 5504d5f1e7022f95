//! A line for each request.
//!
//! A line is given when the answer stands: when the handler has returned, or, for one that comes later, when
//! the reply is there. The bytes of a file or stream are not known then, and none are counted; nor is what is
//! answered before there is a request (400, 408, 431) or cut short by the client. Whatever a client has sent is
//! escaped: a line is one line, and a quoted part ends where its quote does.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::{StatusCode, Version};

use super::RequestId;
use crate::{Next, Request, Response, Result};

type Write = dyn Fn(&str) + Send + Sync;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Format {
    Common,
    Combined,
    Json,
}

/// Gives a line for each request to a function, without its line end: to print, or send to a thread that writes.
/// The function is called on the loop, and holds it up for as long as it takes. See
/// [`middleware`](crate::middleware).
pub struct AccessLog {
    format: Format,
    write: Arc<Write>,
}

impl AccessLog {
    /// The common log format, as in `192.0.2.7 - - [27/Nov/2026:09:52:23 +0000] "GET / HTTP/1.1" 200 12`.
    #[must_use]
    pub fn common(write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        AccessLog::new(Format::Common, write)
    }

    /// As [`common`](Self::common), with `Referer`, `User-Agent`, the milliseconds it took, and the
    /// [`RequestId`] or `-` behind.
    #[must_use]
    pub fn combined(write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        AccessLog::new(Format::Combined, write)
    }

    /// An object of JSON: `time` (seconds since 1970), `client`, `method`, `target`, `version`, `status`,
    /// `bytes`, `ms`, `referer`, `user_agent`, `request_id`. What is not known is null.
    #[must_use]
    pub fn json(write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        AccessLog::new(Format::Json, write)
    }

    fn new(format: Format, write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        AccessLog {
            format,
            write: Arc::new(write),
        }
    }

    /// The middleware. It reads two clocks, makes the system call of [`Request::client`], and allocates a
    /// few times.
    pub fn build(
        self,
    ) -> impl Fn(&mut Request<'_>, &mut Response<'_>, Next<'_>) -> Result + Send + Sync + 'static
    {
        move |request, response, next| {
            let began = Instant::now();
            next.run(request, response);
            let entry = Entry::new(request, began);
            if response.is_deferred() {
                let (format, write) = (self.format, Arc::clone(&self.write));
                response.on_reply(move |reply| {
                    write(&entry.line(format, reply.status(), Some(reply.body().len())));
                });
            } else {
                let bytes = response.body_len();
                (self.write)(&entry.line(self.format, response.status(), bytes));
            }
            Ok(())
        }
    }
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

/// What is known of a request, kept until its answer stands.
struct Entry {
    began: Instant,
    time: SystemTime,
    client: Option<String>,
    method: String,
    target: String,
    version: &'static str,
    referer: Option<Vec<u8>>,
    user_agent: Option<Vec<u8>>,
    id: Option<RequestId>,
}

impl Entry {
    fn new(request: &Request<'_>, began: Instant) -> Self {
        let field = |name| request.header_values(name).next().map(<[u8]>::to_vec);
        Entry {
            began,
            time: SystemTime::now(),
            client: request.client().map(|hop| hop.address.to_string()),
            method: request.method().as_str().to_owned(),
            target: request.target().to_owned(),
            version: match request.version() {
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            referer: field("referer"),
            user_agent: field("user-agent"),
            id: request.extensions().get::<RequestId>().cloned(),
        }
    }

    fn line(&self, format: Format, status: StatusCode, bytes: Option<usize>) -> String {
        let mut line = String::with_capacity(256);
        // Writing to a string cannot fail.
        let _ = match format {
            Format::Common => self.common(&mut line, status, bytes),
            Format::Combined => self.combined(&mut line, status, bytes),
            Format::Json => self.json(&mut line, status, bytes),
        };
        line
    }

    fn ms(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * 1e3
    }

    fn common(
        &self,
        line: &mut String,
        status: StatusCode,
        bytes: Option<usize>,
    ) -> std::fmt::Result {
        let client = self.client.as_deref().unwrap_or("-");
        // `Fri, 27 Nov 2026 09:52:23 GMT`, whose parts have fixed places.
        let date = httpdate::fmt_http_date(self.time);
        let (day, month, year, time) = (&date[5..7], &date[8..11], &date[12..16], &date[17..25]);
        write!(line, "{client} - - [{day}/{month}/{year}:{time} +0000] \"")?;
        quote(line, self.method.as_bytes())?;
        line.push(' ');
        quote(line, self.target.as_bytes())?;
        write!(line, " {}\" {} ", self.version, status.as_u16())?;
        match bytes {
            Some(bytes) => write!(line, "{bytes}"),
            None => line.write_char('-'),
        }
    }

    fn combined(
        &self,
        line: &mut String,
        status: StatusCode,
        bytes: Option<usize>,
    ) -> std::fmt::Result {
        self.common(line, status, bytes)?;
        for field in [&self.referer, &self.user_agent] {
            line.push_str(" \"");
            quote(line, field.as_deref().unwrap_or(b"-"))?;
            line.push('"');
        }
        let id = self.id.as_ref().map_or("-", RequestId::as_str);
        write!(line, " {:.3} {id}", self.ms())
    }

    fn json(
        &self,
        line: &mut String,
        status: StatusCode,
        bytes: Option<usize>,
    ) -> std::fmt::Result {
        let time = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        write!(line, "{{\"time\":{:.3}", time.as_secs_f64())?;
        let id = self.id.as_ref().map(|id| id.as_str().as_bytes());
        for (name, value) in [
            ("client", self.client.as_deref().map(str::as_bytes)),
            ("method", Some(self.method.as_bytes())),
            ("target", Some(self.target.as_bytes())),
            ("version", Some(self.version.as_bytes())),
            ("referer", self.referer.as_deref()),
            ("user_agent", self.user_agent.as_deref()),
            ("request_id", id),
        ] {
            write!(line, ",\"{name}\":")?;
            match value {
                Some(value) => json_string(line, &String::from_utf8_lossy(value))?,
                None => line.push_str("null"),
            }
        }
        write!(line, ",\"status\":{}", status.as_u16())?;
        match bytes {
            Some(bytes) => write!(line, ",\"bytes\":{bytes}")?,
            None => line.push_str(",\"bytes\":null"),
        }
        write!(line, ",\"ms\":{:.3}}}", self.ms())
    }
}

/// Writes what stands between quotes: all but visible ASCII and spaces, and quotes and backslashes, as `\xhh`.
fn quote(line: &mut String, bytes: &[u8]) -> std::fmt::Result {
    for byte in bytes {
        match byte {
            b'"' | b'\\' | ..b' ' | 0x7f.. => write!(line, "\\x{byte:02x}")?,
            _ => line.push(char::from(*byte)),
        }
    }
    Ok(())
}

/// Writes a string of JSON, without any control character or separator of lines in it.
fn json_string(line: &mut String, text: &str) -> std::fmt::Result {
    line.push('"');
    for letter in text.chars() {
        match letter {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\u{2028}' | '\u{2029}' => write!(line, "\\u{:04x}", u32::from(letter))?,
            _ if letter.is_control() => write!(line, "\\u{:04x}", u32::from(letter))?,
            _ => line.push(letter),
        }
    }
    line.push('"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::RequestIds;
    use super::*;
    use crate::{App, Error, Reply, TestClient};

    /// What was logged of these requests, in their raw form.
    fn lines_of(
        make: impl FnOnce(Box<dyn Fn(&str) + Send + Sync>) -> AccessLog,
        requests: &[&[u8]],
    ) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let log = make(Box::new(move |line| {
            kept.lock().unwrap().push(line.to_owned());
        }));
        let app = App::new()
            .middleware(RequestIds::new().take_over().build())
            .middleware(log.build())
            .get("/", |_: &mut Request, response: &mut Response| {
                response.text("hello");
            })
            .get("/fails", |_: &mut Request, _: &mut Response| -> Result {
                Err(Error::new(StatusCode::IM_A_TEAPOT, "short"))
            })
            .get("/panics", |_: &mut Request, _: &mut Response| -> Result {
                panic!("as it should")
            })
            .get("/later", |_: &mut Request, response: &mut Response| {
                response.offload(|| Ok(Reply::text("created").with_status(StatusCode::CREATED)));
            })
            .get("/stream", |_: &mut Request, response: &mut Response| {
                response.stream(["a", "b"]);
            });
        let mut client = TestClient::new(&app).unwrap();
        for request in requests {
            client.send_bytes(request).unwrap();
        }
        lines.lock().unwrap().clone()
    }

    #[test]
    fn statuses_and_bytes_are_those_that_the_client_gets() {
        let requests: Vec<Vec<u8>> = ["/", "/fails", "/panics", "/later", "/stream", "/none"]
            .iter()
            .map(|path| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes())
            .collect();
        let requests: Vec<&[u8]> = requests.iter().map(Vec::as_slice).collect();
        let lines = lines_of(|write| AccessLog::common(write), &requests);
        let ends: Vec<&str> = lines
            .iter()
            .map(|line| line.split("] ").nth(1).unwrap())
            .collect();
        assert_eq!(
            ends,
            [
                "\"GET / HTTP/1.1\" 200 5",
                "\"GET /fails HTTP/1.1\" 418 6",
                "\"GET /panics HTTP/1.1\" 500 26",
                "\"GET /later HTTP/1.1\" 201 7",
                "\"GET /stream HTTP/1.1\" 200 -",
                "\"GET /none HTTP/1.1\" 404 14",
            ]
        );
        let (client, rest) = lines[0].split_once(" - - [").unwrap();
        assert!(
            client == "-" || client.parse::<std::net::IpAddr>().is_ok(),
            "{client}"
        );
        let date = rest.split(" +0000]").next().unwrap();
        assert_eq!(
            (date.len(), &date[2..3], &date[6..7], &date[11..12]),
            (20, "/", "/", ":")
        );
    }

    const FORGED: &[u8] = b"GET /?a=\"%0a HTTP/1.1\r\nHost: x\r\nX-Request-Id: id-7\r\n\
        User-Agent: a\" 200 \\ \xc2\x85 \xe2\x80\xa8\tz\r\n\r\n";

    #[test]
    fn a_combined_line_cannot_be_forged() {
        let line = &lines_of(|write| AccessLog::combined(write), &[FORGED])[0];
        assert!(
            line.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "{line}"
        );
        let agent = r#""a\x22 200 \x5c \xc2\x85 \xe2\x80\xa8\x09z""#;
        assert!(line.contains(&format!(" \"-\" {agent} ")), "{line}");
        assert!(
            line.contains(r#""GET /?a=\x22%0a HTTP/1.1" 200 5"#),
            "{line}"
        );
        assert!(line.ends_with(" id-7"), "{line}");
        assert_eq!(line.matches('"').count(), 6);
    }

    #[test]
    fn a_json_line_is_json_and_one_line() {
        let line = &lines_of(|write| AccessLog::json(write), &[FORGED])[0];
        assert!(
            !line.chars().any(|c| c.is_control() || c == '\u{2028}'),
            "{line}"
        );
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["user_agent"], "a\" 200 \\ \u{85} \u{2028}\tz");
        assert_eq!(value["target"], "/?a=\"%0a");
        assert_eq!(value["status"], 200);
        assert_eq!(value["bytes"], 5);
        assert_eq!(value["request_id"], "id-7");
        assert!(value["referer"].is_null());
        assert!(value["ms"].as_f64().unwrap() >= 0.0);
        assert!(value["time"].as_f64().unwrap() > 1.7e9);
    }
}
