//! Who may come in: a bearer token (RFC 6750), or a name and a password (RFC 7617).
//!
//! Both travel as they are: over TLS, or not at all. Secrets are compared in a time that depends on their lengths
//! alone. There are no sessions here, no hashes of passwords, and no limit on attempts: for those, give a
//! function of your own, and put a [`RateLimit`](super::RateLimit) in front.

use std::hint::black_box;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;

use crate::{Next, Request, Response, Result};

type IsToken = dyn Fn(&str) -> bool + Send + Sync;
type IsUser = dyn Fn(&str, &str) -> bool + Send + Sync;

/// Lets in who has a token: `Authorization: Bearer ...`. Others are told 401. See
/// [`middleware`](crate::middleware).
#[derive(Clone)]
pub struct BearerAuth {
    is_token: Arc<IsToken>,
    realm: String,
}

impl BearerAuth {
    /// One of these tokens.
    #[must_use]
    pub fn tokens(tokens: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let tokens: Vec<String> = tokens.into_iter().map(Into::into).collect();
        BearerAuth::by(move |given| {
            let found = tokens.iter().map(|token| is_same(token, given));
            // All are compared, so that which one it was takes no other time.
            found.fold(false, |any, one| any | one)
        })
    }

    /// A token that `is_token` says yes to. It must not block.
    #[must_use]
    pub fn by(is_token: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        BearerAuth {
            is_token: Arc::new(is_token),
            realm: quoted("api"),
        }
    }

    /// What the tokens are for, as the client is told; `api` otherwise.
    #[must_use]
    pub fn realm(mut self, realm: &str) -> Self {
        self.realm = quoted(realm);
        self
    }

    /// The middleware. Of those who come in, it allocates nothing.
    pub fn build(
        self,
    ) -> impl Fn(&mut Request<'_>, &mut Response<'_>, Next<'_>) -> Result + Send + Sync + 'static
    {
        move |request, response, next| match credentials(request, "Bearer") {
            Some(token) if (self.is_token)(token) => {
                next.run(request, response);
                Ok(())
            }
            given => {
                let error = if given.is_some() {
                    ", error=\"invalid_token\""
                } else {
                    ""
                };
                refuse(response, &format!("Bearer realm={}{error}", self.realm))
            }
        }
    }
}

impl std::fmt::Debug for BearerAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BearerAuth")
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

/// The name of who has come in: in [`Request::extensions`], behind [`BasicAuth`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BasicUser(pub String);

/// Lets in who has a name and its password: `Authorization: Basic ...`. Others are told 401, for which a browser
/// asks its user. See [`middleware`](crate::middleware).
#[derive(Clone)]
pub struct BasicAuth {
    is_user: Arc<IsUser>,
    realm: String,
}

impl BasicAuth {
    /// One of these names, with its password.
    #[must_use]
    pub fn users<N: Into<String>, P: Into<String>>(
        users: impl IntoIterator<Item = (N, P)>,
    ) -> Self {
        let users: Vec<(String, String)> = users
            .into_iter()
            .map(|(name, password)| (name.into(), password.into()))
            .collect();
        BasicAuth::by(move |name, password| {
            let found = users
                .iter()
                .map(|(known, secret)| is_same(known, name) & is_same(secret, password));
            found.fold(false, |any, one| any | one)
        })
    }

