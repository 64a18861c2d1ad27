//! Memory that a process and a child that it clones later have both.
//!
//! The parent writes, and tells the child, which reads: whoever uses it sees to it that they take turns.

use std::ptr::NonNull;

use super::{Result, check};

/// Whole pages, of which only those that are written to are memory. Never seen by a program that the child executes.
#[derive(Debug)]
pub struct Shared {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: it is plain memory that is owned by this value.
unsafe impl Send for Shared {}
// SAFETY: `&self` only reads.
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(size: usize) -> Result<Self> {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: a new mapping wherever the kernel likes.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), size, access, kind, -1, 0) };
        check(if base == libc::MAP_FAILED { -1 } else { 0 })?;
        let base = NonNull::new(base.cast()).ok_or(super::Errno::ENOMEM)?;
        Ok(Self { base, size })
    }

    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// From now on, children of this process do not have it: those that have it keep it.
    pub fn keep_to_these(&self) -> Result<()> {
        // SAFETY: the mapping is ours; what is in it stays as it is.
        check(unsafe { libc::madvise(self.base.as_ptr().cast(), self.size, libc::MADV_DONTFORK) }.into()).map(drop)
    }

    /// Puts `bytes` at the beginning; false, and nothing, if they are too many.
    #[must_use]
    pub fn put(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.size {
            return false;
        }
        // SAFETY: there is room, and they do not overlap with what nobody else refers to.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr(), bytes.len()) };
        true
    }

    /// The first `length` bytes, in the child: the parent must not put others there meanwhile.
    #[must_use]
    pub fn bytes(&self, length: usize) -> &[u8] {
        // SAFETY: within the mapping; every byte of it is initialised, to zero at first.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), length.min(self.size)) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nobody refers to it any more. It cannot fail for what was mapped.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.size) };
    }
}

#[cfg(test)]
mod tests {
    use super::{super::clone, *};

    #[test]
    fn a_child_sees_what_is_put_there_later() {
        let mut shared = Shared::new(1 << 30).unwrap();
        let (read, write) = super::super::fs::pipe().unwrap();
        use std::os::fd::AsFd;
        let clone::Cloned::Parent { pid, .. } = clone::clone_process(0, None).unwrap() else {
            let heard = super::super::fs::read(read.as_fd(), &mut [0]) == Ok(1);
            super::super::process::exit_now(i32::from(!(heard && shared.bytes(5) == b"later")));
        };
        shared.keep_to_these().unwrap();
        assert!(shared.put(b"later"));
        super::super::fs::write_all(write.as_fd(), b"x").unwrap();
        assert_eq!(super::super::process::wait(pid, true).unwrap().unwrap().status, 0);
        let mut small = Shared::new(4096).unwrap();
        assert!(!small.put(&[1; 4097]) && small.put(&[1; 4096]));
        assert_eq!(small.bytes(9000), [1; 4096]);
    }
}
