//! Routes: a radix trie of patterns, and the methods of each.
//!
//! Patterns are `{param}` for one segment and `{*rest}` for the remainder. An endpoint is a number
//! that the caller chooses (an index into its handlers). A path is matched as it was received, with
//! percent-encoding undone except for `%2F` and `%25`: an encoded slash does not split a segment.

use std::fmt;

use theframework_http::Method;

/// Why a route could not be added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteError {
    /// The pattern is malformed, or clashes with another one.
    Pattern(String),
    /// The pattern has a handler for this method.
    DuplicateMethod(String),
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteError::Pattern(why) => f.write_str(why),
            RouteError::DuplicateMethod(method) => {
                write!(f, "there is a handler for {method} on this path already")
            }
        }
    }
}

impl std::error::Error for RouteError {}

/// Parameters that a pattern may have.
pub(crate) const PARAMS_MAX: usize = 16;

/// What stands behind one pattern.
#[derive(Clone, Debug)]
struct Path {
    pattern: String,
    params: Vec<String>,
    methods: Vec<(String, u32)>,
}

/// What a path and method lead to. Cheap to copy; names are asked of the router.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    Endpoint {
        path: u32,
        endpoint: u32,
    },
    MethodNotAllowed {
        path: u32,
    },
    Nothing,
    /// The server as a whole: `OPTIONS *`.
    Server,
}

/// The route table of an application.
#[derive(Clone, Debug, Default)]
pub struct Router {
    trie: matchit::Router<u32>,
    paths: Vec<Path>,
    /// By endpoint, as far as any streams: the limit of its bodies.
    streams: Vec<Option<StreamLimit>>,
}

/// How long a body may be that a handler takes while it arrives.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum StreamLimit {
    /// As the configuration says.
    Default,
    /// So many bytes; 0: no limit.
    Bytes(u64),
}

impl Router {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an endpoint for a pattern and a method.
    ///
    /// # Errors
    /// [`RouteError`] when the pattern is malformed, clashes, or has this method already.
    pub fn add(&mut self, pattern: &str, method: &str, endpoint: u32) -> Result<(), RouteError> {
        if !pattern.starts_with('/') {
            return Err(RouteError::Pattern(format!(
                "the path {pattern:?} does not start with a slash"
            )));
        }
        if method.is_empty()
            || !method
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
        {
            return Err(RouteError::Pattern(format!("{method:?} is not a method")));
        }
        // Its target is a host and a port: it could never match.
        if method == "CONNECT" {
            return Err(RouteError::Pattern("CONNECT has no path".to_owned()));
        }
        let index = match self.paths.iter().position(|path| path.pattern == pattern) {
            Some(index) => index,
            None => {
                let index = self.paths.len();
                let params = param_names(pattern);
                if params.len() > PARAMS_MAX {
                    return Err(RouteError::Pattern(format!(
                        "the path {pattern:?} has more than {PARAMS_MAX} parameters"
                    )));
                }
                self.trie.insert(pattern, index as u32).map_err(|error| {
                    RouteError::Pattern(format!("the path {pattern:?}: {error}"))
                })?;
                self.paths.push(Path {
                    pattern: pattern.to_owned(),
                    params,
                    methods: Vec::new(),
                });
                index
            }
        };
        let methods = &mut self.paths[index].methods;
        if methods.iter().any(|(known, _)| known == method) {
            return Err(RouteError::DuplicateMethod(method.to_owned()));
        }
        methods.push((method.to_owned(), endpoint));
        Ok(())
    }

    /// Handlers of this endpoint take request bodies while they arrive.
    pub fn stream(&mut self, endpoint: u32, limit: StreamLimit) {
        let index = endpoint as usize;
        if self.streams.len() <= index {
            self.streams.resize(index + 1, None);
        }
        self.streams[index] = Some(limit);
    }

    /// The limit of bodies that the handler takes while they arrive; none if it does not.
    pub(crate) fn stream_limit(&self, found: Found) -> Option<StreamLimit> {
        match found {
            Found::Endpoint { endpoint, .. } => *self.streams.get(endpoint as usize)?,
            _ => None,
        }
    }

    /// Looks a path up; `param` is called with each parameter's value in the order of the pattern.
    pub(crate) fn find<'p>(
        &self,
        path: &'p str,
        method: Method,
        name: &[u8],
        param: impl FnMut(&'p str),
    ) -> Found {
        let Ok(matched) = self.trie.at(path) else {
            return Found::Nothing;
        };
        let index = *matched.value;
        let methods = &self.paths[index as usize].methods;
        let position = |wanted: &[u8]| {
            methods
                .iter()
                .position(|(known, _)| known.as_bytes() == wanted)
        };
        let position =
            position(name).or_else(|| (method == Method::Head).then(|| position(b"GET")).flatten());
        match position {
            Some(position) => {
                matched
                    .params
                    .iter()
                    .map(|(_, value)| value)
                    .for_each(param);
                Found::Endpoint {
                    path: index,
                    endpoint: methods[position].1,
                }
            }
            None => Found::MethodNotAllowed { path: index },
        }
    }

