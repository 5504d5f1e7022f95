//! Tokens: what an event of the driver or of the timer wheel is for.
//!
//! `kind` (4 bits), index (28 bits) and generation (32 bits) of a slab key, or 60 bits of the
//! user's own.

use theframework_memory::Key;

/// What a token stands for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A listener; the index is its position.
    Listener = 1,
    /// The receive of a connection.
    Receive = 2,
    /// The write of a connection.
    Send = 3,
    /// The timer of a connection.
    Connection = 4,
    /// The handler timer of an exchange.
    Handler = 5,
    /// Something of the engine's user.
    User = 6,
    /// The read of a file that is sent.
    File = 7,
}

const USER_MASK: u64 = (1 << 60) - 1;

pub(crate) fn of_key(kind: Kind, key: Key) -> u64 {
    debug_assert!(key.index < 1 << 28);
    (kind as u64) << 60 | u64::from(key.index) << 32 | u64::from(key.generation)
}

pub(crate) fn of_user(value: u64) -> u64 {
    debug_assert!(value <= USER_MASK);
    (Kind::User as u64) << 60 | value
}

pub(crate) fn of_listener(position: usize) -> u64 {
    (Kind::Listener as u64) << 60 | position as u64
}

pub(crate) fn kind(token: u64) -> Option<Kind> {
    Some(match token >> 60 {
        1 => Kind::Listener,
        2 => Kind::Receive,
        3 => Kind::Send,
        4 => Kind::Connection,
        5 => Kind::Handler,
        6 => Kind::User,
        7 => Kind::File,
        _ => return None,
    })
}

pub(crate) fn key(token: u64) -> Key {
    Key {
        index: (token >> 32) as u32 & ((1 << 28) - 1),
        generation: token as u32,
    }
}

pub(crate) fn user(token: u64) -> u64 {
    token & USER_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_back_what_it_was_made_of() {
        let k = Key {
            index: (1 << 28) - 1,
            generation: u32::MAX,
        };
        for kind_in in [Kind::Receive, Kind::Send, Kind::Connection, Kind::Handler] {
            let token = of_key(kind_in, k);
            assert_eq!((kind(token), key(token)), (Some(kind_in), k));
        }
        assert_eq!(user(of_user(USER_MASK)), USER_MASK);
        assert_eq!(kind(of_user(USER_MASK)), Some(Kind::User));
        assert_eq!(user(of_listener(3)), 3);
        assert_eq!(kind(0), None);
    }
}
