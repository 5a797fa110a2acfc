use std::any::type_name;

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};

use super::unwritable;
use crate::{
    decode::{Decode, DecodeError},
    encode::Encode,
    framing::EncodeError,
};

/// A value as JSON (RFC 8259), by serde and serde_json. With the feature `json`.
///
/// ```
/// use framewire::{Decode, Json, packet_fn};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize)]
/// struct Order<'p> { item: &'p str, count: u32 }
///
/// #[derive(Serialize)]
/// struct Receipt { total: u64 }
///
/// let handler = packet_fn(|session, packet| {
///     let Json(order) = Json::<Order>::decode(packet)?;
///     Ok(session.send(Json(&Receipt { total: u64::from(order.count) * 3 }))?)
/// });
///
/// let error = Json::<Order>::decode(br#"{"item": "tea"}"#).map(|_| ()).unwrap_err();
/// assert!(error.to_string().ends_with("missing field `count` at line 1 column 15"));
/// ```
///
/// It is written without blanks and line breaks, so that it can also be sent in lines. A packet is one value; blanks
/// around it are allowed, other bytes behind it are not.
///
/// # What a hostile packet can cost
/// - **Stack:** arrays and objects are read up to a depth of 127, which is serde_json's own limit. What the type does not
///   know is skipped at any depth, without a stack.
/// - **Memory:** JSON announces no lengths, so memory follows the bytes that came, by a factor that depends on the type:
///   a `Vec<u64>` takes 4 times, a `serde_json::Value` some 16 times the bytes of a list of zeros, `[0,0,0]`, and more
///   while lists grow.
/// - **Texts of errors**, which quote the packet, are cut at 200 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Json<T>(pub T);

const FORMAT: &str = "JSON";

impl<T: Serialize> Encode for Json<T> {
    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        serde_json::to_writer(out.writer(), &self.0).map_err(|error| unwritable::<T>(FORMAT, error))
    }
}

impl<'p, T: Deserialize<'p>> Decode<'p> for Json<T> {
    fn decode(packet: &'p [u8]) -> Result<Self, DecodeError> {
        serde_json::from_slice(packet)
            .map(Self)
            .map_err(|error| DecodeError::format(FORMAT, type_name::<T>(), error))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::{collection::vec, prelude::*};
    use serde::de::IgnoredAny;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Order<'p> {
        item: &'p str,
        count: u32,
    }

    #[test]
    fn a_value_goes_there_and_back_and_may_borrow_from_the_packet() {
        let packet = Json(&Order { item: "tea", count: 2 }).to_bytes().unwrap();
        assert_eq!(packet, r#"{"item":"tea","count":2}"#);
        let Json(order) = Json::<Order<'_>>::decode(&packet).unwrap();
        assert_eq!(order, Order { item: "tea", count: 2 });
        assert!(packet.as_ptr_range().contains(&order.item.as_ptr()));
    }

    #[test]
    fn a_packet_that_is_no_such_value_says_what_and_where() {
        let refused = |packet: &[u8]| Json::<Order<'_>>::decode(packet).unwrap_err().to_string();
        let order = type_name::<Order<'_>>();
        for (packet, why) in [
            (&br#"{"item":"tea"}"#[..], "missing field `count` at line 1 column 14"),
            (b"{\n\"item\":7", "invalid type: integer `7`, expected a borrowed string at line 2 column 8"),
            (
                br#"{"item":"tea","count":-1}"#,
                "invalid value: integer `-1`, expected u32 at line 1 column 24",
            ),
            (br#"{"item":"tea","count":1} {}"#, "trailing characters at line 1 column 26"),
            (b"", "EOF while parsing a value at line 1 column 0"),
            (b"\xff", "expected value at line 1 column 1"),
        ] {
            assert_eq!(refused(packet), format!("packet is no {order} in JSON: {why}"));
        }
    }

    #[test]
    fn a_value_that_json_cannot_express_is_not_sent() {
        let error = Json(HashMap::from([((1, 2), 3)])).to_bytes().unwrap_err();
        assert!(error.to_string().ends_with("cannot be written as JSON: key must be a string"), "{error}");
    }

    #[test]
    fn a_deep_packet_is_refused_before_the_stack_is_used_up() {
        #[derive(Debug, Deserialize)]
        struct Nested(#[expect(dead_code, reason = "only its depth matters")] Vec<Nested>);
        for depth in [128, 1_000_000] {
            let deep = "[".repeat(depth);
            for error in [
                Json::<Nested>::decode(deep.as_bytes()).map(|_| ()).unwrap_err(),
                Json::<serde_json::Value>::decode(deep.as_bytes()).map(|_| ()).unwrap_err(),
            ] {
                assert!(
                    error.to_string().ends_with("recursion limit exceeded at line 1 column 128"),
                    "{error}"
                );
            }
        }
        let whole = |depth| ["[".repeat(depth), "]".repeat(depth)].concat();
        assert!(Json::<Nested>::decode(whole(127).as_bytes()).is_ok());
        assert!(Json::<IgnoredAny>::decode(whole(1_000_000).as_bytes()).is_ok(), "skipped without a stack");
    }

    #[test]
    fn memory_follows_the_bytes_that_came() {
        let zeros = format!("[{}0]", "0,".repeat(50_000));
        let Json(list) = Json::<Vec<u64>>::decode(zeros.as_bytes()).unwrap();
        // Twice, as a list doubles when it is full.
        assert!(list.capacity() * size_of::<u64>() <= 2 * 4 * zeros.len(), "{}", list.capacity());
        let Json(value) = Json::<serde_json::Value>::decode(zeros.as_bytes()).unwrap();
        let held = value.as_array().unwrap().capacity() * size_of::<serde_json::Value>();
        assert!(held <= 2 * 16 * zeros.len(), "{held}");
    }

    #[test]
    fn an_error_does_not_quote_all_of_the_packet() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Empty {}
        let hostile = format!(r#"{{"{}":1}}"#, "\\n".repeat(100_000));
        let error = Json::<Empty>::decode(hostile.as_bytes()).unwrap_err().to_string();
        assert!(error.len() < 400 && error.contains("unknown field `"), "{error}");
    }

    proptest! {
        #[test]
        fn any_texts_and_numbers_go_there_and_back(values in vec(any::<(String, i64, Option<bool>)>(), 0..5)) {
            let packet = Json(&values).to_bytes().unwrap();
            prop_assert!(!packet.contains(&b'\n'), "it can be sent as a line");
            prop_assert_eq!(Json::decode(&packet), Ok(Json(values)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(packet: Vec<u8>) {
            let _ = Json::<serde_json::Value>::decode(&packet);
            let _ = Json::<Order<'_>>::decode(&packet);
        }
    }
}