    /// Names of a path's parameters, in order.
    pub(crate) fn params(&self, path: u32) -> &[String] {
        &self.paths[path as usize].params
    }

    /// Whether there is anything that could answer this method: it is one of those that every server
    /// knows, or some path has it (RFC 9110 §9.1: else 501, whatever the path).
    pub(crate) fn implements(&self, method: Method, name: &[u8]) -> bool {
        match method {
            Method::Connect => false,
            Method::Other | Method::Trace => self
                .paths
                .iter()
                .flat_map(|path| &path.methods)
                .any(|(known, _)| known.as_bytes() == name),
            _ => true,
        }
    }

    /// The `Allow` field of a path: its methods, and HEAD where there is GET.
    pub(crate) fn allow(&self, path: u32) -> String {
        allow_of(&self.paths[path as usize..=path as usize], &[])
    }

    /// The `Allow` field of the server as a whole: what some path allows, and OPTIONS.
    pub(crate) fn allow_of_server(&self) -> String {
        allow_of(&self.paths, &["OPTIONS"])
    }
}

fn allow_of(paths: &[Path], more: &[&str]) -> String {
    let names = paths.iter().flat_map(|path| &path.methods);
    let mut names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
    names.extend(more);
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

fn param_names(pattern: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        if rest[open..].starts_with("{{") {
            rest = &rest[open + 2..];
            continue;
        }
        let Some(close) = rest[open..].find('}') else {
            break;
        };
        names.push(
            rest[open + 1..open + close]
                .trim_start_matches('*')
                .to_owned(),
        );
        rest = &rest[open + close + 1..];
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(router: &Router, method: &str, path: &str) -> (Found, Vec<String>) {
        let mut params = Vec::new();
        let found = router.find(
            path,
            Method::from_bytes(method.as_bytes()),
            method.as_bytes(),
            |v| params.push(v.to_owned()),
        );
        (found, params)
    }

    #[test]
    fn static_segments_win_over_parameters_and_those_over_the_rest() {
        let mut router = Router::new();
        router.add("/users/{id}", "GET", 1).unwrap();
        router.add("/users/me", "GET", 2).unwrap();
        router.add("/users/{id}/posts/{post}", "GET", 3).unwrap();
        router.add("/static/{*rest}", "GET", 4).unwrap();
        let endpoint = |method: &str, path: &str| match find(&router, method, path) {
            (Found::Endpoint { endpoint, .. }, params) => (endpoint, params.join(",")),
            other => panic!("{other:?}"),
        };
        assert_eq!(endpoint("GET", "/users/7"), (1, "7".into()));
        assert_eq!(endpoint("GET", "/users/me"), (2, String::new()));
        assert_eq!(endpoint("HEAD", "/users/7/posts/x"), (3, "7,x".into()));
        assert_eq!(endpoint("GET", "/static/a/b.css"), (4, "a/b.css".into()));
        assert_eq!(find(&router, "GET", "/nothing").0, Found::Nothing);
        assert_eq!(router.params(2), ["id", "post"]);
        assert_eq!(router.params(3), ["rest"]);
    }

    #[test]
    fn a_known_path_names_its_methods() {
        let mut router = Router::new();
        router.add("/a", "POST", 1).unwrap();
        router.add("/a", "GET", 2).unwrap();
        let (found, _) = find(&router, "DELETE", "/a");
        assert_eq!(found, Found::MethodNotAllowed { path: 0 });
        assert_eq!(router.allow(0), "GET, HEAD, POST");
        assert!(matches!(
            router.add("/a", "GET", 3),
            Err(RouteError::DuplicateMethod(_))
        ));
        assert!(matches!(
            router.add("b", "GET", 3),
            Err(RouteError::Pattern(_))
        ));
        assert!(matches!(
            router.add("/{a}{b}", "GET", 3),
            Err(RouteError::Pattern(_))
        ));
        assert!(matches!(
            router.add("/x", "GE T", 3),
            Err(RouteError::Pattern(_))
        ));
        assert!(matches!(
            router.add("/x", "CONNECT", 3),
            Err(RouteError::Pattern(_))
        ));
    }

    #[test]
    fn what_is_implemented_is_well_known_or_has_a_route() {
        let mut router = Router::new();
        let implements = |router: &Router, name: &str| {
            router.implements(Method::from_bytes(name.as_bytes()), name.as_bytes())
        };
        for (name, is_known) in [
            ("GET", true),
            ("PATCH", true),
            ("TRACE", false),
            ("CONNECT", false),
            ("BREW", false),
            ("get", false),
        ] {
            assert_eq!(implements(&router, name), is_known, "{name}");
        }
        assert_eq!(router.allow_of_server(), "OPTIONS");
        router.add("/pot", "BREW", 1).unwrap();
        router.add("/pot", "GET", 2).unwrap();
        router.add("/other", "GET", 3).unwrap();
        router.add("/other", "HEAD", 4).unwrap();
        assert!(implements(&router, "BREW") && !implements(&router, "brew"));
        assert_eq!(router.allow_of_server(), "BREW, GET, HEAD, OPTIONS");
        assert_eq!(router.allow(1), "GET, HEAD");
    }
}
