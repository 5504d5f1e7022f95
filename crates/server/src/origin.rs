//! Whom a request comes from: the peer, or whom the peer names if it is a proxy of ours.
//!
//! Nothing is found out before it is asked for, and nothing of it is stored.

use theframework_http::{Hop, Origin, Scheme, TrustedPeers};
use theframework_io::{Driver, KeptBytes, Peer};

use crate::engine::Engine;
use crate::exchange::{ExchangeId, RequestView};

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

impl<B: KeptBytes> RequestView<'_, B> {
    /// Who has sent the request, if `peer` did or is trusted and says whom it passes it on for: that
    /// address then, mostly without a port. None on a Unix socket where nobody is named, and when the
    /// connection was reset.
    pub fn client(&self, peer: Peer, trusted: &TrustedPeers) -> Option<Hop> {
        self.origin(peer, trusted).client.or(match peer {
            Peer::At(address) => Some(Hop {
                address: address.ip(),
                port: Some(address.port()),
            }),
            Peer::Local | Peer::Gone => None,
        })
    }

    /// The scheme that the client used, as a trusted peer says; else `http`. Asks for the peer if the
    /// request has `X-Forwarded-Proto`.
    pub fn scheme(&self, peer: impl FnOnce() -> Peer, trusted: &TrustedPeers) -> Scheme {
        match self.header(FORWARDED_PROTO) {
            Some(_) => self.origin(peer(), trusted).scheme,
            None => Scheme::default(),
        }
    }

    /// What the request says of its origin, if `peer` is trusted.
    fn origin(&self, peer: Peer, trusted: &TrustedPeers) -> Origin {
        let is_believed = match peer {
            Peer::At(address) => trusted.trusts(address.ip()),
            Peer::Local => true,
            Peer::Gone => false,
        };
        if !is_believed {
            return Origin::default();
        }
        Origin::of(
            self.values(FORWARDED_FOR),
            self.values(FORWARDED_PROTO),
            trusted,
        )
    }
}

impl<B: KeptBytes, D: Driver<B>> Engine<D, B> {
    /// Who has sent the request, in words: as [`RequestView::client`] has it, a peer with its scope.
    /// One system call.
    pub fn client(&self, id: ExchangeId) -> Option<String> {
        let (view, peer) = (self.request(id)?, self.peer(id));
        let named = view.origin(peer, &self.config.forwarded_allow_ips).client;
        named.map(|hop| hop.to_string()).or(match peer {
            Peer::At(address) => Some(address.to_string()),
            Peer::Local | Peer::Gone => None,
        })
    }

    /// The scheme that the client used, as [`RequestView::scheme`] has it. One system call if the
    /// request has `X-Forwarded-Proto`.
    pub fn scheme(&self, id: ExchangeId) -> Scheme {
        self.request(id).map_or(Scheme::default(), |request| {
            request.scheme(|| self.peer(id), &self.config.forwarded_allow_ips)
        })
    }

    fn peer(&self, ExchangeId(key): ExchangeId) -> Peer {
        let connection = self
            .exchanges
            .get(key)
            .and_then(|exchange| self.connections.get(exchange.connection));
        connection.map_or(Peer::Gone, |connection| {
            self.driver.peer(connection.raw_fd())
        })
    }
}
