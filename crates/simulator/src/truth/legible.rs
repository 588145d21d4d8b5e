//! What a secret of kubeadm's looks like, by its own form and not by muster's redaction.

/// Whether a private key or a bootstrap token can be read in these bytes.
pub(crate) fn secret(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"PRIVATE KEY").is_some()
        || memchr::memchr_iter(b'.', bytes)
            .any(|dot| dot >= 6 && token(&bytes[dot - 6..], bytes.get(dot.wrapping_sub(7))))
}

/// Whether a token begins here: six letters or digits, a point, sixteen of them, and no more on either side.
fn token(bytes: &[u8], before: Option<&u8>) -> bool {
    let part = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'.';
    bytes.len() >= 23
        && bytes[..6].iter().all(part)
        && bytes[7..23].iter().all(part)
        && !before.is_some_and(word)
        && !bytes.get(23).is_some_and(word)
}

#[cfg(test)]
mod tests {
    use super::secret;

    #[test]
    fn tokens_and_keys_are_seen_and_nothing_else() {
        assert!(secret(b"abcdef.0123456789abcdef"));
        assert!(secret(b"[bootstrap-token] Using token: abcdef.0123456789abcdef, and more"));
        assert!(secret(b"-----BEGIN PRIVATE KEY-----"));
        for plain in
            ["", "abcdef", "abcdef.0123456789abcde", "xabcdef.0123456789abcdef", "v1.36.1 of m-1125dc1d", "..."]
        {
            assert!(!secret(plain.as_bytes()), "{plain}");
        }
    }
}
