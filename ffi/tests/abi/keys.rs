//! Keys.

use std::ffi::CStr;
use std::ptr::{null, null_mut};

use adit_ffi::*;

use crate::harness::bytes;

const PRIVATE: &str = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
const PUBLIC: &str = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";

fn from_hex(text: &str) -> Result<AditKey, AditResult> {
    let mut key = AditKey { bytes: [0xAA; 32] };
    let (start, length) = bytes(text);
    match unsafe { adit_key_from_hex(start, length, &mut key) } {
        ADIT_OK => Ok(key),
        code => {
            assert_eq!(key.bytes, [0xAA; 32], "a failure writes nothing");
            Err(code)
        }
    }
}

#[test]
fn the_pair_of_rfc_7748() {
    let mut public = AditKey { bytes: [0; 32] };
    let private = from_hex(PRIVATE).unwrap();
    assert_eq!(unsafe { adit_key_public(&private, &mut public) }, ADIT_OK);
    assert_eq!(public.bytes, from_hex(&PUBLIC.to_uppercase()).unwrap().bytes);
}

#[test]
fn base64_comes_back_as_it_went() {
    let key = from_hex(PUBLIC).unwrap();
    let mut text = AditKeyText { text: [1; 45] };
    assert_eq!(unsafe { adit_key_to_base64(&key, &mut text) }, ADIT_OK);
    let read = unsafe { CStr::from_ptr(text.text.as_ptr()) }.to_str().unwrap();
    assert_eq!(read.len(), 44);
    let mut again = AditKey { bytes: [0; 32] };
    let spaced = format!(" {read}\n");
    let (start, length) = bytes(&spaced);
    assert_eq!(unsafe { adit_key_from_base64(start, length, &mut again) }, ADIT_OK);
    assert_eq!(again.bytes, key.bytes, "nothing is clamped");
}

#[test]
fn generated_keys_differ_and_private_ones_are_clamped() {
    let mut keys = [[0; 32]; 4];
    for (index, bytes) in keys.iter_mut().enumerate() {
        let mut key = AditKey { bytes: [0; 32] };
        let made = unsafe {
            if index < 2 { adit_key_generate_private(&mut key) } else { adit_key_generate_preshared(&mut key) }
        };
        assert_eq!(made, ADIT_OK);
        *bytes = key.bytes;
    }
    assert!(keys[..2].iter().all(|key| key[0] & 7 == 0 && key[31] & 0xC0 == 0x40));
    assert!(keys.iter().enumerate().all(|(index, key)| !keys[..index].contains(key)));
}

#[test]
fn what_is_no_key_is_refused() {
    for text in ["", "zz", &PUBLIC[1..], &format!("{PUBLIC}00"), &"g".repeat(64)] {
        assert_eq!(from_hex(text).err(), Some(ADIT_ERROR_KEY), "{text}");
    }
    assert_eq!(from_hex(&"0".repeat(5000)).err(), Some(ADIT_ERROR_TOO_LARGE));
    let mut key = AditKey { bytes: [0; 32] };
    let latin1 = [0xE4_u8; 44];
    let read = unsafe { adit_key_from_base64(latin1.as_ptr().cast(), latin1.len(), &mut key) };
    assert_eq!(read, ADIT_ERROR_INVALID_UTF8);
    let (start, length) = bytes("AAAA");
    assert_eq!(unsafe { adit_key_from_base64(start, length, &mut key) }, ADIT_ERROR_KEY);
}

#[test]
fn null_is_refused_everywhere() {
    let key = AditKey { bytes: [0; 32] };
    let mut out = AditKey { bytes: [0; 32] };
    let mut text = AditKeyText { text: [0; 45] };
    let (hex, length) = bytes(PUBLIC);
    let refused = unsafe {
        [
            adit_key_generate_private(null_mut()),
            adit_key_generate_preshared(null_mut()),
            adit_key_public(null(), &mut out),
            adit_key_public(&key, null_mut()),
            adit_key_from_base64(null(), 0, &mut out),
            adit_key_from_base64(null(), 44, &mut out),
            adit_key_from_hex(null(), 64, &mut out),
            adit_key_from_hex(hex, length, null_mut()),
            adit_key_to_base64(null(), &mut text),
            adit_key_to_base64(&key, null_mut()),
        ]
    };
    assert_eq!(refused, [ADIT_ERROR_NULL_POINTER; 10]);
}

#[test]
fn a_wiped_key_is_zero() {
    let mut key = from_hex(PRIVATE).unwrap();
    unsafe {
        adit_key_wipe(&mut key);
        adit_key_wipe(null_mut());
    }
    assert_eq!(key.bytes, [0; 32]);
}
