//! The request, as a handler sees it: borrowed from the exchange's memory.

use std::any::{Any, TypeId, type_name};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, Method, StatusCode, Version};
use serde::Deserialize;
use theframework_http::{
    Hop, Scheme, Version as WireVersion, decode_form, decode_param, is_ambiguous_name, query_pairs,
};
use theframework_io::Peer;

use crate::app::error::{Error, Result};
use crate::config::{Config, HeaderMap};
use crate::exchange::RequestView;

/// What an application gives all its handlers: one value of each type.
#[derive(Clone, Default)]
pub(crate) struct State(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl State {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(value));
    }

    pub(crate) fn get<T: 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

/// A request. What its methods return is borrowed from the memory that the request arrived in, for as
/// long as the handler runs: reading costs no copy and no allocation, unless a method says so.
///
/// ```
/// use theframework::{Request, Response};
///
/// fn greet(request: &mut Request, response: &mut Response) {
///     let name = request.param("name").unwrap_or_default();
///     let greeting = request.query_value("greeting").unwrap_or("Hello".into());
///     response.text(format!("{greeting}, {name}!"));
/// }
/// ```
pub struct Request<'a> {
    view: RequestView<'a, Bytes>,
    config: &'a Config,
    peer: &'a dyn Fn() -> Peer,
    state: &'a State,
    extensions: Extensions,
}

impl<'a> Request<'a> {
    pub(crate) fn new(
        view: RequestView<'a, Bytes>,
        config: &'a Config,
        peer: &'a dyn Fn() -> Peer,
        state: &'a State,
    ) -> Self {
        Request {
            view,
            config,
            peer,
            state,
            extensions: Extensions::new(),
        }
    }

