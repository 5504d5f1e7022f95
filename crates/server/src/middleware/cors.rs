//! Cross-origin requests (the CORS protocol of the Fetch standard): which other sites' scripts may call, and
//! read the answers.
//!
//! A preflight (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) is answered here with 204, whatever
//! the origin: without the fields that allow it, the browser refuses. Every other request goes on. An origin
//! is compared as it is, byte by byte. It protects no server: only browsers ask.

use http::{Method, StatusCode};

use super::vary;
use crate::{Next, Request, Response, Result};

/// Who may call, how, and with what. See [`middleware`](crate::middleware).
///
/// Use it for the whole application: a group's middleware does not see the preflights of paths that have no
/// route for OPTIONS.
#[derive(Clone, Debug)]
pub struct Cors {
    /// None: any.
    origins: Option<Vec<String>>,
    methods: String,
    headers: String,
    exposed: String,
    has_credentials: bool,
    max_age: Option<String>,
}

impl Cors {
    fn new(origins: Option<Vec<String>>) -> Self {
        Cors {
            origins,
            methods: "GET, HEAD, POST".to_owned(),
            headers: String::new(),
            exposed: String::new(),
            has_credentials: false,
            max_age: None,
        }
    }

    /// Every site may.
    #[must_use]
    pub fn any() -> Self {
        Cors::new(None)
    }

    /// These sites may: scheme, host and port if it is not the scheme's own, as in `https://example.org`.
    #[must_use]
    pub fn origins(origins: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Cors::new(Some(origins.into_iter().map(Into::into).collect()))
    }

    /// The methods that may be used, in place of GET, HEAD and POST.
    #[must_use]
    pub fn methods(mut self, methods: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.methods = joined(methods);
        self
    }

    /// The request fields that may be set beside those that any page may set.
    #[must_use]
    pub fn headers(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.headers = joined(names);
        self
    }

    /// The response fields that scripts may read beside the harmless ones.
    #[must_use]
    pub fn expose(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.exposed = joined(names);
        self
    }

    /// Cookies and the like may come along. The origin is then named in each answer, never `*`: together with
    /// [`any`](Self::any), every site can act for the user who visits it.
    #[must_use]
    pub fn credentials(mut self) -> Self {
        self.has_credentials = true;
        self
    }

    /// How long a browser may keep what a preflight said, in seconds.
    #[must_use]
    pub fn max_age(mut self, seconds: u32) -> Self {
        self.max_age = Some(seconds.to_string());
        self
    }

