//! What the caller handed over: checked pointers, lengths and texts. The only file that looks through a pointer of the host.
//!
//! A pointer can be NULL, misaligned, or come with a length that no object has: these are errors. That it points to as
//! many bytes as it says, cannot be checked: an entry point says with [`Caller::promises`] that the header asks it of
//! its caller, once, and everything after that is safe.

use std::ffi::c_char;
use std::marker::PhantomData;

use crate::key::AditKey;
use crate::packets::AditSlice;
use crate::result::{
    ADIT_ERROR_INVALID_ARGUMENT, ADIT_ERROR_INVALID_SIZE, ADIT_ERROR_INVALID_UTF8, ADIT_ERROR_NULL_POINTER,
    ADIT_ERROR_TOO_LARGE, Failure, Outcome,
};

/// The right to look at what the caller's pointers point to, for as long as the call lasts.
pub(crate) struct Caller(());

/// A place of the caller's that can be written once.
pub(crate) struct Out<'call, T> {
    place: *mut T,
    call: PhantomData<&'call Caller>,
}

/// Types of the ABI that are valid whatever their bytes are.
///
/// # Safety
/// Every pattern of bits is a value of the type, and dropping one does nothing.
pub(crate) unsafe trait Plain {}

// SAFETY: integers have no invalid pattern.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for usize {}
// SAFETY: an array of bytes.
unsafe impl Plain for AditKey {}
// SAFETY: a pointer, which may be anything until it is looked through, and an integer.
unsafe impl Plain for AditSlice {}

impl Caller {
    /// Takes the caller's word for the pointers that are handed to the methods.
    ///
    /// # Safety
    /// Every pointer that a method is given is NULL or points, until the entry point returns, to memory of the size that
    /// the method names, initialised where it is read; nobody else writes to it meanwhile.
    pub(crate) unsafe fn promises() -> Self {
        Self(())
    }

    /// Copies one value.
    pub(crate) fn read<T: Plain>(&self, place: *const T) -> Outcome<T> {
        check(place)?;
        // SAFETY: the caller promised one readable `T` there, it is aligned, and every pattern of bits is a value.
        Ok(unsafe { place.read() })
    }

    /// The values of an array. An array of none may be NULL.
    pub(crate) fn array<T: Plain>(&self, start: *const T, count: usize) -> Outcome<&[T]> {
        if count == 0 {
            return Ok(&[]);
        }
        check(start)?;
        let bytes = count.checked_mul(size_of::<T>());
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize || start.addr().checked_add(bytes).is_none()) {
            return Err(Failure::new(ADIT_ERROR_INVALID_SIZE));
        }
        // SAFETY: the caller promised `count` readable values there that nobody writes to; they are aligned, every
        // pattern of bits is a value, and the length is one that an object can have. The slice lives no longer than the
        // promise.
        Ok(unsafe { std::slice::from_raw_parts(start, count) })
    }

    /// A text with its length; NULL is an error even if the length is 0.
    pub(crate) fn text(&self, start: *const c_char, length: usize, longest: usize) -> Outcome<&str> {
        check(start)?;
        if length > longest {
            return Err(Failure::new(ADIT_ERROR_TOO_LARGE));
        }
        let bytes = self.array(start.cast::<u8>(), length)?;
        std::str::from_utf8(bytes).map_err(|_| Failure::new(ADIT_ERROR_INVALID_UTF8))
    }

    /// A text that ends with a NUL and has no more than `longest` bytes before it, or `None` for NULL.
    pub(crate) fn terminated(&self, start: *const c_char, longest: usize) -> Outcome<Option<&str>> {
        if start.is_null() {
            return Ok(None);
        }
        // SAFETY: the caller promised a text that ends with a NUL; no byte after that, and none after the longest that is
        // allowed, is looked at.
        let length = unsafe { libc::strnlen(start, longest + 1) };
        if length > longest {
            return Err(Failure::new(ADIT_ERROR_TOO_LARGE));
        }
        self.text(start, length, longest).map(Some)
    }

    /// Copies a struct that begins with its own size, as the caller knows it, into one of this version's size. Fields that
    /// the caller does not know are zero; fields that this version does not know have to be.
    ///
    /// `smallest` is the size of the struct's first version.
    pub(crate) fn sized<T: Plain + Default>(&self, place: *const T, smallest: usize) -> Outcome<T> {
        let size = self.size(place, smallest)?;
        let bytes = self.array(place.cast::<u8>(), size)?;
        let known = size.min(size_of::<T>());
        if bytes[known..].iter().any(|byte| *byte != 0) {
            return Err(Failure::new(ADIT_ERROR_INVALID_SIZE));
        }
        let mut value = T::default();
        // SAFETY: both have at least `known` bytes, one is ours alone, and every pattern of bits is a value.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut value).cast::<u8>(), known) };
        Ok(value)
    }

    /// A struct of the caller's that begins with its own size and is to be filled.
    pub(crate) fn sized_out<T: Plain>(&self, place: *mut T, smallest: usize) -> Outcome<SizedOut<'_, T>> {
        let size = self.size(place, smallest)?;
        Ok(SizedOut { out: self.out(place)?, size })
    }

    /// A place for a result, which must not be NULL.
    pub(crate) fn out<T>(&self, place: *mut T) -> Outcome<Out<'_, T>> {
        check(place)?;
        Ok(Out { place, call: PhantomData })
    }

    /// The size that a struct says to have in its first field.
    fn size<T>(&self, place: *const T, smallest: usize) -> Outcome<usize> {
        check(place)?;
        let size = self.read(place.cast::<usize>())?;
        // A struct's size is a multiple of its alignment, so no field is cut in two.
        let possible = (smallest..=LARGEST_STRUCT).contains(&size) && size % align_of::<T>() == 0;
        if possible { Ok(size) } else { Err(Failure::new(ADIT_ERROR_INVALID_SIZE)) }
    }
}

