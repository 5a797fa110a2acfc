use std::{borrow::Cow, fmt, fmt::Write, sync::Arc};

use bytes::{Bytes, BytesMut};

use crate::framing::EncodeError;

/// The most bytes that are reserved because of a size hint: a greater payload grows into its memory.
const MOST_RESERVED: usize = 64 * 1024;

/// What can be sent as a packet: bytes, texts, and values that write themselves as bytes.
///
/// Implemented for `[u8]`, `str`, `Vec<u8>`, `String`, `Bytes`, `BytesMut`, `[u8; N]`, [`fmt::Arguments`], `Cow`, `Box`,
/// `Arc` and references of these; [`encode_fn`] makes one of a closure. With the features `json`, `postcard`, `xml` and
/// `zerocopy` there are wrappers for values of serde and zerocopy, such as `Json`.
///
/// [`Session::send`](crate::Session::send) has a value written straight into the outbox of its session, once, and the
/// framing fills in the header around it. A handle or another session has it written into a buffer of its own first,
/// which [`Bytes`] are already: they are shared, not copied.
///
/// ```
/// use framewire::{Encode, EncodeError, bytes::{BufMut, BytesMut}, packet_fn};
///
/// struct Position { x: f32, y: f32 }
///
/// impl Encode for Position {
///     fn size_hint(&self) -> usize {
///         8
///     }
///
///     fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
///         out.put_f32(self.x);
///         out.put_f32(self.y);
///         Ok(())
///     }
/// }
///
/// assert_eq!(Position { x: 1.0, y: 0.0 }.to_bytes()?, b"\x3f\x80\0\0\0\0\0\0"[..]);
/// let handler = packet_fn(|session, _| Ok(session.send(Position { x: 1.0, y: 0.0 })?));
/// # Ok::<(), EncodeError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent",
    note = "bytes and texts can, `encode_fn(|out| ..)`, and with their features `Json(&value)`, `Postcard(&value)`, \
            `Xml(&value)` and `Pod(&value)`"
)]
pub trait Encode {
    /// Returns how many bytes [`encode`](Self::encode) will write at least; 0, the default, if that is not known.
    ///
    /// A packet that has no room by its hint is refused before it is encoded. The memory for it is reserved at once, up
    /// to 64 KiB.
    fn size_hint(&self) -> usize {
        0
    }

    /// Writes the payload to `out`, which is empty, and usually the end of an outbox. The payload must depend on nothing
    /// but the value.
    ///
    /// If this fails or panics, the caller drops whatever was written.
    ///
    /// # Errors
    /// The value has no payload, for example because its format cannot express it.
    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError>;

    /// Returns the payload, if the value already holds it in one piece. [`encode`](Self::encode) is not called then.
    #[inline]
    fn as_payload(&self) -> Option<&[u8]> {
        None
    }

    /// Appends the payload to `out`, behind what is there already, and returns its length in bytes. For framings, see
    /// [`Framing::encode_with`](crate::Framing::encode_with).
    ///
    /// # Errors
    /// As for [`encode`](Self::encode). `out` is as it was then.
    fn append_to(&self, out: &mut BytesMut) -> Result<usize, EncodeError> {
        if let Some(payload) = self.as_payload() {
            out.extend_from_slice(payload);
            return Ok(payload.len());
        }
        out.reserve(self.size_hint().min(MOST_RESERVED));
        // The same memory as a buffer of its own: an encoder that clears or replaces it does no harm to what is before.
        let mut payload = out.split_off(out.len());
        let encoded = self.encode(&mut payload);
        if encoded.is_err() {
            payload.clear();
        }
        let len = payload.len();
        out.unsplit(payload);
        encoded.map(|()| len)
    }

    /// Returns the payload in a buffer of its own. `Bytes` share theirs.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    fn to_bytes(&self) -> Result<Bytes, EncodeError> {
        if let Some(payload) = self.as_payload() {
            return Ok(Bytes::copy_from_slice(payload));
        }
        let mut out = BytesMut::with_capacity(self.size_hint().min(MOST_RESERVED));
        self.encode(&mut out)?;
        Ok(out.freeze())
    }

    /// As [`to_bytes`](Self::to_bytes), for a value that is not needed any more. `Bytes`, `BytesMut`, `Vec<u8>` and
    /// `String` become the buffer, without a copy.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    #[inline]
    fn into_payload(self) -> Result<Bytes, EncodeError>
    where
        Self: Sized,
    {
        self.to_bytes()
    }
}

/// Values that are their payload.
macro_rules! impl_for_payloads {
    ($([$($generics:tt)*] $type:ty $(, $into:ident)?;)*) => { $(
        impl<$($generics)*> Encode for $type {
            #[inline]
            fn size_hint(&self) -> usize {
                AsRef::<[u8]>::as_ref(self).len()
            }

            $(
                #[inline]
                fn $into(self) -> Result<Bytes, EncodeError> {
                    Ok(self.into())
                }
            )?

            #[inline]
            fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
                out.extend_from_slice(self.as_ref());
                Ok(())
            }

            #[inline]
            fn as_payload(&self) -> Option<&[u8]> {
                Some(self.as_ref())
            }
        }
    )* };
}

