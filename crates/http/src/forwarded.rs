//! Whom a request comes from when proxies have passed it on: `X-Forwarded-For`, `X-Forwarded-Proto`.
//!
//! Purpose: [`TrustedPeers`] says which peers are proxies of our own; [`Origin::of`] reads what those
//! have written, and nothing that anybody else has.
//!
//! Each proxy appends the address that it was connected from, so the list is read from its right end: the
//! rightmost element was written by our peer, the one before it by the proxy that the rightmost names,
//! and so on. An element is believed as long as everything to its right names a trusted peer.
//!
//! Invariants: whatever the bytes are, this neither fails nor believes what a client could have written
//! itself. An element that is no address ends the walk: what stands left of it was written by nobody
//! knows whom.
//!
//! What it does not do: `Forwarded` (RFC 7239) is not read. Hardly a proxy writes it unasked, and one that
//! writes `X-Forwarded-For` alone passes on a `Forwarded` that the client made up.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::bytes::trim_ows;

/// Peers whose word on the origin of a request is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedPeers {
    has_everyone: bool,
    networks: Vec<IpNet>,
}

/// A word of a list of trusted peers that is no address, no network and not `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidNetwork(String);

impl fmt::Display for InvalidNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no address, no network as 10.0.0.0/8 (without bits behind the prefix), and not *",
            self.0
        )
    }
}

impl std::error::Error for InvalidNetwork {}

impl TrustedPeers {
    /// Reads a list of addresses, networks (`10.0.0.0/8`, `fd00::/8`) and `*` for everyone, separated
    /// by commas. An empty list trusts nobody.
    ///
    /// # Errors
    ///
    /// The first word that is none of these.
    pub fn parse(list: &str) -> Result<Self, InvalidNetwork> {
        let mut peers = Self::default();
        for word in list.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            if word == "*" {
                peers.has_everyone = true;
            } else {
                let network = network(word).ok_or_else(|| InvalidNetwork(word.to_owned()))?;
                peers.networks.push(network);
            }
        }
        Ok(peers)
    }

    /// Whether the peer at `address` is one of them. An IPv4 address is the same in its IPv6 form
    /// (`::ffff:192.0.2.1`), as a socket for both shows it.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.has_everyone || self.networks.iter().any(|net| net.contains(&address))
    }
}

impl FromIterator<IpAddr> for TrustedPeers {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let addresses = addresses.into_iter();
        Self {
            has_everyone: false,
            networks: addresses.map(|a| IpNet::from(a.to_canonical())).collect(),
        }
    }
}

/// An address or a network. One with bits behind its prefix is a slip of somebody's pen.
fn network(word: &str) -> Option<IpNet> {
    if word.contains('/') {
        let network: IpNet = word.parse().ok()?;
        (network == network.trunc()).then_some(network)
    } else {
        let address: IpAddr = word.parse().ok()?;
        Some(IpNet::from(address.to_canonical()))
    }
}

/// The scheme that a client used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// `http`: also when nobody says otherwise.
    #[default]
    Http,
    /// `https`.
    Https,
}

impl Scheme {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// An address as a proxy wrote it, most often without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The address; of an IPv4 one its IPv4 form.
    pub address: IpAddr,
    /// The port, if it was written.
    pub port: Option<u16>,
}

impl Hop {
    /// Reads `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let bracketed = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let (address, port) = match bracketed.unwrap_or(text).parse::<IpAddr>() {
            Ok(address) if bracketed.is_none() || address.is_ipv6() => (address, None),
            _ => match text.parse::<SocketAddr>().ok()? {
                // A scope says something on the proxy's machine only.
                SocketAddr::V6(address) if address.scope_id() != 0 => return None,
                address => (address.ip(), Some(address.port())),
            },
        };
        Some(Self {
            address: address.to_canonical(),
            port,
        })
    }
}

impl fmt::Display for Hop {
    /// `192.0.2.1`, `2001:db8::1`; with a port `192.0.2.1:80`, `[2001:db8::1]:80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => self.address.fmt(f),
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
        }
    }
}

/// What the proxies on the way, trusted each, say of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The rightmost address that is not trusted itself, or if all are the leftmost; `None` when
    /// the nearest proxy wrote no address.
    pub client: Option<Hop>,
    /// `https` if the proxy that `client` was connected to said so.
    pub scheme: Scheme,
}

