//! Whom a request comes from: the peer, or whom the peer names if it is a proxy of ours.
//!
//! Nothing is found out before it is asked for, and nothing of it is stored.

use theframework_http::{Origin, Scheme};
use theframework_io::{Driver, KeptBytes, Peer};

use crate::engine::Engine;
use crate::exchange::ExchangeId;

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

impl<B: KeptBytes, D: Driver<B>> Engine<D, B> {
    /// Who has sent the request. The peer as `ip:port`, or if that is trusted and says whom it passes
    /// the request on for: that address, mostly without a port. None on a Unix socket where nobody
    /// is named, and when the connection was reset. One system call.
    pub fn client(&self, id: ExchangeId) -> Option<String> {
        let peer = self.peer(id);
        if let Some(client) = self.origin(id, peer).client {
            return Some(client.to_string());
        }
        match peer {
            Peer::At(address) => Some(address.to_string()),
            Peer::Local | Peer::Gone => None,
        }
    }

    /// The scheme that the client used, as a trusted peer says; else `http`. One system call if the
    /// request has `X-Forwarded-Proto`.
    pub fn scheme(&self, id: ExchangeId) -> Scheme {
        let is_told = self
            .request(id)
            .is_some_and(|request| request.header(FORWARDED_PROTO).is_some());
        if !is_told {
            return Scheme::default();
        }
        self.origin(id, self.peer(id)).scheme
    }

    /// What the request says of its origin, if `peer` is trusted.
    fn origin(&self, id: ExchangeId, peer: Peer) -> Origin {
        let trusted = &self.config.forwarded_allow_ips;
        let is_believed = match peer {
            Peer::At(address) => trusted.trusts(address.ip()),
            Peer::Local => true,
            Peer::Gone => false,
        };
        match self.request(id) {
            Some(request) if is_believed => Origin::of(
                request.values(FORWARDED_FOR),
                request.values(FORWARDED_PROTO),
                trusted,
            ),
            _ => Origin::default(),
        }
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