impl_for_payloads! {
    [] [u8];
    [const N: usize] [u8; N];
    [] Vec<u8>, into_payload;
    [] BytesMut, into_payload;
    [] str;
    [] String, into_payload;
}

/// Values that refer to others.
macro_rules! impl_for_references {
    ($([$($generics:tt)*] $type:ty)*) => { $(
        impl<$($generics)*> Encode for $type {
            #[inline]
            fn size_hint(&self) -> usize {
                (**self).size_hint()
            }

            #[inline]
            fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
                (**self).encode(out)
            }

            #[inline]
            fn as_payload(&self) -> Option<&[u8]> {
                (**self).as_payload()
            }

            #[inline]
            fn to_bytes(&self) -> Result<Bytes, EncodeError> {
                (**self).to_bytes()
            }
        }
    )* };
}

impl_for_references! {
    [T: Encode + ?Sized] &T
    [T: Encode + ?Sized] &mut T
    [T: Encode + ?Sized] Box<T>
    [T: Encode + ?Sized] Arc<T>
    [T: Encode + ToOwned + ?Sized] Cow<'_, T>
}

impl Encode for Bytes {
    #[inline]
    fn size_hint(&self) -> usize {
        self.len()
    }

    #[inline]
    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        out.extend_from_slice(self);
        Ok(())
    }

    #[inline]
    fn as_payload(&self) -> Option<&[u8]> {
        Some(self)
    }

    /// Shares the bytes.
    fn to_bytes(&self) -> Result<Bytes, EncodeError> {
        Ok(self.clone())
    }

    fn into_payload(self) -> Result<Bytes, EncodeError> {
        Ok(self)
    }
}

/// `session.send(format_args!("{name} joins"))?` formats into the outbox, without a `String` in between.
impl Encode for fmt::Arguments<'_> {
    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        Ok(out.write_fmt(*self)?)
    }

    fn as_payload(&self) -> Option<&[u8]> {
        self.as_str().map(str::as_bytes)
    }
}

/// Makes a packet of a closure that appends it, as [`Encode::encode`] does.
///
/// The errors of [`wire`](crate::wire) and of `write!` become an [`EncodeError`] by `?`.
///
/// ```
/// use framewire::{Handled, encode_fn, packet_fn, wire::WireWrite};
///
/// let handler = packet_fn(|session, packet| {
///     Ok(session.send(encode_fn(|out| {
///         out.try_put_varint(7)?;
///         out.try_put_byte_array(packet, 1024)?;
///         Ok(())
///     }))?)
/// });
/// ```
pub fn encode_fn<F>(encode: F) -> EncodeFn<F>
where
    F: Fn(&mut BytesMut) -> Result<(), EncodeError>,
{
    EncodeFn { encode }
}

/// What [`encode_fn`] makes.
#[derive(Clone, Copy)]
pub struct EncodeFn<F> {
    encode: F,
}

impl<F> Encode for EncodeFn<F>
where
    F: Fn(&mut BytesMut) -> Result<(), EncodeError>,
{
    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        (self.encode)(out)
    }
}

