//! Values that must not be seen: zeroed when dropped, never printed.

use std::fmt;

use zeroize::Zeroizing;

/// Secret bytes. Prints as `[redacted]`; zeroed when dropped.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes. Whoever calls this has a reason to see them: to write the file, to seal them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text; empty when they are not UTF-8.
    pub(crate) fn expose_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A bootstrap token, `[a-z0-9]{6}.[a-z0-9]{16}`. The part before the dot, its id, is public. Prints as
/// `abcdef.[redacted]`; zeroed when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Secret);

impl Token {
    const ID: usize = 6;
    const LENGTH: usize = 23;

    /// Reads a token.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let allowed = |(at, byte): (usize, &u8)| match at {
            Self::ID => *byte == b'.',
            _ => byte.is_ascii_lowercase() || byte.is_ascii_digit(),
        };
        (bytes.len() == Self::LENGTH && bytes.iter().enumerate().all(allowed)).then(|| Self(Secret::new(text)))
    }

    /// Makes a token of 22 characters of `[a-z0-9]`.
    pub(crate) fn from_characters(characters: &[u8; 22]) -> Self {
        let mut text = Vec::with_capacity(Self::LENGTH);
        text.extend_from_slice(&characters[..Self::ID]);
        text.push(b'.');
        text.extend_from_slice(&characters[Self::ID..]);
        Self(Secret::new(text))
    }

    /// The public part, by which the cluster names the token.
    pub fn id(&self) -> &str {
        &self.0.expose_str()[..Self::ID]
    }

    /// All of it.
    pub fn expose(&self) -> &str {
        self.0.expose_str()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.[redacted]", self.id())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_has_one_form() {
        let token = Token::parse("abcdef.0123456789abcdef").expect("a token");
        assert_eq!(token.id(), "abcdef");
        assert_eq!(format!("{token:?}"), "abcdef.[redacted]");
        for text in ["", "abcdef", "abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "abcdef-0123456789abcdef"] {
            assert!(Token::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new("hidden")), "[redacted]");
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = Token::parse(&text);
        }
    }
}
