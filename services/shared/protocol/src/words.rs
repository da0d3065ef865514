//! Enums whose variants are words of the wire, and what each word means.

/// Declares such an enum. What is said of its variants is there for those who describe them too, in
/// `MEANINGS`: one text for readers of the code and of the reference.
macro_rules! words {
    (
        $(#[$($outer:tt)*])*
        pub enum $name:ident {
            $($(#[doc = $meaning:literal])+ $word:ident,)+
        }
    ) => {
        $(#[$($outer)*])*
        pub enum $name {
            $($(#[doc = $meaning])+ $word,)+
        }

        impl $name {
            /// All of them, with what each means.
            pub const MEANINGS: &[(Self, &str)] = &[$((Self::$word, concat!($($meaning),+)),)+];
        }
    };
}
pub(crate) use words;
