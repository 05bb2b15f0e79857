//! Processes as macOS's proc_pidinfo(3) and sysctl(3) show them.

use std::ffi::CStr;

use nix::libc;

use super::Process;

pub(super) fn process(pid: u32) -> Option<Process> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    let mut told = std::mem::MaybeUninit::<libc::proc_bsdinfo>::zeroed();
    let size = libc::c_int::try_from(size_of::<libc::proc_bsdinfo>()).ok()?;
    // SAFETY: the kernel writes at most as many bytes as are said, which is what there is room for.
    let written = unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDTBSDINFO, 0, told.as_mut_ptr().cast(), size) };
    if written != size {
        return None;
    }
    // SAFETY: it was all zeros, which is a value of a structure of numbers, before the kernel wrote all of it.
    let told = unsafe { told.assume_init() };
    let start_time = told.pbi_start_tvsec.checked_mul(1_000_000)?.checked_add(told.pbi_start_tvusec)?;
    Some(Process { running: told.pbi_status != libc::SZOMB, start_time })
}

pub(super) fn boot_id() -> Option<String> {
    // A UUID in text takes 37 bytes.
    let mut text = [0u8; 64];
    let mut length = text.len();
    let name = c"kern.bootsessionuuid";
    // SAFETY: the name ends with a zero; the kernel writes at most `length` bytes, for which there is room.
    let result = unsafe {
        libc::sysctlbyname(name.as_ptr(), text.as_mut_ptr().cast(), &raw mut length, std::ptr::null_mut(), 0)
    };
    let text = CStr::from_bytes_until_nul(&text).ok().filter(|_| result == 0)?;
    text.to_str().ok().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// There is one network only.
pub(super) fn network_namespace() -> Option<u64> {
    None
}
