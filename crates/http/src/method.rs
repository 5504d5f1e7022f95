//! Request methods (RFC 9110 §9, RFC 5789).
//!
//! Invariants: methods are case-sensitive; a method that is not one of the registered nine is
//! [`Method::Other`], whose text is in `Head::method_span`. What it does not do: decide which methods a
//! route has.

/// A request method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`, RFC 9110 §9.3.1.
    Get,
    /// `HEAD`, RFC 9110 §9.3.2.
    Head,
    /// `POST`, RFC 9110 §9.3.3.
    Post,
    /// `PUT`, RFC 9110 §9.3.4.
    Put,
    /// `DELETE`, RFC 9110 §9.3.5.
    Delete,
    /// `CONNECT`, RFC 9110 §9.3.6.
    Connect,
    /// `OPTIONS`, RFC 9110 §9.3.7.
    Options,
    /// `TRACE`, RFC 9110 §9.3.8.
    Trace,
    /// `PATCH`, RFC 5789.
    Patch,
    /// Any other token; its text is in the request head.
    Other,
}

impl Method {
    /// The method that `token` names; [`Method::Other`] for all that is not registered here, and also
    /// for text that is not a token: the parser has checked that before.
    #[inline]
    #[must_use]
    pub fn from_bytes(token: &[u8]) -> Self {
        match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// The method's name, or `""` for [`Method::Other`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "",
        }
    }

    /// Whether the response to this method never has a body (RFC 9110 §9.3.2).
    #[must_use]
    pub const fn is_head(self) -> bool {
        matches!(self, Self::Head)
    }

    /// Whether the method is safe (RFC 9110 §9.2.1): GET, HEAD, OPTIONS, TRACE.
    #[must_use]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// Whether the method is idempotent (RFC 9110 §9.2.2): the safe ones, PUT and DELETE.
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_are_case_sensitive() {
        for method in [
            Method::Get,
            Method::Head,
            Method::Post,
            Method::Put,
            Method::Delete,
            Method::Connect,
            Method::Options,
            Method::Trace,
            Method::Patch,
        ] {
            assert_eq!(Method::from_bytes(method.as_str().as_bytes()), method);
            assert_eq!(
                Method::from_bytes(method.as_str().to_lowercase().as_bytes()),
                Method::Other
            );
        }
        assert_eq!(Method::Other.as_str(), "");
        assert!(Method::Head.is_head() && !Method::Get.is_head());
        assert!(
            Method::Put.is_idempotent() && !Method::Put.is_safe() && !Method::Post.is_idempotent()
        );
    }
}
