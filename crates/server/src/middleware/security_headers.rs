//! Fields that tell browsers to be careful. What a handler has set itself stays.

use std::time::Duration;

use super::set_missing;
use crate::{Next, Request, Response, Result, Scheme};

/// `X-Content-Type-Options`, `Referrer-Policy`, who may frame a page, and, if asked for,
/// `Strict-Transport-Security`. See [`middleware`](crate::middleware).
#[derive(Clone, Debug)]
pub struct SecurityHeaders {
    referrer_policy: String,
    frame_options: &'static str,
    frame_ancestors: String,
    transport: Option<String>,
}

impl SecurityHeaders {
    /// No guessing of types, no paths to other sites in `Referer`, no frames.
    #[must_use]
    pub fn new() -> Self {
        SecurityHeaders {
            referrer_policy: "strict-origin-when-cross-origin".to_owned(),
            frame_options: "DENY",
            frame_ancestors: "frame-ancestors 'none'".to_owned(),
            transport: None,
        }
    }

    /// Another `Referrer-Policy`.
    #[must_use]
    pub fn referrer_policy(mut self, policy: impl Into<String>) -> Self {
        self.referrer_policy = policy.into();
        self
    }

    /// Pages of the same site may frame this one's.
    #[must_use]
    pub fn frames_of_same_origin(mut self) -> Self {
        self.frame_options = "SAMEORIGIN";
        self.frame_ancestors = "frame-ancestors 'self'".to_owned();
        self
    }

    /// Browsers are to use https alone for so long, on subdomains too if `is_for_subdomains`. Said only
    /// where https was used: see [`Request::scheme`]. There is no way back before that time is over.
    #[must_use]
    pub fn strict_transport(mut self, time: Duration, is_for_subdomains: bool) -> Self {
        let more = if is_for_subdomains {
            "; includeSubDomains"
        } else {
            ""
        };
        self.transport = Some(format!("max-age={}{more}", time.as_secs()));
        self
    }

    /// The middleware. It allocates nothing; with [`strict_transport`](Self::strict_transport) it costs what
    /// [`Request::scheme`] does.
    pub fn build(
        self,
    ) -> impl Fn(&mut Request<'_>, &mut Response<'_>, Next<'_>) -> Result + Send + Sync + 'static
    {
        move |request, response, next| {
            next.run(request, response);
            set_missing(response, "X-Content-Type-Options", "nosniff")?;
            set_missing(response, "Referrer-Policy", &self.referrer_policy)?;
            set_missing(response, "X-Frame-Options", self.frame_options)?;
            set_missing(response, "Content-Security-Policy", &self.frame_ancestors)?;
            if let Some(transport) = &self.transport
                && request.scheme() == Scheme::Https
            {
                set_missing(response, "Strict-Transport-Security", transport)?;
            }
            Ok(())
        }
    }
}

impl Default for SecurityHeaders {
    fn default() -> Self {
        SecurityHeaders::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::text_of;
    use super::*;
    use crate::{App, TrustedPeers};

    #[test]
    fn fields_are_set_on_every_answer_unless_the_handler_has() {
        let app = App::new().middleware(SecurityHeaders::new().build()).get(
            "/",
            |_: &mut Request, response: &mut Response| -> Result {
                response.set_header("Content-Security-Policy", "default-src 'self'")?;
                Ok(())
            },
        );
        let answer = app.test(http::Request::get("/").body("").unwrap()).unwrap();
        assert_eq!(
            text_of(&answer, "content-security-policy"),
            "default-src 'self'"
        );
        let answer = app
            .test(http::Request::get("/none").body("").unwrap())
            .unwrap();
        assert_eq!(answer.status(), 404);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "strict-origin-when-cross-origin"),
            ("x-frame-options", "DENY"),
            ("content-security-policy", "frame-ancestors 'none'"),
            ("strict-transport-security", ""),
        ] {
            assert_eq!(text_of(&answer, name), value, "{name}");
        }
    }

    #[test]
    fn strict_transport_is_said_only_where_https_was_used() {
        let headers = SecurityHeaders::new()
            .referrer_policy("no-referrer")
            .frames_of_same_origin()
            .strict_transport(Duration::from_secs(3600), true);
        let config = crate::Config {
            forwarded_allow_ips: TrustedPeers::parse("*").unwrap(),
            ..crate::Config::default()
        };
        let app = App::new().middleware(headers.build()).config(config);
        for (scheme, said) in [("https", "max-age=3600; includeSubDomains"), ("http", "")] {
            let request = http::Request::get("/").header("X-Forwarded-Proto", scheme);
            let answer = app.test(request.body("").unwrap()).unwrap();
            assert_eq!(text_of(&answer, "strict-transport-security"), said);
            assert_eq!(text_of(&answer, "x-frame-options"), "SAMEORIGIN");
            assert_eq!(
                text_of(&answer, "content-security-policy"),
                "frame-ancestors 'self'"
            );
            assert_eq!(text_of(&answer, "referrer-policy"), "no-referrer");
        }
    }
}
