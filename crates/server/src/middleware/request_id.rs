//! A name for each request, to find it again in logs.

use std::fmt;
use std::sync::Arc;

use crate::{Next, Request, Response, Result};

const NAME: &str = "X-Request-Id";
/// Bytes of a client's own at most.
const LEN_MAX: usize = 64;

/// The name of a request: in [`Request::extensions`], behind [`RequestIds`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// As text: visible ASCII.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names each request, for those behind and, by `X-Request-Id`, for the client. Names are unique for all that
/// matters, and can be guessed: they are no secrets. See [`middleware`](crate::middleware).
#[derive(Clone, Default, Debug)]
pub struct RequestIds {
    takes_over: bool,
}

impl RequestIds {
    /// Names are made here, of 32 hexadecimal digits.
    #[must_use]
    pub fn new() -> Self {
        RequestIds::default()
    }

    /// The client's `X-Request-Id` is taken over, if it is visible ASCII of 64 bytes at most: for servers behind
    /// a proxy that sets it.
    #[must_use]
    pub fn take_over(mut self) -> Self {
        self.takes_over = true;
        self
    }

    /// The middleware. It allocates a few times.
    pub fn build(
        self,
    ) -> impl Fn(&mut Request<'_>, &mut Response<'_>, Next<'_>) -> Result + Send + Sync + 'static
    {
        move |request, response, next| {
            let given = request.header(NAME).filter(|given| {
                self.takes_over
                    && (1..=LEN_MAX).contains(&given.len())
                    && given.bytes().all(|byte| byte.is_ascii_graphic())
            });
            let id: Arc<str> = match given {
                Some(given) => given.into(),
                None => format!("{:032x}", fastrand::u128(..)).into(),
            };
            request.extensions_mut().insert(RequestId(Arc::clone(&id)));
            next.run(request, response);
            response.set_header(NAME, id.as_bytes())?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::text_of;
    use super::*;
    use crate::App;

    fn ids(middleware: RequestIds, given: &str) -> (String, String) {
        let app = App::new().middleware(middleware.build()).get(
            "/",
            |request: &mut Request, response: &mut Response| {
                response.text(request.extensions().get::<RequestId>().unwrap().as_str());
            },
        );
        let request = http::Request::get("/").header(NAME, given);
        let answer = app.test(request.body("").unwrap()).unwrap();
        let seen = String::from_utf8(answer.body().to_vec()).unwrap();
        (seen, text_of(&answer, NAME))
    }

    #[test]
    fn each_request_has_its_own_and_the_client_is_told() {
        let (seen, told) = ids(RequestIds::new(), "mine");
        assert_eq!(seen, told);
        assert_eq!(seen.len(), 32);
        assert!(seen.bytes().all(|byte| byte.is_ascii_hexdigit()), "{seen}");
        assert_ne!(ids(RequestIds::new(), "mine").0, seen);
    }

    #[test]
    fn the_clients_is_taken_over_only_if_asked_to_and_harmless() {
        let mine = ("mine-1".to_owned(), "mine-1".to_owned());
        assert_eq!(ids(RequestIds::new().take_over(), "mine-1"), mine);
        for bad in ["", "two words", "a\tb", &"x".repeat(65)] {
            assert_eq!(ids(RequestIds::new().take_over(), bad).0.len(), 32, "{bad}");
        }
        let longest = "x".repeat(64);
        assert_eq!(ids(RequestIds::new().take_over(), &longest).0, longest);
    }

    #[test]
    fn requests_without_a_route_have_one_too() {
        let app = App::new().middleware(RequestIds::new().build());
        let answer = app.test(http::Request::get("/").body("").unwrap()).unwrap();
        assert_eq!(answer.status(), 404);
        assert_eq!(text_of(&answer, NAME).len(), 32);
    }
}