impl Origin {
    /// Reads the values of all `X-Forwarded-For` and all `X-Forwarded-Proto` fields of a request,
    /// each in the order received. The peer that sent them is trusted: ask for that first.
    ///
    /// A list of schemes has an element for each proxy, as the addresses have; a proxy that replaces the
    /// field instead leaves fewer, of which the leftmost is then read.
    ///
    /// Cost: linear in the elements that are read; no allocation.
    #[must_use]
    pub fn of<'a>(
        forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
        forwarded_proto: impl DoubleEndedIterator<Item = &'a [u8]>,
        trusted: &TrustedPeers,
    ) -> Self {
        let mut client = None;
        let mut hops = 0;
        for element in from_the_right(forwarded_for) {
            let Some(hop) = Hop::parse(element) else {
                break;
            };
            client = Some(hop);
            hops += 1;
            if !trusted.trusts(hop.address) {
                break;
            }
        }
        let scheme = match from_the_right(forwarded_proto).take(hops.max(1)).last() {
            Some(name) if name.eq_ignore_ascii_case(b"https") => Scheme::Https,
            _ => Scheme::Http,
        };
        Self { client, scheme }
    }
}

/// The elements of a list in several fields, the last one first; empty ones too.
fn from_the_right<'a>(
    values: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> impl Iterator<Item = &'a [u8]> {
    values
        .rev()
        .flat_map(|value| value.rsplit(|&b| b == b','))
        .map(trim_ows)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trusted(list: &str) -> TrustedPeers {
        TrustedPeers::parse(list).unwrap()
    }

    fn client(values: &[&str], list: &str) -> Option<String> {
        let values = values.iter().map(|value| value.as_bytes());
        let origin = Origin::of(values, std::iter::empty(), &trusted(list));
        origin.client.map(|client| client.to_string())
    }

    fn scheme(forwarded_for: &str, protos: &[&str], list: &str) -> Scheme {
        let addresses = (!forwarded_for.is_empty()).then_some(forwarded_for.as_bytes());
        let protos = protos.iter().map(|value| value.as_bytes());
        Origin::of(addresses.into_iter(), protos, &trusted(list)).scheme
    }

    #[test]
    fn lists_of_peers() {
        let peers = trusted("127.0.0.1,::1, 10.0.0.0/8 ,fd00::/8,");
        for address in [
            "127.0.0.1",
            "::1",
            "10.255.0.1",
            "fd12::1",
            "::ffff:10.1.2.3",
        ] {
            assert!(peers.trusts(address.parse().unwrap()), "{address}");
        }
        for address in ["127.0.0.2", "::2", "11.0.0.1", "fe80::1", "::ffff:11.0.0.1"] {
            assert!(!peers.trusts(address.parse().unwrap()), "{address}");
        }
        assert!(!trusted("").trusts("127.0.0.1".parse().unwrap()));
        assert!(trusted("*").trusts("2001:db8::1".parse().unwrap()));
        assert!(trusted("10.0.0.1,*").trusts("192.0.2.1".parse().unwrap()));
        assert!(trusted("::ffff:10.0.0.1").trusts("10.0.0.1".parse().unwrap()));
        assert!(trusted("0.0.0.0/0").trusts("192.0.2.1".parse().unwrap()));
        assert!(!trusted("0.0.0.0/0").trusts("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn words_that_are_no_peers() {
        for word in [
            "localhost",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "/8",
            "10.0.0",
            "010.0.0.1",
            "**",
            "10.0.0.0/255.0.0.0",
            "fe80::1%eth0",
            "1.2.3.4:80",
            "[::1]",
        ] {
            let error = TrustedPeers::parse(&format!("::1,{word}")).unwrap_err();
            assert_eq!(error, InvalidNetwork(word.to_owned()));
            assert!(error.to_string().contains(word));
        }
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted() {
        let own = "127.0.0.1,10.0.0.0/8";
        for (values, expected) in [
            (&["203.0.113.9"][..], "203.0.113.9"),
            // What a client wrote itself stands left of what the proxy appended.
            (&["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
            (&["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
            (&["198.51.100.1,203.0.113.9,10.0.0.2"], "203.0.113.9"),
            (
                &["198.51.100.1", "203.0.113.9\t", " 10.0.0.2,10.0.0.3"],
                "203.0.113.9",
            ),
            // All are trusted: the one that is farthest.
            (&["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
            // Forms.
            (&["203.0.113.9:4711"], "203.0.113.9:4711"),
            (&["2001:DB8::1"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["[2001:db8::1]:443"], "[2001:db8::1]:443"),
            (&["::ffff:203.0.113.9"], "203.0.113.9"),
            (
                &["198.51.100.1, 203.0.113.9, ::ffff:10.0.0.2"],
                "203.0.113.9",
            ),
        ] {
            assert_eq!(client(values, own).as_deref(), Some(expected), "{values:?}");
        }
        assert_eq!(
            client(&["192.0.2.1, 192.0.2.2"], "*").as_deref(),
            Some("192.0.2.1")
        );
        assert_eq!(
            client(&["192.0.2.1, 127.0.0.1"], "").as_deref(),
            Some("127.0.0.1")
        );
    }

    #[test]
    fn what_is_no_address_ends_the_walk() {
        for word in [
            "",
            "unknown",
            "_hidden",
            "203.0.113",
            "203.0.113.9.1",
            "203.0.113.256",
            "0203.0.113.9",
            "203.0.113.9:",
            "203.0.113.9:65536",
            "203.0.113.9:x",
            "[203.0.113.9]",
            "[2001:db8::1",
            "2001:db8::1]",
            "[]",
            "fe80::1%1",
            "[fe80::1%1]:80",
            "\"203.0.113.9\"",
            "203.0.113.9 x",
            "\u{661}.2.3.4",
            "1.2.3.4\u{0}",
        ] {
            assert_eq!(client(&[word], "127.0.0.1"), None, "{word:?}");
            // The proxy that wrote it is the last one known.
            let list = format!("192.0.2.66, {word}, 127.0.0.1");
            assert_eq!(
                client(&[&list], "127.0.0.1").as_deref(),
                Some("127.0.0.1"),
                "{word:?}"
            );
        }
        let values = [&b"1.2.3.\xff"[..]];
        let origin = Origin::of(values.into_iter(), std::iter::empty(), &trusted("*"));
        assert_eq!(origin, Origin::default());
    }

    #[test]
    fn the_scheme_is_that_of_the_same_hop() {
        let own = "10.0.0.0/8";
        for (addresses, protos, expected) in [
            ("203.0.113.9", &["https"][..], Scheme::Https),
            ("203.0.113.9", &["HTTPS"], Scheme::Https),
            ("203.0.113.9", &["http"], Scheme::Http),
            ("203.0.113.9", &[], Scheme::Http),
            ("", &["https"], Scheme::Https),
            // The client's own word stands left of the proxy's.
            ("203.0.113.9", &["https, http"], Scheme::Http),
            ("203.0.113.9", &["https", "http"], Scheme::Http),
            ("", &["https, http"], Scheme::Http),
            ("192.0.2.1, 203.0.113.9", &["http, https"], Scheme::Https),
            // Two proxies that append.
            ("203.0.113.9, 10.0.0.2", &["https, http"], Scheme::Https),
            ("203.0.113.9, 10.0.0.2", &["http, https"], Scheme::Http),
            (
                "192.0.2.1, 203.0.113.9, 10.0.0.2",
                &["http, https, http"],
                Scheme::Https,
            ),
            // Two proxies, of which the nearer one replaces the field or passes it on.
            ("203.0.113.9, 10.0.0.2", &["https"], Scheme::Https),
            // What is no scheme is none.
            ("203.0.113.9", &["ftp"], Scheme::Http),
            ("203.0.113.9", &["httpss"], Scheme::Http),
            ("203.0.113.9", &["\"https\""], Scheme::Http),
            ("203.0.113.9", &["https,"], Scheme::Http),
        ] {
            assert_eq!(
                scheme(addresses, protos, own),
                expected,
                "{addresses} {protos:?}"
            );
        }
    }

    proptest! {
        /// A client may write what it likes: the proxy appends the client's own address and scheme, and
        /// those are what is read.
        #[test]
        fn what_a_client_writes_does_not_count(
            addresses in proptest::collection::vec(any::<Vec<u8>>(), 0..4),
            protos in proptest::collection::vec("(https|http|,| |[a-z]){0,6}", 0..4),
            is_joined in any::<bool>(),
        ) {
            let mut addresses = addresses;
            let mut protos: Vec<Vec<u8>> = protos.into_iter().map(String::into_bytes).collect();
            for (list, own) in [(&mut addresses, "203.0.113.9"), (&mut protos, "https")] {
                match list.last_mut() {
                    Some(last) if is_joined => last.extend(format!(", {own}").bytes()),
                    _ => list.push(own.as_bytes().to_vec()),
                }
            }
            let origin = Origin::of(
                addresses.iter().map(Vec::as_slice),
                protos.iter().map(Vec::as_slice),
                &trusted("127.0.0.1,10.0.0.0/8"),
            );
            let client = Hop { address: IpAddr::from([203, 0, 113, 9]), port: None };
            prop_assert_eq!(origin, Origin { client: Some(client), scheme: Scheme::Https });
        }
    }
}
