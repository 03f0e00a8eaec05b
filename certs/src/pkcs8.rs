//! Private keys in older forms, put into PKCS#8.
//!
//! PKCS#8 (RFC 5958) wraps the older form as it is: version 0, the algorithm's identifier, and the old bytes.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// `rsaEncryption` and its NULL parameters (RFC 8017).
const RSA: [u8; 13] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// `ecPublicKey` (RFC 5480).
const EC: [u8; 9] = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// `prime256v1`
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// `secp384r1`
const P384: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
/// `secp521r1`
const P521: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// The key ready to sign, its own serialised form being PKCS#8.
pub(crate) fn signing_key(key: &PrivateKeyDer<'_>) -> Result<KeyPair, rcgen::Error> {
    let parsed = KeyPair::try_from(key)?;
    let wrapped = match key {
        PrivateKeyDer::Pkcs1(old) => wrap(&RSA, old.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(old) => wrap(&[&EC[..], curve(&parsed)].concat(), old.secret_sec1_der()),
        _ => return Ok(parsed),
    };
    let algorithm = parsed.algorithm();
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(wrapped), algorithm)
}

fn curve(key: &KeyPair) -> &'static [u8] {
    let algorithm = key.algorithm();
    if algorithm == &PKCS_ECDSA_P256_SHA256 {
        &P256
    } else if algorithm == &PKCS_ECDSA_P384_SHA384 {
        &P384
    } else {
        &P521
    }
}

fn wrap(algorithm: &[u8], old: &[u8]) -> Vec<u8> {
    let parts = [tlv(INTEGER, &[0]), tlv(SEQUENCE, algorithm), tlv(OCTET_STRING, old)].concat();
    tlv(SEQUENCE, &parts)
}

/// Tag, length in as few bytes as possible, value: DER.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len();
    let short = u8::try_from(length).ok().filter(|n| *n < 0x80);
    let mut out = vec![tag];
    if let Some(n) = short {
        out.push(n);
    } else {
        let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
        let count = u8::try_from(bytes.len()).expect("a usize has at most 8 bytes");
        out.push(0x80 | count);
        out.extend(bytes);
    }
    out.extend_from_slice(value);
    out
}
