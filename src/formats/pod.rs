use std::any::type_name;

use bytes::BytesMut;
use zerocopy::{Immutable, IntoBytes, KnownLayout, TryCastError, TryFromBytes, TryReadError, Unaligned};

use crate::{
    decode::{Decode, DecodeError},
    encode::Encode,
    framing::EncodeError,
};

/// A value as the bytes that it has in memory, by zerocopy 0.8. With the feature `zerocopy`.
///
/// `Pod(&value)` is sent, without being serialized; `Pod::<T>::decode` copies a value out of a packet. [`PodRef`] refers
/// to it in the packet.
///
/// ```
/// use framewire::{Decode, Encode, Pod, packet_fn};
/// use zerocopy::{Immutable, IntoBytes, KnownLayout, TryFromBytes, Unaligned, byteorder::big_endian::{U16, U32}};
///
/// #[derive(TryFromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
/// #[repr(C)]
/// struct Position { player: U32, x: U16, y: U16 }
///
/// let handler = packet_fn(|session, packet| {
///     let Pod(position) = Pod::<Position>::decode(packet)?;
///     Ok(session.send(Pod(&Position { x: 0.into(), ..position }))?)
/// });
///
/// let position = Position { player: 1.into(), x: 2.into(), y: 3.into() };
/// assert_eq!(Pod(&position).to_bytes()?, [0, 0, 0, 1, 0, 2, 0, 3][..]);
/// # Ok::<(), framewire::EncodeError>(())
/// ```
///
/// Both sides need the same layout: `#[repr(C)]`, and numbers with a byte order, as above. Numbers of Rust have that of
/// the machine. The derives refuse types with padding or pointers.
///
/// # What a hostile packet can cost
/// Nothing beyond the packet: one of another length is refused, and so is a bit pattern that the type does not allow (a
/// `bool` of 2). All other patterns are values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pod<T>(pub T);

impl<T: IntoBytes + Immutable + ?Sized> Encode for Pod<&T> {
    fn size_hint(&self) -> usize {
        size_of_val(self.0)
    }

    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(())
    }

    #[inline]
    fn as_payload(&self) -> Option<&[u8]> {
        Some(self.0.as_bytes())
    }
}

impl<T: TryFromBytes> Decode<'_> for Pod<T> {
    fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        T::try_read_from_bytes(packet).map(Self).map_err(|error| match error {
            TryReadError::Size(_) => DecodeError::length::<T>(packet.len(), size_of::<T>()),
            _ => invalid::<T>(),
        })
    }
}

/// A value in a packet, as [`Pod`], without a copy: also a slice of values, or a struct that ends in one.
///
/// Packets begin at any address, so the types need an alignment of 1, as those of `zerocopy::byteorder` have.
///
/// ```
/// use framewire::{Decode, PodRef};
/// use zerocopy::byteorder::little_endian::U16;
///
/// let PodRef(samples) = PodRef::<[U16]>::decode(&[1, 0, 2, 0])?;
/// assert_eq!(samples, [1, 2]);
/// let error = PodRef::<[U16]>::decode(&[1, 0, 2]).unwrap_err();
/// assert!(error.to_string().ends_with("in memory: 3 bytes are not a whole number of elements"));
/// # Ok::<(), framewire::DecodeError>(())
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct PodRef<'p, T: ?Sized>(pub &'p T);

const FORMAT: &str = "memory";

fn invalid<T: ?Sized>() -> DecodeError {
    DecodeError::format(FORMAT, type_name::<T>(), "its bits are no value of the type")
}

impl<T: ?Sized> Clone for PodRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for PodRef<'_, T> {}

impl<'p, T> Decode<'p> for PodRef<'p, T>
where
    T: TryFromBytes + KnownLayout + Immutable + Unaligned + ?Sized,
{
    fn decode(packet: &'p [u8]) -> Result<Self, DecodeError> {
        T::try_ref_from_bytes(packet).map(Self).map_err(|error| match error {
            TryCastError::Size(_) => {
                let why = format!("{} bytes are not a whole number of elements", packet.len());
                DecodeError::format(FORMAT, type_name::<T>(), why)
            }
            _ => invalid::<T>(),
        })
    }
}

impl<T: IntoBytes + Immutable + ?Sized> Encode for PodRef<'_, T> {
    fn size_hint(&self) -> usize {
        Pod(self.0).size_hint()
    }

    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        Pod(self.0).encode(out)
    }

    #[inline]
    fn as_payload(&self) -> Option<&[u8]> {
        Some(self.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::byteorder::big_endian::{U16, U32};

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, TryFromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
    #[repr(C)]
    struct Position {
        player: U32,
        x: U16,
        is_alive: bool,
    }

    #[test]
    fn a_value_is_its_bytes_in_both_directions() {
        let position = Position { player: 1.into(), x: 0x0203.into(), is_alive: true };
        let packet = [0, 0, 0, 1, 2, 3, 1];
        for sent in [Pod(&position).to_bytes(), PodRef(&position).to_bytes()] {
            assert_eq!(sent.unwrap(), packet[..]);
        }
        assert_eq!(Pod(&position).as_payload(), Some(&packet[..]));
        assert_eq!(Pod::decode(&packet), Ok(Pod(position)));
        let PodRef(seen) = PodRef::<Position>::decode(&packet).unwrap();
        assert_eq!((seen, std::ptr::from_ref(seen).cast()), (&position, packet.as_ptr()));
        let three = [packet, packet, packet].concat();
        assert_eq!(PodRef::<[Position]>::decode(&three).unwrap().0, [position; 3]);
        assert_eq!(Pod(&[position; 3][..]).to_bytes().unwrap(), three);
    }

    #[test]
    fn a_packet_of_any_other_length_is_refused() {
        for len in (0..30).filter(|len| *len != size_of::<Position>()) {
            let packet = vec![0; len];
            let error = Pod::<Position>::decode(&packet).unwrap_err();
            let expected = format!("packet has {len} bytes, {} has 7", type_name::<Position>());
            assert_eq!(error.to_string(), expected);
            assert!(PodRef::<Position>::decode(&packet).is_err());
            assert_eq!(PodRef::<[Position]>::decode(&packet).is_ok(), len % 7 == 0);
        }
    }

    #[test]
    fn bits_that_are_no_value_are_refused() {
        let name = type_name::<Position>();
        for byte in 2..=255 {
            let packet = [0, 0, 0, 1, 2, 3, byte];
            let told = format!("packet is no {name} in memory: its bits are no value of the type");
            assert_eq!(Pod::<Position>::decode(&packet).unwrap_err().to_string(), told);
            assert_eq!(PodRef::<Position>::decode(&packet).unwrap_err().to_string(), told);
        }
    }

    proptest! {
        #[test]
        fn any_packet_is_a_list_of_bytes_and_one_of_numbers_if_it_is_even(packet: Vec<u8>) {
            prop_assert_eq!(PodRef::<[u8]>::decode(&packet).unwrap().0, &packet[..]);
            let numbers = PodRef::<[U16]>::decode(&packet);
            prop_assert_eq!(numbers.is_ok(), packet.len() % 2 == 0);
            if let Ok(numbers) = numbers {
                prop_assert_eq!(numbers.to_bytes().unwrap(), packet);
            }
        }
    }
}
