//! Macros for the newtypes that stand for wire enums and wire bit sets.
//!
//! A Rust enum would have to fail on a value that it doesn't name. A newtype keeps it, so that a server can answer
//! "unknown option 99" and a client can print the error code that a newer server sent.

/// Defines a newtype over an integer with named constants, `Debug` by name, and [`Codec`].
///
/// [`Codec`]: crate::codec::Codec
macro_rules! wire_enum {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident($int:ty);
        $( $(#[$item_meta:meta])* const $item:ident = $value:expr; )*
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        $vis struct $name(pub $int);

        impl $name {
            $( $(#[$item_meta])* pub const $item: Self = Self($value); )*

            /// The name of this value, if it is a known one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $( Self::$item => Some(stringify!($item)), )*
                    _ => None,
                }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($name), "({:#x})"), self.0),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }

        crate::wire::impl_codec!($name, $int);
    };
}

/// Defines a bit set over an integer with named constants, set operations, `Debug` by name, and [`Codec`].
///
/// [`Codec`]: crate::codec::Codec
macro_rules! wire_flags {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident($int:ty);
        $( $(#[$item_meta:meta])* const $item:ident = $value:expr; )*
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        $vis struct $name(pub $int);

        impl $name {
            $( $(#[$item_meta])* pub const $item: Self = Self($value); )*

            /// No bit set.
            pub const EMPTY: Self = Self(0);
            /// Every bit that has a name here.
            pub const KNOWN: Self = Self(0 $(| $value)*);

            /// Whether no bit is set.
            #[inline]
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Whether all of `other`'s bits are set.
            #[inline]
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The bits of either.
            #[inline]
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// The bits of both.
            #[inline]
            #[must_use]
            pub const fn intersection(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }

            /// The bits of `self` that `other` doesn't have.
            #[inline]
            #[must_use]
            pub const fn difference(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;
            #[inline]
            fn bitor(self, other: Self) -> Self {
                self.union(other)
            }
        }

        impl std::ops::BitOrAssign for $name {
            #[inline]
            fn bitor_assign(&mut self, other: Self) {
                *self = self.union(other);
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                let mut separator = "";
                $(
                    if self.contains(Self::$item) {
                        f.write_str(separator)?;
                        f.write_str(stringify!($item))?;
                        separator = " | ";
                    }
                )*
                let unknown = self.difference(Self::KNOWN);
                if !unknown.is_empty() {
                    write!(f, "{separator}{:#x}", unknown.0)?;
                }
                f.write_str(")")
            }
        }

        crate::wire::impl_codec!($name, $int);
    };
}

/// Implements [`Codec`](crate::codec::Codec) for a newtype by way of its integer.
macro_rules! impl_codec {
    ($name:ident, $int:ty) => {
        impl crate::codec::Codec for $name {
            #[inline]
            fn decode(
                reader: &mut crate::codec::Reader<'_>,
            ) -> Result<Self, crate::codec::Truncated> {
                <$int as crate::codec::Codec>::decode(reader).map(Self)
            }

            #[inline]
            fn encode(&self, out: &mut impl bytes::BufMut) {
                crate::codec::Codec::encode(&self.0, out);
            }
        }
    };
}

pub(crate) use {impl_codec, wire_enum, wire_flags};