impl<F> fmt::Debug for EncodeFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodeFn").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::WireWrite;

    /// What is sent of `packet`, which all of its methods have to agree on.
    fn sent<E: Encode>(packet: E) -> Vec<u8> {
        let mut out = BytesMut::from("before");
        let len = packet.append_to(&mut out).unwrap();
        let payload = out.strip_prefix(b"before").unwrap();
        assert_eq!(payload.len(), len);
        let mut alone = BytesMut::new();
        packet.encode(&mut alone).unwrap();
        assert_eq!(alone, payload);
        assert_eq!(packet.to_bytes().unwrap(), payload);
        assert!(packet.as_payload().is_none_or(|whole| whole == payload));
        assert!(packet.size_hint() <= payload.len());
        payload.to_vec()
    }

    #[test]
    fn bytes_and_texts_are_sent_as_they_are_however_they_are_held() {
        let bytes = b"abc".to_vec();
        assert_eq!(sent(&bytes[..]), bytes);
        assert_eq!(sent(*b"abc"), bytes);
        assert_eq!(sent(b"abc"), bytes);
        assert_eq!(sent("abc"), bytes);
        assert_eq!(sent(String::from("abc")), bytes);
        assert_eq!(sent(&mut bytes.clone()[..]), bytes);
        assert_eq!(sent(bytes.clone()), bytes);
        assert_eq!(sent::<&&[u8]>(&&bytes[..]), bytes);
        assert_eq!(sent(Bytes::from_static(b"abc")), bytes);
        assert_eq!(sent(BytesMut::from("abc")), bytes);
        assert_eq!(sent(Cow::Borrowed("abc")), bytes);
        assert_eq!(sent(Cow::<[u8]>::Owned(bytes.clone())), bytes);
        assert_eq!(sent(Box::<[u8]>::from(&bytes[..])), bytes);
        assert_eq!(sent(Arc::<str>::from("abc")), bytes);
        assert_eq!(sent(&"abc" as &dyn Encode), bytes);
        assert_eq!(sent([0_u8; 0]), b"");
    }

    #[test]
    fn arguments_are_formatted_and_texts_without_any_are_not() {
        let number = 7;
        assert_eq!(sent(format_args!("abc {number:03}")), b"abc 007");
        assert_eq!(format_args!("abc").as_payload(), Some(&b"abc"[..]));
    }

    #[test]
    fn bytes_are_shared_also_by_reference() {
        let bytes = Bytes::from(vec![7; 100]);
        for shared in [bytes.to_bytes(), <&Bytes>::to_bytes(&&bytes), Arc::new(bytes.clone()).to_bytes()] {
            assert_eq!(shared.unwrap().as_ptr(), bytes.as_ptr());
        }
    }

    #[test]
    fn buffers_that_are_not_needed_any_more_become_the_payload() {
        let at = |packet: Bytes| (packet.as_ptr(), packet);
        let (vec, text, grown) = (vec![7; 100], "text".repeat(9), BytesMut::from(&[8; 50][..]));
        let starts = [vec.as_ptr(), text.as_ptr(), grown.as_ptr()];
        let packets = [vec.into_payload(), text.into_payload(), grown.into_payload()];
        for (start, packet) in starts.into_iter().zip(packets) {
            let (moved, packet) = at(packet.unwrap());
            assert_eq!(moved, start, "{packet:?}");
        }
        let shared = Bytes::from(vec![9; 10]);
        let start = shared.as_ptr();
        let alone = shared.into_payload().unwrap();
        assert!(alone.is_unique() && alone.as_ptr() == start);
    }

    #[test]
    fn a_closure_passes_on_the_errors_of_what_it_writes_with() {
        let packet = encode_fn(|out| Ok(out.try_put_string("much too long", 5)?));
        let error = packet.to_bytes().unwrap_err();
        assert_eq!(error.to_string(), "a string of 13 bytes is over the maximum of 5");

        struct Unwilling;
        impl fmt::Display for Unwilling {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        let packet = encode_fn(|out| Ok(write!(out, "{Unwilling}")?));
        let error = packet.to_bytes().unwrap_err();
        assert_eq!(error.to_string(), "a Display implementation returned an error");
        assert_eq!(format_args!("{Unwilling}").to_bytes(), Err(error));
    }

    #[test]
    fn a_size_hint_reserves_no_more_than_64_kib() {
        struct Boaster;
        impl Encode for Boaster {
            fn size_hint(&self) -> usize {
                usize::MAX
            }
            fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
                assert!(out.capacity() <= MOST_RESERVED * 2);
                out.extend_from_slice(b"small");
                Ok(())
            }
        }
        assert_eq!(Boaster.to_bytes().unwrap(), b"small"[..]);
        assert_eq!(Boaster.append_to(&mut BytesMut::new()), Ok(5));
    }

    #[test]
    fn an_encoder_cannot_touch_what_is_before_its_payload() {
        let clears = encode_fn(|out| {
            assert!(out.is_empty());
            out.extend_from_slice(b"draft");
            out.clear();
            out.extend_from_slice(b"payload");
            Ok(())
        });
        let replaces = encode_fn(|out| {
            *out = BytesMut::from("payload");
            Ok(())
        });
        let grows = encode_fn(|out| {
            out.extend_from_slice(&[7; 100_000]);
            *out = out.split_off(99_993);
            out.copy_from_slice(b"payload");
            Ok(())
        });
        for encoder in [&clears as &dyn Encode, &replaces, &grows] {
            for spare in [0, 100, 1_000_000] {
                let mut out = BytesMut::with_capacity(6 + spare);
                out.extend_from_slice(b"before");
                assert_eq!(encoder.append_to(&mut out), Ok(7));
                assert_eq!(out, b"beforepayload"[..]);
            }
        }
    }

    #[test]
    fn a_failed_encoder_leaves_the_bytes_and_the_memory_as_they_were() {
        let fails = encode_fn(|out| {
            out.extend_from_slice(&[7; 1000]);
            Err(EncodeError::because("out of ink"))
        });
        let mut out = BytesMut::with_capacity(2000);
        out.extend_from_slice(b"before");
        for _ in 0..3 {
            assert_eq!(fails.append_to(&mut out), Err(EncodeError::because("out of ink")));
            assert_eq!((&out[..], out.capacity()), (&b"before"[..], 2000));
        }
    }

    #[test]
    fn values_written_one_after_the_other_share_memory_that_is_there() {
        let value = encode_fn(|out| {
            out.extend_from_slice(&[7; 100]);
            Ok(())
        });
        let mut out = BytesMut::with_capacity(1000);
        let start = out.as_ptr();
        for _ in 0..10 {
            assert_eq!(value.append_to(&mut out), Ok(100));
        }
        assert_eq!((out.as_ptr(), out.capacity(), out.len()), (start, 1000, 1000));
    }
}
