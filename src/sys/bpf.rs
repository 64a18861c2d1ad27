//! Programs that decide which devices a cgroup's processes may use (bpf(2), `BPF_PROG_TYPE_CGROUP_DEVICE`).
//! There is no libbpf and no crate in this: five calls, and attributes of a few numbers.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, Result, check};

/// One instruction, as the kernel reads it (`struct bpf_insn`, kernel `bpf/standardization/instruction-set.rst`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u8,
    /// The destination in the low half, the source in the high half.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const CGROUP_DEVICE_PROGRAM: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

/// What a call gets: all of `union bpf_attr`, since kernels 6.17 to 7.1 write to the end of what a query may have,
/// however little was handed to them.
#[repr(C, align(8))]
struct Attributes([u32; 48]);

impl Attributes {
    fn new(words: &[u32]) -> Self {
        let mut all = [0; 48];
        all[..words.len()].copy_from_slice(words);
        Self(all)
    }
}

fn call(command: libc::c_int, attributes: &mut Attributes, used: usize) -> Result<i32> {
    // The verifier may be interrupted by a signal, and says so.
    for _ in 0..30 {
        // SAFETY: the attributes are valid for `used` bytes and more; what they point to is, by the callers below.
        let result = check(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, used) });
        if result != Err(Errno::EAGAIN) {
            return result.map(|value| value as i32);
        }
    }
    Err(Errno::EAGAIN)
}

fn halves<T>(pointer: *const T) -> [u32; 2] {
    let bits = pointer as u64;
    if cfg!(target_endian = "little") { [bits as u32, (bits >> 32) as u32] } else { [(bits >> 32) as u32, bits as u32] }
}

/// Hands the program to the verifier.
pub fn load_device_program(program: &[Instruction]) -> Result<OwnedFd> {
    const LICENSE: &std::ffi::CStr = c"Apache";
    let count = u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let ([low, high], [license_low, license_high]) = (halves(program.as_ptr()), halves(LICENSE.as_ptr()));
    let mut attributes = Attributes::new(&[CGROUP_DEVICE_PROGRAM, count, low, high, license_low, license_high]);
    let fd = call(PROG_LOAD, &mut attributes, 48)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The device programs of this cgroup itself, as ids.
pub fn device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>> {
    // As many as a cgroup can have.
    let mut ids = [0_u32; 64];
    let [low, high] = halves(ids.as_mut_ptr());
    let mut attributes = Attributes::new(&[cgroup.as_raw_fd() as u32, CGROUP_DEVICE, 0, 0, low, high, 64]);
    call(PROG_QUERY, &mut attributes, 64)?;
    let count = attributes.0[6] as usize;
    ids.get(..count).map(<[u32]>::to_vec).ok_or(Errno::ENOSPC)
}

pub fn open_program(id: u32) -> Result<OwnedFd> {
    let fd = call(PROG_GET_FD_BY_ID, &mut Attributes::new(&[id]), 12)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts the program in force, beside those that are, or in the place of one (Linux 5.6) without a moment between.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replace: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let flags = if replace.is_some() { ALLOW_MULTI | REPLACE } else { ALLOW_MULTI };
    let old = replace.map_or(0, |fd| fd.as_raw_fd() as u32);
    let words = [cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32, CGROUP_DEVICE, flags, old];
    call(PROG_ATTACH, &mut Attributes::new(&words), 20).map(drop)
}

pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let words = [cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32, CGROUP_DEVICE];
    call(PROG_DETACH, &mut Attributes::new(&words), 20).map(drop)
}
