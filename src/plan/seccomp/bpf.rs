//! Classic BPF: the instruction, an assembler that writes programs backwards, and an interpreter.
//!
//! Classic BPF only jumps forward, so a program written from its end knows every target when it writes a
//! jump. Conditional jumps reach 255 instructions: what is farther gets a stepping stone right behind the
//! jump, a copy of the target where that is a `return`, else an unconditional jump, which reaches 2^32.
//! [bpf(4), networking/filter.rst]

use std::collections::HashMap;

/// `struct sock_filter` of linux/filter.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

impl Insn {
    #[must_use]
    pub const fn new(code: u16, jt: u8, jf: u8, k: u32) -> Self {
        Self { code, jt, jf, k }
    }
}

/// Load the word at byte `k` of `struct seccomp_data`.
pub(super) const LOAD: u16 = 0x20;
/// `accumulator &= k`
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const RETURN: u16 = 0x06;

/// A conditional jump's test of the accumulator against `k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Test {
    Eq = 0x15,
    Gt = 0x25,
    Ge = 0x35,
    /// Any bit of `k` is set.
    Any = 0x45,
}

/// Offsets in `struct seccomp_data` of linux/seccomp.h.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;

/// Both architectures are little-endian, so an argument's low word is its first.
#[must_use]
pub(super) const fn low(argument: u8) -> u32 {
    16 + 8 * argument as u32
}

#[must_use]
pub(super) const fn high(argument: u8) -> u32 {
    low(argument) + 4
}

/// An instruction already written, counted from the program's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program being written from its end to its start.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    backwards: Vec<Insn>,
    /// The latest `return` of each value.
    returns: HashMap<u32, Label>,
}

impl Assembler {
    /// A `return` of `value`, written only if there is none yet.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        match self.returns.get(&value) {
            Some(&label) => label,
            None => self.write_return(value),
        }
    }

    /// Runs `target` after loading the word at `offset`.
    pub(super) fn load(&mut self, offset: u32, target: Label) -> Label {
        self.fall_into(target);
        self.write(Insn::new(LOAD, 0, 0, offset))
    }

    /// Runs `target` after masking the accumulator.
    pub(super) fn and(&mut self, mask: u32, target: Label) -> Label {
        self.fall_into(target);
        self.write(Insn::new(AND, 0, 0, mask))
    }

    /// Runs `yes` or `no`.
    pub(super) fn branch(&mut self, test: Test, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let yes = self.within_reach(yes);
        let no = self.within_reach(no);
        // A stone for `no` may have put `yes` out of reach by one; a stone for `yes` then leaves the new `no` near.
        let yes = self.within_reach(yes);
        let (jt, jf) = (self.distance(yes), self.distance(no));
        self.write(Insn::new(test as u16, jt as u8, jf as u8, k))
    }

    /// The program that starts at `entry`.
    #[must_use]
    pub(super) fn finish(mut self, entry: Label) -> Vec<Insn> {
        self.fall_into(entry);
        self.backwards.reverse();
        self.backwards
    }

    /// Makes `target` what follows the instruction written next.
    fn fall_into(&mut self, target: Label) {
        if self.distance(target) > 0 {
            self.stone(target);
        }
    }

    fn within_reach(&mut self, target: Label) -> Label {
        if self.distance(target) > usize::from(u8::MAX) { self.stone(target) } else { target }
    }

    fn stone(&mut self, target: Label) -> Label {
        let Insn { code, k, .. } = self.backwards[target.0];
        if code == RETURN {
            return self.write_return(k);
        }
        let distance = self.distance(target) as u32;
        self.write(Insn::new(JUMP, 0, 0, distance))
    }

    /// Instructions between `target` and the one written next.
    fn distance(&self, target: Label) -> usize {
        self.backwards.len() - target.0 - 1
    }

    fn write_return(&mut self, value: u32) -> Label {
        let label = self.write(Insn::new(RETURN, 0, 0, value));
        self.returns.insert(value, label);
        label
    }

    fn write(&mut self, insn: Insn) -> Label {
        self.backwards.push(insn);
        Label(self.backwards.len() - 1)
    }
}

/// What `program` returns for a call, or `None` if it is no program that this assembler writes.
#[must_use]
pub(super) fn run(program: &[Insn], arch: u32, number: u32, args: &[u64; 6]) -> Option<u32> {
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let Insn { code, jt, jf, k } = *program.get(at)?;
        at += 1;
        let skip = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            LOAD => accumulator = word(arch, number, args, k)?,
            AND => accumulator &= k,
            JUMP => at += k as usize,
            RETURN => return Some(k),
            code if code == Test::Eq as u16 => at += skip(accumulator == k),
            code if code == Test::Gt as u16 => at += skip(accumulator > k),
            code if code == Test::Ge as u16 => at += skip(accumulator >= k),
            code if code == Test::Any as u16 => at += skip(accumulator & k != 0),
            _ => return None,
        }
    }
}

/// The word at byte `offset` of the `struct seccomp_data` for a call.
fn word(arch: u32, number: u32, args: &[u64; 6], offset: u32) -> Option<u32> {
    match offset {
        NUMBER => Some(number),
        ARCH => Some(arch),
        _ => {
            let argument = args.get(offset.checked_sub(16)? as usize / 8)?;
            match offset % 8 {
                0 => Some(*argument as u32),
                4 => Some((argument >> 32) as u32),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGS: [u64; 6] = [0x1111_2222_3333_4444, 1, 2, 3, 4, 5];

    #[test]
    fn loads_see_the_kernels_structure() {
        for (offset, expected) in [
            (NUMBER, Some(7)),
            (ARCH, Some(9)),
            (low(0), Some(0x3333_4444)),
            (high(0), Some(0x1111_2222)),
            (low(5), Some(5)),
            (high(5), Some(0)),
            (8, None),
            (18, None),
            (64, None),
        ] {
            assert_eq!(word(9, 7, &ARGS, offset), expected, "{offset}");
        }
    }

    #[test]
    fn far_targets_get_stepping_stones() {
        // Two different ends, `padding` instructions in front of them, then a jump to each.
        for padding in 250..260 {
            for far_is_return in [true, false] {
                let mut assembler = Assembler::default();
                let end = assembler.ret(1);
                let far = if far_is_return { end } else { assembler.load(NUMBER, end) };
                let other = assembler.ret(2);
                let mut near = other;
                for _ in 0..padding {
                    near = assembler.load(NUMBER, near);
                }
                let both = assembler.branch(Test::Eq, 5, far, other);
                let entry = assembler.load(NUMBER, both);
                let program = assembler.finish(entry);
                assert_eq!(run(&program, 0, 5, &ARGS), Some(1), "{padding}");
                assert_eq!(run(&program, 0, 6, &ARGS), Some(2), "{padding}");
            }
        }
    }

    #[test]
    fn what_is_no_program_ends() {
        assert_eq!(run(&[], 0, 0, &ARGS), None);
        assert_eq!(run(&[Insn::new(LOAD, 0, 0, 0)], 0, 0, &ARGS), None);
        assert_eq!(run(&[Insn::new(JUMP, 0, 0, u32::MAX)], 0, 0, &ARGS), None);
        assert_eq!(run(&[Insn::new(0xffff, 0, 0, 0)], 0, 0, &ARGS), None);
    }
}
