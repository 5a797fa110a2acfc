//! What a poll token means: a session of some service, a dial of some service, a listener of some service, or the waker.
//!
//! ```text
//! session   │ generation: 32 │ service: 8 │ slot: 24 │      service ≤ 254
//! dial      │ all ones: 40     │ 0 │ service: 8 │ number: 15 │
//! listener  │ all ones: 46            │ service: 8 │ number: 10 │
//! waker     │ all ones: 64                                      │
//! ```

use crate::{id::Key, limits::MOST_DIALS, slots::MAX_SLOTS};

/// The most services that one event loop may have.
pub(crate) const MAX_SERVICES: usize = 254;
/// The most listeners that one service may have.
pub(crate) const MAX_LISTENERS: usize = 1 << LISTENER_BITS;

const SLOT_BITS: u32 = MAX_SLOTS.trailing_zeros();
const LISTENER_BITS: u32 = 10;
const DIAL_BITS: u32 = MOST_DIALS.trailing_zeros();
/// Tokens from here on are not sessions: no service has the number 255.
pub(crate) const FIRST_DIAL: u64 = u64::MAX - (MAX_SLOTS as u64 - 1);
/// Tokens from here on are listeners, and the waker.
const FIRST_LISTENER: u64 = u64::MAX - ((1 << (LISTENER_BITS + 8)) - 1);
pub(crate) const WAKER: u64 = u64::MAX;

/// The token of a session of this service.
#[inline]
pub(crate) fn session_token(service: u8, key: Key) -> u64 {
    debug_assert!((key.slot as usize) < MAX_SLOTS, "slot {} does not fit into a token", key.slot);
    u64::from(key.generation) << 32 | u64::from(service) << SLOT_BITS | u64::from(key.slot)
}

/// The session of a token, among those of its service.
#[inline]
pub(crate) fn session_of(token: u64) -> Key {
    Key { slot: token as u32 & (MAX_SLOTS as u32 - 1), generation: (token >> 32) as u32 }
}

/// The token of a dial of this service, by its number there. It has no generation: an event of an earlier dial with the
/// same number is told from its own by looking at the socket.
pub(crate) fn dial_token(service: u8, number: u32) -> u64 {
    debug_assert!((number as usize) < MOST_DIALS, "dial {number} does not fit into a token");
    FIRST_DIAL + (u64::from(service) << DIAL_BITS) + u64::from(number) % MOST_DIALS as u64
}

/// The number of the dial of a token, if it is one.
pub(crate) fn dial_of(token: u64) -> Option<u32> {
    (FIRST_DIAL..FIRST_LISTENER).contains(&token).then(|| token as u32 & (MOST_DIALS as u32 - 1))
}

/// Returns `true` for the token of a session.
#[cfg(test)]
pub(crate) fn is_session(token: u64) -> bool {
    token < FIRST_DIAL
}

/// The token of a listener of this service, by its number there.
pub(crate) fn listener_token(service: u8, number: usize) -> u64 {
    FIRST_LISTENER + (u64::from(service) << LISTENER_BITS) + (number % MAX_LISTENERS) as u64
}

/// The number of the listener of a token, if it is one.
pub(crate) fn listener_of(token: u64) -> Option<usize> {
    let number = token.checked_sub(FIRST_LISTENER).filter(|_| token != WAKER)?;
    Some(number as usize % MAX_LISTENERS)
}

/// The service that an event is for; `None` for the waker.
#[inline]
pub(crate) fn service_of(token: u64) -> Option<usize> {
    if token < FIRST_DIAL {
        return Some((token >> SLOT_BITS) as usize & 0xff);
    }
    if token < FIRST_LISTENER {
        return Some(((token - FIRST_DIAL) >> DIAL_BITS) as usize);
    }
    (token != WAKER).then(|| ((token - FIRST_LISTENER) >> LISTENER_BITS) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_tell_what_they_are_for() {
        let slots = [0, 1, MAX_SLOTS as u32 - 1];
        for service in [0, 1, MAX_SERVICES as u8 - 1] {
            for (slot, generation) in slots.into_iter().flat_map(|slot| [(slot, 0), (slot, u32::MAX)]) {
                let key = Key { slot, generation };
                let token = session_token(service, key);
                assert_eq!((session_of(token), service_of(token)), (key, Some(service.into())));
                assert_eq!((listener_of(token), dial_of(token)), (None, None));
            }
            for number in [0, 1, MOST_DIALS as u32 - 1] {
                let token = dial_token(service, number);
                assert!((FIRST_DIAL..FIRST_LISTENER).contains(&token));
                assert_eq!((dial_of(token), service_of(token)), (Some(number), Some(service.into())));
                assert_eq!(listener_of(token), None);
            }
            for number in [0, 1, MAX_LISTENERS - 1] {
                let token = listener_token(service, number);
                assert!((FIRST_LISTENER..WAKER).contains(&token));
                assert_eq!((listener_of(token), service_of(token)), (Some(number), Some(service.into())));
                assert_eq!(dial_of(token), None);
            }
        }
        assert_eq!((listener_of(WAKER), dial_of(WAKER), service_of(WAKER)), (None, None, None));
    }
}
