//! Bounds for formats of serde that have none of their own: how deep a packet nests, and how many elements it has.

use std::{cell::Cell, fmt};

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

/// How deep values may be nested: as deep as in serde_json. Each level takes some hundred bytes of stack, or a few
/// thousand without optimisation.
const MOST_LEVELS: u32 = 128;
/// Elements that a packet may have beyond one for each of its bytes.
const MOST_EMPTY: usize = 1024;

/// What a packet is allowed.
pub(super) struct Guard {
    /// Elements of lists and maps that may still come.
    elements: Cell<usize>,
    /// Elements for which memory may still be reserved before they have come.
    promises: Cell<usize>,
    refusal: Cell<Option<&'static str>>,
}

impl Guard {
    pub(super) fn new(packet: &[u8]) -> Self {
        let elements = packet.len().saturating_add(MOST_EMPTY);
        Self { elements: Cell::new(elements), promises: Cell::new(elements), refusal: Cell::new(None) }
    }

    /// Reads a value, as far as that is allowed.
    pub(super) fn read<'de, T, D>(&self, deserializer: D) -> Result<T, D::Error>
    where
        T: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        T::deserialize(Guarded {
            inner: deserializer,
            guard: self,
            levels: MOST_LEVELS,
            elements: Elements::Free,
        })
    }

    /// Returns why the packet was refused, if that is the reason: not every format keeps the text of an error.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        self.refusal.get()
    }

    fn refuse<E: Error>(&self, why: &'static str) -> E {
        self.refusal.set(Some(why));
        E::custom(why)
    }
}

/// Whether the elements of what is read next are counted: the packet says how many they are.
#[derive(Clone, Copy)]
enum Elements {
    Counted,
    Free,
}

/// Any of serde's traits, with what is left of the allowance.
struct Guarded<'g, I> {
    inner: I,
    guard: &'g Guard,
    /// How much deeper values may be.
    levels: u32,
    elements: Elements,
}

impl<'g, I> Guarded<'g, I> {
    /// The same place, for something else.
    fn here<J>(&self, inner: J) -> Guarded<'g, J> {
        Guarded { inner, guard: self.guard, levels: self.levels, elements: self.elements }
    }

    /// One level deeper.
    fn below<J, E: Error>(&self, inner: J) -> Result<Guarded<'g, J>, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Guarded { inner, guard: self.guard, levels, elements: Elements::Free }),
            None => Err(self.guard.refuse("nested deeper than 128")),
        }
    }

    fn counted(self, elements: Elements) -> Self {
        Self { elements, ..self }
    }

    /// An element has come.
    fn count<E: Error>(&self) -> Result<(), E> {
        if let Elements::Free = self.elements {
            return Ok(());
        }
        match self.guard.elements.get().checked_sub(1) {
            Some(left) => {
                self.guard.elements.set(left);
                Ok(())
            }
            None => Err(self.guard.refuse("more elements than a packet of this length may have")),
        }
    }

    /// Believes a length only as far as the packet could hold it, in all its lists together.
    fn hint(&self, announced: Option<usize>) -> Option<usize> {
        let promises = &self.guard.promises;
        announced.map(|announced| {
            let believed = announced.min(promises.get());
            promises.set(promises.get() - believed);
            believed
        })
    }
}

/// Methods of a deserializer that take a visitor last.
macro_rules! deserialize {
    ($($method:ident($($name:ident: $type:ty),*) $elements:ident)*) => { $(
        fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.here(visitor).counted(Elements::$elements);
            self.inner.$method($($name,)* visitor)
        }
    )* };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Guarded<'_, D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any() Counted
        deserialize_bool() Free
        deserialize_i8() Free
        deserialize_i16() Free
        deserialize_i32() Free
        deserialize_i64() Free
        deserialize_i128() Free
        deserialize_u8() Free
        deserialize_u16() Free
        deserialize_u32() Free
        deserialize_u64() Free
        deserialize_u128() Free
        deserialize_f32() Free
        deserialize_f64() Free
        deserialize_char() Free
        deserialize_str() Free
        deserialize_string() Free
        deserialize_bytes() Free
        deserialize_byte_buf() Free
        deserialize_option() Free
        deserialize_unit() Free
        deserialize_unit_struct(name: &'static str) Free
        deserialize_newtype_struct(name: &'static str) Free
        deserialize_seq() Counted
        deserialize_tuple(len: usize) Free
        deserialize_tuple_struct(name: &'static str, len: usize) Free
        deserialize_map() Counted
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) Free
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) Free
        deserialize_identifier() Free
        deserialize_ignored_any() Counted
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Methods of a visitor that take a value with nothing in it.
macro_rules! visit {
    ($($method:ident($($value:ident: $type:ty)?))*) => { $(
        fn $method<E: Error>(self $(, $value: $type)?) -> Result<V::Value, E> {
            self.inner.$method($($value)?)
        }
    )* };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guarded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool(value: bool)
        visit_i8(value: i8)
        visit_i16(value: i16)
        visit_i32(value: i32)
        visit_i64(value: i64)
        visit_i128(value: i128)
        visit_u8(value: u8)
        visit_u16(value: u16)
        visit_u32(value: u32)
        visit_u64(value: u64)
        visit_u128(value: u128)
        visit_f32(value: f32)
        visit_f64(value: f64)
        visit_char(value: char)
        visit_str(value: &str)
        visit_borrowed_str(value: &'de str)
        visit_string(value: String)
        visit_bytes(value: &[u8])
        visit_borrowed_bytes(value: &'de [u8])
        visit_byte_buf(value: Vec<u8>)
        visit_none()
        visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.below(deserializer)?;
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.below(deserializer)?;
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        let seq = self.here(seq);
        self.inner.visit_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let map = self.here(map);
        self.inner.visit_map(map)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        let data = self.here(data);
        self.inner.visit_enum(data)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Guarded<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.here(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seed = self.below(seed)?;
        let element = self.inner.next_element_seed(seed)?;
        if element.is_some() {
            self.count()?;
        }
        Ok(element)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint(self.inner.size_hint())
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seed = self.below(seed)?;
        let key = self.inner.next_key_seed(seed)?;
        if key.is_some() {
            self.count()?;
        }
        Ok(key)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.below(seed)?;
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint(self.inner.size_hint())
    }
}

impl<'de, 'g, A: EnumAccess<'de>> EnumAccess<'de> for Guarded<'g, A> {
    type Error = A::Error;
    type Variant = Guarded<'g, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (seed, place) = (self.below(seed)?, self.here(()));
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, place.below(variant)?))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.here(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.here(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.here(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
