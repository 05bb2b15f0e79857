//! Keys: made, derived, read and written, for hosts that have no WireGuard tools at hand.

use std::ffi::c_char;

use adit_core::key::KEY_LEN;
use adit_core::{PresharedKey, PrivateKey};
use zeroize::{Zeroize, Zeroizing};

use crate::caller::Caller;
use crate::guard::entry;
use crate::result::{ADIT_ERROR_INTERNAL, ADIT_ERROR_KEY, ADIT_ERROR_SYSTEM, AditResult, Failure, Outcome};

/// The 32 bytes of a private, public or preshared key. Wipe a secret one with `adit_key_wipe` when you are done with it.
#[repr(C)]
#[derive(Zeroize)]
pub struct AditKey {
    /// The bytes, in the order of RFC 7748.
    pub bytes: [u8; 32],
}

/// A key in base64, as configurations have it: 44 characters and a NUL. It is as secret as the key.
#[repr(C)]
#[derive(Zeroize)]
pub struct AditKeyText {
    /// The characters and the NUL.
    pub text: [c_char; 45],
}

/// Makes a private key of the system's random numbers.
///
/// Thread: any. Ownership: `out` is yours; it is secret. Lifetime: none beyond the call. Errors: NULL_POINTER; SYSTEM if
/// there are no random numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_key_generate_private(out: *mut AditKey) -> AditResult {
    entry(|| {
        // SAFETY: the header asks its caller for what is promised here.
        let caller = unsafe { Caller::promises() };
        let out = caller.out(out)?;
        let bytes = random()?;
        out.write(AditKey { bytes: *PrivateKey::from_bytes(*bytes).as_bytes() });
        Ok(())
    })
}

/// Makes a preshared key of the system's random numbers.
///
/// Thread: any. Ownership: `out` is yours; it is secret. Lifetime: none beyond the call. Errors: NULL_POINTER; SYSTEM if
/// there are no random numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_key_generate_preshared(out: *mut AditKey) -> AditResult {
    entry(|| {
        // SAFETY: the header asks its caller for what is promised here.
        let caller = unsafe { Caller::promises() };
        let out = caller.out(out)?;
        out.write(AditKey { bytes: *random()? });
        Ok(())
    })
}

/// Derives the public key that belongs to a private one. `out` may be the same place as `private_key`.
///
/// Thread: any. Ownership: both are yours. Lifetime: none beyond the call. Errors: NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_key_public(private_key: *const AditKey, out: *mut AditKey) -> AditResult {
    entry(|| {
        // SAFETY: the header asks its caller for what is promised here.
        let caller = unsafe { Caller::promises() };
        let private_key = Zeroizing::new(caller.read(private_key)?);
        let out = caller.out(out)?;
        let public_key = PrivateKey::from_bytes(private_key.bytes).public_key();
        out.write(AditKey { bytes: *public_key.as_bytes() });
        Ok(())
    })
}

/// Reads a key from base64: 44 characters, with white space around them or without.
///
/// Thread: any. Ownership: both are yours. Lifetime: none beyond the call. Errors: NULL_POINTER; INVALID_UTF8; TOO_LARGE
/// above 4096 bytes; KEY if it is no key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_key_from_base64(text: *const c_char, length: usize, out: *mut AditKey) -> AditResult {
    // SAFETY: the header asks its caller for what is promised here.
    entry(|| parse(&unsafe { Caller::promises() }, (text, length), out, |text| text.parse().ok()))
}

/// Reads a key from hexadecimal: 64 digits of either case.
///
/// Thread: any. Ownership: both are yours. Lifetime: none beyond the call. Errors: NULL_POINTER; INVALID_UTF8; TOO_LARGE
/// above 4096 bytes; KEY if it is no key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_key_from_hex(text: *const c_char, length: usize, out: *mut AditKey) -> AditResult {
    // SAFETY: the header asks its caller for what is promised here.
    entry(|| parse(&unsafe { Caller::promises() }, (text, length), out, |text| PresharedKey::from_hex(text).ok()))
}

/// Writes a key as base64.
///
/// Thread: any. Ownership: both are yours; the text is as secret as the key. Lifetime: none beyond the call. Errors:
/// NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_key_to_base64(key: *const AditKey, out: *mut AditKeyText) -> AditResult {
    entry(|| {
        // SAFETY: the header asks its caller for what is promised here.
        let caller = unsafe { Caller::promises() };
        let key = Zeroizing::new(caller.read(key)?);
        let out = caller.out(out)?;
        let base64 = Zeroizing::new(PresharedKey::from_bytes(key.bytes).to_base64());
        let mut text = AditKeyText { text: [0; 45] };
        // One place of the text is left for the NUL.
        if base64.len() >= text.text.len() {
            return Err(Failure::new(ADIT_ERROR_INTERNAL));
        }
        for (place, byte) in text.text.iter_mut().zip(base64.bytes()) {
            *place = byte as c_char;
        }
        out.write(text);
        Ok(())
    })
}

/// Overwrites a key with zeros in a way that a compiler does not leave out.
///
/// Thread: any. Ownership: the key stays yours. Lifetime: none beyond the call. Errors: none; NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adit_key_wipe(key: *mut AditKey) {
    let _code = entry(|| {
        // SAFETY: the header asks its caller for what is promised here.
        let caller = unsafe { Caller::promises() };
        caller.out(key)?.wipe();
        Ok(())
    });
}

fn random() -> Outcome<Zeroizing<[u8; KEY_LEN]>> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|_| Failure::new(ADIT_ERROR_SYSTEM))?;
    Ok(bytes)
}

/// Preshared keys are the kind of which every 32 bytes are one, unchanged.
fn parse(
    caller: &Caller,
    (text, length): (*const c_char, usize),
    out: *mut AditKey,
    read: impl FnOnce(&str) -> Option<PresharedKey>,
) -> Outcome {
    let text = caller.text(text, length, LONGEST)?;
    let out = caller.out(out)?;
    let key = read(text).ok_or(Failure::new(ADIT_ERROR_KEY))?;
    out.write(AditKey { bytes: *key.as_bytes() });
    Ok(())
}

/// Text that is looked at for a key, white space included.
const LONGEST: usize = 4096;
