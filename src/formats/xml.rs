use std::any::type_name;

use bytes::BytesMut;
use quick_xml::{DeError, de};
use serde::{
    Deserialize, Serialize,
    de::{IgnoredAny, SeqAccess},
};

use super::{guard::Guard, unwritable};
use crate::{
    decode::{Decode, DecodeError},
    encode::Encode,
    framing::EncodeError,
};

/// A value as XML, by serde and quick-xml. With the feature `xml`.
///
/// ```
/// use framewire::{Decode, Encode, Xml, packet_fn};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Order { #[serde(rename = "@id")] id: u32, item: String }
///
/// let handler = packet_fn(|session, packet| {
///     let Xml(order) = Xml::<Order>::decode(packet)?;
///     Ok(session.send(Xml(&Order { id: order.id, item: "none left".into() }))?)
/// });
///
/// let tea = Xml(Order { id: 7, item: "tea".into() }).to_bytes()?;
/// assert_eq!(tea, r#"<Order id="7"><item>tea</item></Order>"#);
/// # Ok::<(), framewire::EncodeError>(())
/// ```
///
/// How types and elements correspond is described in [`quick_xml::de`]: a field is an element, `@name` an attribute,
/// `$text` the text. It is written without a declaration, blanks and line breaks. A packet is one element in UTF-8;
/// declarations, comments and blanks around it are skipped. The name of the outermost element is not compared.
///
/// # What a hostile packet can cost
/// - **Entities:** only the five that XML predefines and character references are replaced; a DTD is skipped, not read,
///   and an entity that it declares is an error. Nothing is fetched, and nothing expands ("billion laughs").
/// - **Stack:** values are read up to a depth of 128: each element, list, option, newtype and variant is one deeper than
///   what it is in. Elements that the type does not know are skipped at any depth, without a stack.
/// - **Memory** follows the bytes that came: XML announces no lengths.
/// - **Texts of errors**, which quote the packet, are cut at 200 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Xml<T>(pub T);

const FORMAT: &str = "XML";

impl<T: Serialize> Encode for Xml<T> {
    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        quick_xml::se::to_writer(out, &self.0).map_err(|error| unwritable::<T>(FORMAT, error))?;
        Ok(())
    }
}