impl<T> Out<'_, T> {
    /// Writes the result; what was there before is not looked at.
    pub(crate) fn write(self, value: T) {
        // SAFETY: the caller promised a writable `T` there, and `out` has found it aligned and not NULL.
        unsafe { self.place.write(value) }
    }
}

impl<T> Out<'_, T>
where
    T: Plain,
{
    /// Overwrites the place with zeros in a way that is not optimised away.
    pub(crate) fn wipe(self)
    where
        T: zeroize::Zeroize,
    {
        // SAFETY: as in `write`; every pattern of bits is a value, so what is there is one.
        zeroize::Zeroize::zeroize(unsafe { &mut *self.place });
    }

    /// Takes the value that is there and puts another in its place.
    pub(crate) fn replace(self, value: T) -> T {
        // SAFETY: as in `wipe`.
        unsafe { self.place.replace(value) }
    }
}

/// A place for a struct of which the caller may know less, or more, than this version.
pub(crate) struct SizedOut<'call, T> {
    out: Out<'call, T>,
    size: usize,
}

impl<T: Plain> SizedOut<'_, T> {
    /// Writes what both know, except for the size, and zeros where the caller knows more.
    pub(crate) fn write(self, value: &T) {
        let start = size_of::<usize>();
        let known = self.size.min(size_of::<T>());
        let (from, to) = (std::ptr::from_ref(value).cast::<u8>(), self.out.place.cast::<u8>());
        // SAFETY: the caller promised `size` writable bytes; `value` has at least `known`, and neither is less than the
        // size that it begins with. The two do not overlap: one is ours.
        unsafe {
            std::ptr::copy_nonoverlapping(from.add(start), to.add(start), known - start);
            to.add(known).write_bytes(0, self.size - known);
        }
    }
}

/// Copies a text into memory of malloc's with a NUL behind it, or `None` if there is no memory.
pub(crate) fn allocate_text(text: &str) -> Option<*mut c_char> {
    let bytes = text.as_bytes();
    // SAFETY: malloc has no preconditions.
    let start = unsafe { libc::malloc(bytes.len() + 1) }.cast::<u8>();
    if start.is_null() {
        return None;
    }
    // SAFETY: there are `len + 1` bytes at `start`, which nobody else knows yet.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len());
        start.add(bytes.len()).write(0);
    }
    Some(start.cast())
}

/// Gives back what [`allocate_text`] allocated.
///
/// # Safety
/// `start` is NULL or came from [`allocate_text`], and was not freed since.
pub(crate) unsafe fn free_text(start: *mut c_char) {
    // SAFETY: as the caller says; free takes NULL too.
    unsafe { libc::free(start.cast()) }
}

/// A second number for the open file of a descriptor.
///
/// # Errors
/// If there is no such descriptor, or too many are open.
pub(crate) fn duplicate(fd: i32) -> Result<i32, ()> {
    // SAFETY: the call takes three integers and touches no memory; it fails if there is no such descriptor.
    let duplicate = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if duplicate < 0 { Err(()) } else { Ok(duplicate) }
}

/// Closes a descriptor that was given to us. If somebody else has closed it before, nothing happens.
pub(crate) fn close(fd: i32) {
    // SAFETY: the caller gave the descriptor away, or it is our own; nothing in here holds the number any more.
    let _closed = unsafe { libc::close(fd) };
}

/// A text for the host's eyes, which ends at the first NUL.
pub(crate) fn without_nul(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

fn check<T>(place: *const T) -> Outcome {
    if place.is_null() {
        return Err(Failure::new(ADIT_ERROR_NULL_POINTER));
    }
    if !place.is_aligned() {
        return Err(Failure::new(ADIT_ERROR_INVALID_ARGUMENT));
    }
    Ok(())
}

/// No struct of the ABI will ever be larger; a size above it is memory that was not set.
const LARGEST_STRUCT: usize = 4096;