    /// A name and a password that `is_user` says yes to. It must not block.
    #[must_use]
    pub fn by(is_user: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> Self {
        BasicAuth {
            is_user: Arc::new(is_user),
            realm: quoted("restricted"),
        }
    }

    /// What the passwords are for, as the client is told; `restricted` otherwise.
    #[must_use]
    pub fn realm(mut self, realm: &str) -> Self {
        self.realm = quoted(realm);
        self
    }

    /// The middleware. It allocates a few times.
    pub fn build(
        self,
    ) -> impl Fn(&mut Request<'_>, &mut Response<'_>, Next<'_>) -> Result + Send + Sync + 'static
    {
        move |request, response, next| {
            let decoded = credentials(request, "Basic")
                .and_then(|given| STANDARD.decode(given).ok())
                .and_then(|bytes| String::from_utf8(bytes).ok());
            match decoded.as_deref().and_then(|text| text.split_once(':')) {
                Some((name, password)) if (self.is_user)(name, password) => {
                    request.extensions_mut().insert(BasicUser(name.to_owned()));
                    next.run(request, response);
                    Ok(())
                }
                _ => refuse(
                    response,
                    &format!("Basic realm={}, charset=\"UTF-8\"", self.realm),
                ),
            }
        }
    }
}

impl std::fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BasicAuth")
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

/// What stands behind the scheme in the only `Authorization` there is.
fn credentials<'a>(request: &Request<'a>, scheme: &str) -> Option<&'a str> {
    let mut values = request.header_values("authorization");
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (given, rest) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    given
        .eq_ignore_ascii_case(scheme)
        .then(|| rest.trim_matches(' '))
}

fn refuse(response: &mut Response<'_>, challenge: &str) -> Result {
    response.set_status(StatusCode::UNAUTHORIZED);
    response.set_header("WWW-Authenticate", challenge)?;
    response.text("401 Unauthorized\n");
    Ok(())
}

/// A quoted string; what cannot stand in a field is left out.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars().filter(|letter| !letter.is_control()) {
        if matches!(letter, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted.push('"');
    quoted
}

/// Whether two secrets are the same, in a time that depends on their lengths alone.
fn is_same(known: &str, given: &str) -> bool {
    let (known, given) = (known.as_bytes(), given.as_bytes());
    let mut difference = u8::from(known.len() != given.len());
    for (a, b) in known.iter().zip(given) {
        // Kept from becoming a loop that ends early.
        difference |= black_box(a ^ b);
    }
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::super::text_of;
    use super::*;
    use crate::{App, Bytes, TestClient};

    fn ask(app: &App, fields: &[&str]) -> http::Response<Bytes> {
        let mut request = b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec();
        for value in fields {
            request.extend_from_slice(format!("Authorization: {value}\r\n").as_bytes());
        }
        request.extend_from_slice(b"\r\n");
        TestClient::new(app).unwrap().send_bytes(&request).unwrap()
    }

    #[test]
    fn one_of_the_tokens_lets_in_and_nothing_else() {
        let auth = BearerAuth::tokens(["s3cret", "other"]).realm("a \"b\"\r\n");
        let app = App::new().middleware(auth.build()).get(
            "/",
            |_: &mut Request, response: &mut Response| {
                response.text("in");
            },
        );
        for good in ["Bearer s3cret", "bearer other"] {
            assert_eq!(ask(&app, &[good]).body(), "in");
        }
        for bad in ["Bearer s3cre", "Bearer s3cret2", "Bearer S3cret", "Bearer "] {
            let answer = ask(&app, &[bad]);
            assert_eq!(answer.status(), 401, "{bad}");
        }
        let answer = ask(&app, &["Bearer no"]);
        let challenge = r#"Bearer realm="a \"b\"", error="invalid_token""#;
        assert_eq!(text_of(&answer, "www-authenticate"), challenge);
        for none in [
            &[][..],
            &["Basic czNjcmV0"],
            &["Bearer s3cret", "Bearer s3cret"],
        ] {
            let answer = ask(&app, none);
            assert_eq!(answer.status(), 401, "{none:?}");
            assert_eq!(
                text_of(&answer, "www-authenticate"),
                r#"Bearer realm="a \"b\"""#
            );
        }
    }

    #[test]
    fn a_name_with_its_own_password_lets_in() {
        let auth = BasicAuth::users([("ann", "a:1"), ("ben", "b")]);
        let app = App::new().middleware(auth.build()).get(
            "/",
            |request: &mut Request, response: &mut Response| {
                response.text(&request.extensions().get::<BasicUser>().unwrap().0);
            },
        );
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(ask(&app, &[&basic("ann:a:1")]).body(), "ann");
        assert_eq!(ask(&app, &[&basic("ben:b")]).body(), "ben");
        for bad in ["ann:b", "ben:a:1", "ann:", ":", "", "ann", "ann:a:1 "] {
            let answer = ask(&app, &[&basic(bad)]);
            assert_eq!(answer.status(), 401, "{bad}");
            let challenge = r#"Basic realm="restricted", charset="UTF-8""#;
            assert_eq!(text_of(&answer, "www-authenticate"), challenge);
        }
        for bad in ["Basic !!!", "Basic /////w==", "Basic"] {
            assert_eq!(ask(&app, &[bad]).status(), 401, "{bad}");
        }
    }

    #[test]
    fn secrets_are_the_same_only_if_all_of_them_is() {
        assert!(is_same("", ""));
        assert!(is_same("abc", "abc"));
        for other in ["", "ab", "abcd", "abd", "bbc"] {
            assert!(!is_same("abc", other), "{other}");
        }
    }
}