impl<'p, T: Deserialize<'p>> Decode<'p> for Xml<T> {
    fn decode(packet: &'p [u8]) -> Result<Self, DecodeError> {
        let (text, guard) = (<&str>::decode(packet)?, Guard::new(packet));
        let mut deserializer = de::Deserializer::from_str(text);
        let value = guard.read(&mut deserializer).and_then(|value| {
            let rest = (&mut deserializer).next_element::<IgnoredAny>()?;
            if rest.is_none() { Ok(value) } else { Err(DeError::Custom("more than one element".into())) }
        });
        value.map(Self).map_err(|error| {
            // The reader is ahead of the error by what it has looked at.
            let at = deserializer.get_ref().get_ref().buffer_position();
            let why = guard.refusal().map_or_else(|| error.to_string(), str::to_owned);
            DecodeError::format(FORMAT, type_name::<T>(), format_args!("{why}, before byte {at}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Order {
        #[serde(rename = "@id")]
        id: u32,
        item: Vec<String>,
        note: Option<String>,
    }

    fn refused<'p, T: Deserialize<'p>>(packet: &'p str) -> String {
        Xml::<T>::decode(packet.as_bytes()).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_value_goes_there_and_back() {
        let order = Order { id: 7, item: vec!["tea".into(), "<&>".into()], note: None };
        let packet = Xml(&order).to_bytes().unwrap();
        assert_eq!(packet, r#"<Order id="7"><item>tea</item><item>&lt;&amp;&gt;</item><note/></Order>"#);
        let read = Xml::<Order>::decode(&packet).unwrap();
        assert_eq!(read, Xml(Order { note: Some(String::new()), ..order }));
    }

    #[test]
    fn a_declaration_comments_and_blanks_around_the_element_are_skipped() {
        let packet =
            "<?xml version=\"1.0\"?>\n<!-- x -->\n<Order id='7'>\n <item>tea</item>\n</Order>\n<!-- y -->\n";
        let Xml(order) = Xml::<Order>::decode(packet.as_bytes()).unwrap();
        assert_eq!(order, Order { id: 7, item: vec!["tea".into()], note: None });
    }

    #[test]
    fn a_packet_that_is_no_such_value_says_what_and_where() {
        let order = type_name::<Order>();
        for (packet, why) in [
            ("<Order><item>tea</item></Order>", "missing field `@id`, before byte 31"),
            ("<Order id='-1'><item/></Order>", "invalid type: string \"-1\", expected u32, before byte 22"),
            ("<Order id='7'><item>tea</Order>", "ill-formed document: "),
            ("<Order id='7'><item>tea", "ill-formed document: "),
            (
                "<Order id='7'><item/></Order><Order id='7'><item/></Order>",
                "more than one element, before byte ",
            ),
            ("", "unexpected `Event::Eof`"),
        ] {
            let told = refused::<Order>(packet);
            assert!(told.starts_with(&format!("packet is no {order} in XML: {why}")), "{packet}: {told}");
        }
        let error = Xml::<Order>::decode(b"<Order id='\xff'/>").unwrap_err();
        assert_eq!(error.to_string(), "packet of 15 bytes is not UTF-8 at byte 11");
    }

    #[test]
    fn a_value_that_xml_cannot_express_is_not_sent() {
        let error = Xml(std::collections::BTreeMap::from([("no name", 1)])).to_bytes().unwrap_err();
        assert!(error.to_string().contains(" cannot be written as XML: "), "{error}");
    }

    #[test]
    fn entities_of_a_packet_are_not_expanded() {
        let mut laughs = String::from("<!DOCTYPE lolz [<!ENTITY lol0 \"lol\">");
        for level in 1..10 {
            let before = format!("&lol{};", level - 1).repeat(10);
            laughs += &format!("<!ENTITY lol{level} \"{before}\">");
        }
        laughs += "]><Order id='7'><item>&lol9;</item></Order>";
        assert!(refused::<Order>(&laughs).contains("lol9"), "{}", refused::<Order>(&laughs));
        let file =
            "<!DOCTYPE x [<!ENTITY f SYSTEM 'file:///etc/passwd'>]><Order id='7'><item>&f;</item></Order>";
        assert!(Xml::<Order>::decode(file.as_bytes()).is_err());
        let predefined = "<Order id='7'><item>&lt;&#65;&quot;</item></Order>";
        let Xml(order) = Xml::<Order>::decode(predefined.as_bytes()).unwrap();
        assert_eq!(order.item, ["<A\""]);
    }

    #[test]
    fn a_deep_packet_is_refused_before_the_stack_is_used_up() {
        #[derive(Debug, Deserialize)]
        struct Nested {
            #[expect(dead_code, reason = "only its depth matters")]
            a: Option<Box<Nested>>,
        }
        let deep = |depth: usize| ["<a>".repeat(depth), "</a>".repeat(depth)].concat();
        for depth in [200, 100_000] {
            let told = refused::<Nested>(&deep(depth));
            assert!(told.contains("nested deeper than 128, before byte "), "{told}");
        }
        assert!(Xml::<Nested>::decode(deep(50).as_bytes()).is_ok());
    }

    #[test]
    fn unknown_elements_are_skipped_at_any_depth() {
        let unknown = ["<b>".repeat(100_000), "</b>".repeat(100_000)].concat();
        let packet = format!("<Order id='7'>{unknown}<item>tea</item></Order>");
        assert_eq!(Xml::<Order>::decode(packet.as_bytes()).unwrap().0.item, ["tea"]);
    }

    #[test]
    fn an_error_does_not_quote_all_of_the_packet() {
        let told = refused::<Order>(&format!("<Order id='{}'><item/></Order>", "x".repeat(100_000)));
        assert!(told.len() < 400, "{told}");
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Empty {}
        let told = refused::<Empty>(&format!("<a><{}/></a>", "x".repeat(100_000)));
        assert!(told.len() < 400 && told.contains("unknown field `xxx"), "{told}");
    }

    proptest! {
        #[test]
        fn any_texts_and_numbers_go_there_and_back(id: u32, item in proptest::collection::vec("[ -~äß€]{0,20}", 1..5)) {
            let item: Vec<String> = item.iter().map(|text| text.trim().to_owned()).collect();
            let order = Order { id, item, note: Some("x".into()) };
            let packet = Xml(&order).to_bytes().unwrap();
            prop_assert_eq!(Xml::decode(&packet), Ok(Xml(order)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(packet in "[<>/&;a'= !\\[\\]#x1-]{0,60}") {
            let _ = Xml::<Order>::decode(packet.as_bytes());
            let _ = Xml::<Vec<Option<String>>>::decode(packet.as_bytes());
        }
    }
}