    pub(crate) fn view(&self) -> &RequestView<'a, Bytes> {
        &self.view
    }

    /// The method. Allocates for one that is not registered and longer than 15 bytes.
    pub fn method(&self) -> Method {
        use theframework_http::Method as Wire;
        match self.view.head().method {
            Wire::Get => Method::GET,
            Wire::Head => Method::HEAD,
            Wire::Post => Method::POST,
            Wire::Put => Method::PUT,
            Wire::Delete => Method::DELETE,
            Wire::Options => Method::OPTIONS,
            Wire::Patch => Method::PATCH,
            Wire::Trace => Method::TRACE,
            Wire::Connect => Method::CONNECT,
            // The parser has seen that it is a token.
            Wire::Other => Method::from_bytes(self.view.method()).unwrap_or_default(),
        }
    }

    /// The version of HTTP that the request is answered in.
    pub fn version(&self) -> Version {
        match self.view.head().version {
            WireVersion::Http10 => Version::HTTP_10,
            WireVersion::Http11 => Version::HTTP_11,
        }
    }

    /// The target as it was received, with its query.
    pub fn target(&self) -> &'a str {
        text(self.view.target())
    }

    /// The path, percent-decoded. Allocates if an encoded slash or percent sign is in it.
    pub fn path(&self) -> Cow<'a, str> {
        let decoded = self.view.decoded_path;
        decoded_of(if decoded.is_empty() {
            self.view.raw_path()
        } else {
            decoded
        })
    }

    /// The path as it was received.
    pub fn raw_path(&self) -> &'a str {
        text(self.view.raw_path())
    }

    /// The value of a parameter of the route's pattern, percent-decoded. Allocates if an encoded slash or
    /// percent sign is in it.
    pub fn param(&self, name: &str) -> Option<Cow<'a, str>> {
        let index = self
            .view
            .param_names()
            .iter()
            .position(|known| known == name)?;
        self.view.param(index).map(decoded_of)
    }

    /// The value of a parameter, read as a number or whatever else it is to be.
    ///
    /// # Errors
    /// 404 if it is not there or cannot be read: no such thing can be.
    pub fn param_as<T: FromStr>(&self, name: &str) -> Result<T> {
        self.param(name)
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| Error::new(StatusCode::NOT_FOUND, "404 Not Found"))
    }

    /// Names and values of all parameters, in the order of the pattern.
    pub fn params(&self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        let names = self.view.param_names().iter().enumerate();
        names.filter_map(|(index, name)| Some((name.as_str(), decoded_of(self.view.param(index)?))))
    }

    /// The query as it was received, without its question mark.
    pub fn query(&self) -> &'a str {
        text(self.view.query())
    }

    /// Names and values of the query, decoded, in the order received. Allocates for those with an escape
    /// or a plus sign.
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        query_pairs(self.view.query()).map(|(name, value)| (form_of(name), form_of(value)))
    }

    /// The first value of this name in the query, decoded.
    pub fn query_value(&self, name: &str) -> Option<Cow<'a, str>> {
        query_pairs(self.view.query())
            .find(|(known, _)| form_of(known) == name)
            .map(|(_, value)| form_of(value))
    }

    /// The query as a type of your own.
    ///
    /// # Errors
    /// 400 when it is not one.
    pub fn query_as<T: Deserialize<'a>>(&self) -> Result<T> {
        serde_urlencoded::from_bytes(self.view.query()).map_err(|error| {
            Error::because(
                StatusCode::BAD_REQUEST,
                format!("the query: {error}"),
                error,
            )
        })
    }

    /// The value of the first field of this name, in any case, if it is text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.header_values(name)
            .next()
            .and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of all fields of this name, in any case, in the order received.
    pub fn header_values<'n>(
        &self,
        name: &'n str,
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a, 'n> {
        let is_visible = self.shows(name.as_bytes());
        self.view.values(name).filter(move |_| is_visible)
    }

    /// Names and values of all fields, in the order received.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        (0..self.view.field_count())
            .filter_map(|index| self.view.field(index))
            .filter(|(name, _)| self.shows(name))
            .map(|(name, value)| (text(name), value))
    }

    /// Whether fields of this name are shown: see [`HeaderMap`].
    fn shows(&self, name: &[u8]) -> bool {
        self.config.header_map != HeaderMap::Drop || !is_ambiguous_name(name)
    }

    /// The value of a cookie, as [`Response::set_cookie`](crate::Response::set_cookie) was given it. Allocates
    /// for one with an escape.
    pub fn cookie(&self, name: &str) -> Option<Cow<'a, str>> {
        self.cookies()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// Names and values of all cookies, in the order received; quotes around a value are left out, and what
    /// is percent-encoded in it is decoded.
    pub fn cookies(&self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> + use<'a> {
        self.view
            .values("cookie")
            .filter_map(|line| std::str::from_utf8(line).ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| {
                let (name, value) = pair.trim().split_once('=')?;
                let bare = value
                    .strip_prefix('"')
                    .and_then(|value| value.strip_suffix('"'));
                let value = bare.unwrap_or(value);
                let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
                Some((name, decoded.unwrap_or(Cow::Borrowed(value))))
            })
    }

    /// The body. On a route that streams, what has arrived with the head.
    pub fn body(&self) -> &'a [u8] {
        self.view.body()
    }

    /// The body as text.
    ///
    /// # Errors
    /// 400 when it is not UTF-8.
    pub fn text(&self) -> Result<&'a str> {
        std::str::from_utf8(self.body()).map_err(|error| {
            Error::because(
                StatusCode::BAD_REQUEST,
                "the body is not valid UTF-8",
                error,
            )
        })
    }

    /// The body as a value in JSON; it may borrow from the body.
    ///
    /// # Errors
    /// 415 when `Content-Type` says that it is something else, 400 when it is not what it should be.
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T> {
        let is_json = |media: &str| {
            media.eq_ignore_ascii_case("application/json")
                || media
                    .get(media.len().saturating_sub(5)..)
                    .is_some_and(|end| end.eq_ignore_ascii_case("+json"))
        };
        self.expect_media(is_json, "application/json")?;
        serde_json::from_slice(self.body()).map_err(|error| {
            Error::because(StatusCode::BAD_REQUEST, format!("the body: {error}"), error)
        })
    }

    /// The body as the fields of a form (`application/x-www-form-urlencoded`).
    ///
    /// # Errors
    /// 415 when `Content-Type` says that it is something else, 400 when it is not what it should be.
    pub fn form<T: Deserialize<'a>>(&self) -> Result<T> {
        const FORM: &str = "application/x-www-form-urlencoded";
        self.expect_media(|media| media.eq_ignore_ascii_case(FORM), FORM)?;
        serde_urlencoded::from_bytes(self.body()).map_err(|error| {
            Error::because(StatusCode::BAD_REQUEST, format!("the body: {error}"), error)
        })
    }

    fn expect_media(&self, is_it: impl FnOnce(&str) -> bool, name: &str) -> Result {
        match self.media_type() {
            Some(media) if is_it(media) => Ok(()),
            _ => Err(Error::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("the body has to be {name}"),
            )),
        }
    }

    /// The media type of the body, without its parameters, if `Content-Type` is there.
    pub fn media_type(&self) -> Option<&'a str> {
        let value = self.header("content-type")?;
        Some(value.split(';').next().unwrap_or_default().trim())
    }

    /// Which of these media types the client likes best, by its `Accept`; of several, the first. `None` if
    /// it wants none of them. Without `Accept`: the first.
    pub fn accepts<'o>(&self, offered: &[&'o str]) -> Option<&'o str> {
        crate::app::accept_header::best(self.view.values("accept"), offered)
    }

    /// Who has sent the request: the peer, or whom a trusted proxy names. `None` on a Unix socket
    /// where nobody is named. One system call.
    pub fn client(&self) -> Option<Hop> {
        self.view
            .client((self.peer)(), &self.config.forwarded_allow_ips)
    }

    /// The scheme that the client used, as a trusted proxy says; else `http`. One system call if the
    /// request has `X-Forwarded-Proto`.
    pub fn scheme(&self) -> Scheme {
        self.view
            .scheme(self.peer, &self.config.forwarded_allow_ips)
    }

    /// What the application was given by [`App::state`](crate::App::state).
    ///
    /// # Panics
    /// If it was given nothing of that type; the request is answered with 500 then.
    pub fn state<T: Send + Sync + 'static>(&self) -> &'a T {
        match self.state.get() {
            Some(value) => value,
            None => panic!("App::state was given no {}", type_name::<T>()),
        }
    }

    /// What a middleware has left for those behind it, by type.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// What is left here, those behind will find. The first value allocates.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.extensions
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method())
            .field("target", &self.target())
            .finish_non_exhaustive()
    }
}

/// Method, target and names of fields are visible ASCII: the parser has seen to that.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A path or a part of one, of which only `%2F` and `%25` are still encoded.
fn decoded_of(bytes: &[u8]) -> Cow<'_, str> {
    let bytes = text(bytes);
    if !bytes.contains('%') {
        return Cow::Borrowed(bytes);
    }
    let mut scratch = Vec::new();
    Cow::Owned(decode_param(bytes, &mut scratch).to_owned())
}

fn form_of(bytes: &[u8]) -> Cow<'_, str> {
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return String::from_utf8_lossy(bytes);
    }
    let mut scratch = Vec::new();
    Cow::Owned(decode_form(bytes, &mut scratch).into_owned())
}
