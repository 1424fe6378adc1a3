//! Identifiers: UUIDs for objects, the suffixes Kubernetes appends to generated names, and hashes.

use ring::rand::{SecureRandom, SystemRandom};

/// The letters of generated names: no vowels and no look-alikes, so that no words arise.
const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Fills `buffer` from the system's generator. Without randomness no key or uid can be trusted.
pub fn fill_random(buffer: &mut [u8]) {
    SystemRandom::new().fill(buffer).expect("the kernel's random generator answers");
}

pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

/// A random (version 4) UUID in its usual form.
pub fn uuid() -> String {
    let mut b: [u8; 16] = random_bytes();
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let h = hex(&b);
    format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
}

/// `length` random letters of the alphabet that generated names use (five for `generateName`).
pub fn name_suffix(length: usize) -> String {
    let mut bytes = vec![0; length];
    fill_random(&mut bytes);
    bytes.iter().map(|b| char::from(SUFFIX_ALPHABET[usize::from(*b) % SUFFIX_ALPHABET.len()])).collect()
}

/// A 32-bit hash spelled in the alphabet of generated names, as `pod-template-hash` is.
pub fn short_hash(bytes: &[u8]) -> String {
    let digits = fnv1a_32(bytes).to_string();
    digits.bytes().map(|b| char::from(SUFFIX_ALPHABET[usize::from(b) % SUFFIX_ALPHABET.len()])).collect()
}

/// FNV-1a, 32 bits: small, stable between versions, and not for security.
pub fn fnv1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

/// Standard base64 with padding, for the few places that must not know a whole encoding crate.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().enumerate().fold(0_u32, |acc, (i, b)| acc | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = (group >> (18 - 6 * i)) as usize & 63;
            out.push(if i <= chunk.len() { char::from(ALPHABET[digit]) } else { '=' });
        }
    }
    out
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&sha256(bytes))
}

pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_version_and_variant() {
        let id = uuid();
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]));
        assert_ne!(id, uuid());
    }

    #[test]
    fn hashes_are_stable() {
        assert_eq!(fnv1a_32(b"a"), 0xe40c_292c);
        assert_eq!(sha256_hex(b"")[..8], *"e3b0c442");
        assert_eq!(["", "f", "fo", "foo"].map(|t| base64(t.as_bytes())), ["", "Zg==", "Zm8=", "Zm9v"]);
        assert!(short_hash(b"template").bytes().all(|b| SUFFIX_ALPHABET.contains(&b)));
    }
}
