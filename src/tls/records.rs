//! The outer form of TLS: records, each with its length in front.
//!
//! ```text
//! │ kind: 1 │ version: 2 │ length: 2 │ length bytes │
//! ```

/// Bytes in front of each record.
const HEADER: usize = 5;
/// The most that a record may announce (RFC 5246, section 6.2.3).
const MOST: usize = 16 * 1024 + 2048;

const ALERT: u8 = 0x15;
const HANDSHAKE: u8 = 0x16;

/// The fatal alert `unexpected_message`, in clear text: the reply to what is no TLS.
pub(super) const UNEXPECTED: [u8; 7] = [ALERT, 3, 3, 0, 2, 2, 10];

/// Returns `true` if a stream that begins with these bytes may be TLS.
pub(super) fn may_be_tls(wire: &[u8]) -> bool {
    matches!(wire, [] | [HANDSHAKE | ALERT] | [HANDSHAKE | ALERT, 3, ..])
}

/// Returns how many bytes at the front of `wire` are whole records, `most` of them at most. A record that no one may send
/// counts as whole, so that it is refused at once and not when the rest of it has come.
pub(super) fn whole(wire: &[u8], most: usize) -> usize {
    let mut end = 0;
    while let Some([_, _, _, high, low, ..]) = wire.get(end..) {
        let announced = usize::from(u16::from_be_bytes([*high, *low]));
        let next = if announced > MOST { end + HEADER } else { end + HEADER + announced };
        if next > wire.len() || next > most {
            break;
        }
        end = next;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(len: u16) -> Vec<u8> {
        [&[0x17, 3, 3][..], &len.to_be_bytes(), &vec![7; usize::from(len)]].concat()
    }

    #[test]
    fn only_whole_records_count_and_no_more_than_there_is_room_for() {
        let wire = [record(10), record(0), record(300)].concat();
        for cut in 0..=wire.len() {
            let expected = match cut {
                0..15 => 0,
                15..20 => 15,
                20..325 => 20,
                _ => 325,
            };
            assert_eq!(whole(&wire[..cut], usize::MAX), expected, "{cut}");
        }
        assert_eq!(whole(&wire, 324), 20);
        assert_eq!(whole(&wire, 14), 0);
    }

    #[test]
    fn a_record_that_is_too_long_is_seen_when_its_length_is_there() {
        assert_eq!(whole(&[0x17, 3, 3, 0x48, 1], usize::MAX), 5);
        assert_eq!(whole(&[0x17, 3, 3, 0x48, 0], usize::MAX), 0, "the longest that is allowed");
    }

    #[test]
    fn what_may_be_tls_is_told_by_its_first_bytes() {
        for tls in [&[][..], &[0x16], &[0x16, 3], &[0x16, 3, 1], &[0x15, 3, 3]] {
            assert!(may_be_tls(tls), "{tls:?}");
        }
        for other in [&b"G"[..], b"GET / HTTP/1.1", &[0x80, 0x2e, 1, 0, 2], &[0x16, 9], &[0], &[0x17, 3, 3]] {
            assert!(!may_be_tls(other), "{other:?}");
        }
    }
}