    /// The middleware. It allocates nothing.
    pub fn build(
        self,
    ) -> impl Fn(&mut Request<'_>, &mut Response<'_>, Next<'_>) -> Result + Send + Sync + 'static
    {
        move |request, response, next| self.call(request, response, next)
    }

    fn call(
        &self,
        request: &mut Request<'_>,
        response: &mut Response<'_>,
        next: Next<'_>,
    ) -> Result {
        let origin = request.header("origin");
        let is_preflight = request.method() == Method::OPTIONS
            && origin.is_some()
            && request.header("access-control-request-method").is_some();
        if !is_preflight {
            next.run(request, response);
            return self.allow(origin, response).map(drop);
        }
        response.set_status(StatusCode::NO_CONTENT);
        if self.allow(origin, response)? {
            response.set_header("Access-Control-Allow-Methods", &self.methods)?;
            if !self.headers.is_empty() {
                response.set_header("Access-Control-Allow-Headers", &self.headers)?;
            }
            if let Some(max_age) = &self.max_age {
                response.set_header("Access-Control-Max-Age", max_age)?;
            }
        }
        vary(
            response,
            "Access-Control-Request-Method, Access-Control-Request-Headers",
        )
    }

    /// Says whether that origin may read the response, to its browser as well.
    fn allow(&self, origin: Option<&str>, response: &mut Response<'_>) -> Result<bool> {
        let names_origin = self.origins.is_some() || self.has_credentials;
        if names_origin {
            // Of requests without an origin too: a cache must not give their answers to those with one.
            vary(response, "Origin")?;
        }
        let Some(origin) = origin else {
            return Ok(false);
        };
        let is_known = |origins: &Vec<String>| origins.iter().any(|known| known == origin);
        if !self.origins.as_ref().is_none_or(is_known) {
            return Ok(false);
        }
        let allowed = if names_origin { origin } else { "*" };
        response.set_header("Access-Control-Allow-Origin", allowed)?;
        if self.has_credentials {
            response.set_header("Access-Control-Allow-Credentials", "true")?;
        }
        if !self.exposed.is_empty() {
            response.set_header("Access-Control-Expose-Headers", &self.exposed)?;
        }
        Ok(true)
    }
}

fn joined(parts: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut all = String::new();
    for part in parts {
        if !all.is_empty() {
            all.push_str(", ");
        }
        all.push_str(part.as_ref());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::text_of;
    use super::*;
    use crate::{App, Bytes, Error};

    fn app(cors: Cors) -> App {
        App::new()
            .middleware(cors.build())
            .get("/", |_: &mut Request, response: &mut Response| {
                response.text("read");
            })
            .get("/broken", |_: &mut Request, _: &mut Response| -> Result {
                Err(Error::new(StatusCode::BAD_REQUEST, "no"))
            })
    }

    fn ask(app: &App, method: &str, path: &str, fields: &[(&str, &str)]) -> http::Response<Bytes> {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        app.test(request.body("").unwrap()).unwrap()
    }

    const PREFLIGHT: &str = "access-control-request-method";
    const ALLOWED: &str = "access-control-allow-origin";

    #[test]
    fn a_listed_origin_is_named_and_another_is_not() {
        let app = app(Cors::origins(["https://a.example", "https://b.example"]));
        let answer = ask(&app, "GET", "/", &[("origin", "https://b.example")]);
        assert_eq!(answer.body(), "read");
        assert_eq!(text_of(&answer, ALLOWED), "https://b.example");
        assert_eq!(text_of(&answer, "vary"), "Origin");
        for origin in [
            "https://c.example",
            "https://a.example.evil",
            "null",
            "https://A.example",
        ] {
            let answer = ask(&app, "GET", "/", &[("origin", origin)]);
            assert_eq!(answer.status(), 200);
            assert_eq!(text_of(&answer, ALLOWED), "");
            assert_eq!(text_of(&answer, "vary"), "Origin");
        }
        let answer = ask(&app, "GET", "/", &[]);
        assert_eq!(text_of(&answer, ALLOWED), "");
        assert_eq!(text_of(&answer, "vary"), "Origin");
    }

    #[test]
    fn a_preflight_is_answered_without_the_handler() {
        let cors = Cors::origins(["https://a.example"])
            .methods(["GET", "PUT"])
            .headers(["Content-Type", "X-Token"])
            .max_age(600);
        let app = app(cors);
        let fields = [("origin", "https://a.example"), (PREFLIGHT, "PUT")];
        let answer = ask(&app, "OPTIONS", "/", &fields);
        assert_eq!(answer.status(), 204);
        assert_eq!(text_of(&answer, ALLOWED), "https://a.example");
        assert_eq!(text_of(&answer, "access-control-allow-methods"), "GET, PUT");
        assert_eq!(
            text_of(&answer, "access-control-allow-headers"),
            "Content-Type, X-Token"
        );
        assert_eq!(text_of(&answer, "access-control-max-age"), "600");
        assert_eq!(
            text_of(&answer, "vary"),
            "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
        );
        let fields = [("origin", "https://c.example"), (PREFLIGHT, "PUT")];
        let answer = ask(&app, "OPTIONS", "/", &fields);
        assert_eq!(answer.status(), 204);
        assert_eq!(text_of(&answer, ALLOWED), "");
        assert_eq!(text_of(&answer, "access-control-allow-methods"), "");
        // Not a preflight: whatever the application says.
        assert_eq!(ask(&app, "OPTIONS", "/", &[]).status(), 405);
    }

    #[test]
    fn any_is_a_star_but_never_with_credentials() {
        let fields = [("origin", "https://c.example")];
        let answer = ask(&app(Cors::any().expose(["X-Total"])), "GET", "/", &fields);
        assert_eq!(text_of(&answer, ALLOWED), "*");
        assert_eq!(text_of(&answer, "vary"), "");
        assert_eq!(text_of(&answer, "access-control-expose-headers"), "X-Total");
        let answer = ask(&app(Cors::any().credentials()), "GET", "/", &fields);
        assert_eq!(text_of(&answer, ALLOWED), "https://c.example");
        assert_eq!(text_of(&answer, "access-control-allow-credentials"), "true");
        assert_eq!(text_of(&answer, "vary"), "Origin");
    }

    #[test]
    fn failures_can_be_read_by_scripts_too() {
        let fields = [("origin", "https://c.example")];
        for (path, status) in [("/broken", 400), ("/nowhere", 404)] {
            let answer = ask(&app(Cors::any()), "GET", path, &fields);
            assert_eq!(answer.status(), status);
            assert_eq!(text_of(&answer, ALLOWED), "*");
        }
    }
}
