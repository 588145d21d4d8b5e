//! The detached signature that the controller manager puts on cluster-info for every token: JWS (RFC 7515) with
//! HMAC-SHA256, the token's secret being the key and its id the key's id.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Signs `content` with a token.
pub(crate) fn sign(content: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"HS256\",\"kid\":\"{id}\"}}"));
    let signature = mac(&header, content, secret).finalize().into_bytes();
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Whether a signature is this token's over `content`.
pub(crate) fn is_valid(signature: &str, content: &str, id: &str, secret: &str) -> bool {
    let Some((header, given)) = signature.split_once("..") else { return false };
    let Ok(given) = URL_SAFE_NO_PAD.decode(given) else { return false };
    let expected = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"HS256\",\"kid\":\"{id}\"}}"));
    header == expected && mac(header, content, secret).verify_slice(&given).is_ok()
}

fn mac(header: &str, content: &str, secret: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(header.as_bytes());
    mac.update(b".");
    mac.update(URL_SAFE_NO_PAD.encode(content).as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_for_its_token_and_content_alone() {
        let signature = sign("content", "abcdef", "0123456789abcdef");
        assert!(is_valid(&signature, "content", "abcdef", "0123456789abcdef"));
        assert!(!is_valid(&signature, "other", "abcdef", "0123456789abcdef"));
        assert!(!is_valid(&signature, "content", "abcdef", "0123456789abcdee"));
        assert!(!is_valid(&signature, "content", "bbcdef", "0123456789abcdef"));
        assert!(!is_valid("nonsense", "content", "abcdef", "0123456789abcdef"));
    }
}
