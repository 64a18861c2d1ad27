//! From a [`Profile`] to the classic BPF program that decides it.
//!
//! A call of another architecture kills the process, unless it is one that the profile lists, and that it is compiled
//! for ([`compile_listed`]): that one's calls are found in the same way, by their own numbers. Then the program searches the call's number in a
//! balanced tree of ranges with the same decision, and only where a rule compares arguments does it look at
//! them: a call that is allowed whatever its arguments is decided by architecture and number alone, so the
//! kernel (5.11) finds it in its bitmap of constant actions and never runs the program.
//!
//! The rules of one call are read like this:
//! - those with conditions come first, in the file's order; the first whose conditions all hold decides;
//! - then the first without conditions, then the default action;
//! - a rule that compares one argument twice stands for one rule per condition, as in runc and crun.
//!
//! Where the default action is an errno, numbers above the highest that the profile knows get ENOSYS, as
//! with runc: a C library takes that, and only that, as "use the older call". x32 calls, which share
//! x86_64's architecture, are the numbers from 2^30; they kill the process where x32 is not listed. -1 is a number
//! like any unknown one: a tracer writes it to skip a call.
//!
//! On i386 the calls for sockets and System V's objects have a second way in, through one call for all of them. Where
//! a profile does not name that itself, a rule for one of them holds there, too, as with libseccomp; but a rule with
//! conditions, whose arguments are in memory there, only if it refuses: what cannot be seen is not allowed by it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use super::{
    bpf::{self, Assembler, Insn, Label, Test},
    names::{Arch, X32_BIT, exists_anywhere, multiplexed},
    profile::{Action, Condition, Op, Profile, SeccompError, Target},
};

/// BPF_MAXINSNS of linux/bpf_common.h.
const MAX_INSTRUCTIONS: usize = 4096;
const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    arch: Arch,
    flags: u32,
    quiet: Cow<'static, [Insn]>,
    reporting: Option<Cow<'static, [Insn]>>,
}

impl Filter {
    /// A filter compiled earlier.
    #[must_use]
    pub const fn fixed(arch: Arch, flags: u32, quiet: &'static [Insn], reporting: Option<&'static [Insn]>) -> Self {
        let reporting = match reporting {
            Some(program) => Some(Cow::Borrowed(program)),
            None => None,
        };
        Self { arch, flags, quiet: Cow::Borrowed(quiet), reporting }
    }

    /// `SECCOMP_FILTER_FLAG_*` that the profile asks for.
    #[must_use]
    pub const fn flags(&self) -> u32 {
        self.flags
    }

    /// The program as the profile says.
    #[must_use]
    pub fn quiet(&self) -> &[Insn] {
        &self.quiet
    }

    /// The program for a supervisor: every errno but ENOSYS becomes a notification, which it answers with
    /// [`Filter::errno`]. What is allowed costs the same. `None` if the profile notifies a listener of its own.
    #[must_use]
    pub fn reporting(&self) -> Option<&[Insn]> {
        self.reporting.as_deref()
    }

    /// What becomes of a call of the filter's architecture.
    #[must_use]
    pub fn decide(&self, number: u32, args: &[u64; 6]) -> Action {
        self.decide_of(self.arch, number, args)
    }

    /// What becomes of a call of any architecture.
    #[must_use]
    pub fn decide_of(&self, arch: Arch, number: u32, args: &[u64; 6]) -> Action {
        bpf::run(&self.quiet, arch.audit(), number, args).map_or(Action::KillProcess, Action::from_code)
    }

    /// The errno to answer a notification of the reporting program with.
    #[must_use]
    pub fn errno(&self, number: u32, args: &[u64; 6]) -> u16 {
        match self.decide(number, args) {
            Action::Errno(errno) => errno,
            // Nothing else is ever notified; refuse all the same.
            _ => EPERM,
        }
    }
}

/// Compiles `profile` for `target`.
///
/// A rule that allows a call which `target` doesn't have says nothing, as with libseccomp. A rule that
/// refuses one is an error unless another architecture has it: a typo there would let the call through.
pub fn compile(profile: &Profile, target: Target) -> Result<Filter, SeccompError> {
    filter(target, profile, program(profile, target)?)
}

/// As [`compile`], with the rules of the other architectures that `profile` lists and that `target`'s kernel has.
pub fn compile_listed(profile: &Profile, target: Target) -> Result<Filter, SeccompError> {
    let listed = |name: &str| profile.architectures.iter().any(|listed| listed == name);
    let others = target.arch.others().iter().filter(|(name, _)| listed(name));
    let others: Vec<Arch> = others.map(|(_, arch)| *arch).collect();
    filter(target, profile, program_of(profile, target, &others)?)
}

fn filter(target: Target, profile: &Profile, quiet: Vec<Insn>) -> Result<Filter, SeccompError> {
    if quiet.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong(quiet.len()));
    }
    let reporting = reporting(&quiet).map(Cow::Owned);
    Ok(Filter { arch: target.arch, flags: profile.flags, quiet: Cow::Owned(quiet), reporting })
}

/// The program, of whatever length.
pub(super) fn program(profile: &Profile, target: Target) -> Result<Vec<Insn>, SeccompError> {
    program_of(profile, target, &[])
}

fn program_of(profile: &Profile, target: Target, others: &[Arch]) -> Result<Vec<Insn>, SeccompError> {
    let mut sections = vec![(target.arch, ranges(profile, target, others)?)];
    // x32 is a part of x86_64's.
    for &arch in others.iter().filter(|arch| arch.audit() != target.arch.audit()) {
        sections.push((arch, ranges(profile, Target { arch, ..target }, &[])?));
    }
    Ok(assemble(&sections))
}

fn reporting(quiet: &[Insn]) -> Option<Vec<Insn>> {
    let report = |insn: &Insn| match (insn.code, Action::from_code(insn.k)) {
        (bpf::RETURN, Action::Notify) => None,
        (bpf::RETURN, Action::Errno(errno)) if errno != ENOSYS => Some(Insn { k: Action::Notify.code(), ..*insn }),
        _ => Some(*insn),
    };
    quiet.iter().map(report).collect()
}

/// What becomes of one call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Decision {
    tests: Vec<(Vec<Condition>, Action)>,
    otherwise: Action,
}

impl Decision {
    fn always(action: Action) -> Self {
        Self { tests: Vec::new(), otherwise: action }
    }
}

/// The rules of one call as they are gathered.
#[derive(Default)]
struct Gathered {
    tests: Vec<(Vec<Condition>, Action)>,
    otherwise: Option<Action>,
}

impl Gathered {
    fn add(&mut self, conditions: &[Condition], action: Action) {
        if conditions.is_empty() {
            self.otherwise.get_or_insert(action);
        } else if compares_twice(conditions) {
            self.tests.extend(conditions.iter().map(|&condition| (vec![condition], action)));
        } else {
            self.tests.push((conditions.to_vec(), action));
        }
    }

    fn decide(mut self, default: Action) -> Decision {
        let otherwise = self.otherwise.unwrap_or(default);
        // Last tests that end where their failure ends decide nothing; without them more calls are constant.
        while self.tests.last().is_some_and(|(_, action)| *action == otherwise) {
            self.tests.pop();
        }
        Decision { tests: self.tests, otherwise }
    }
}

fn compares_twice(conditions: &[Condition]) -> bool {
    let seen = conditions.iter().fold([0u32; 6], |mut seen, condition| {
        seen[usize::from(condition.index)] += 1;
        seen
    });
    seen.iter().any(|&times| times > 1)
}

/// All numbers from 0 to 2^32-1, in ranges given by their first number, neighbours differing.
fn ranges(profile: &Profile, target: Target, others: &[Arch]) -> Result<Vec<(u32, Decision)>, SeccompError> {
    let mut ranges = Ranges(Vec::new());
    let unknown = ranges.fill(0, gather(profile, target)?, profile.default);
    if target.arch == Arch::X86_64 {
        if others.contains(&Arch::X32) {
            ranges.fill(X32_BIT, gather(profile, Target { arch: Arch::X32, ..target })?, profile.default);
        } else {
            ranges.start(X32_BIT, Decision::always(Action::KillProcess));
        }
        ranges.start(u32::MAX, Decision::always(unknown));
    }
    Ok(ranges.0)
}

struct Ranges(Vec<(u32, Decision)>);

impl Ranges {
    /// From `first` on, the calls of one architecture. Returns what becomes of those after the last.
    fn fill(&mut self, first: u32, calls: BTreeMap<u32, Gathered>, default: Action) -> Action {
        let unknown = match (default, calls.is_empty()) {
            (Action::Errno(_), false) => Action::Errno(ENOSYS),
            (default, _) => default,
        };
        self.start(first, Decision::always(default));
        let mut end = first;
        for (number, gathered) in calls {
            if number > end {
                self.start(end, Decision::always(default));
            }
            self.start(number, gathered.decide(default));
            end = number + 1;
        }
        if end > first {
            self.start(end, Decision::always(unknown));
        }
        unknown
    }

    /// From `first` on, `decision` holds.
    fn start(&mut self, first: u32, decision: Decision) {
        self.0.pop_if(|last| last.0 == first);
        if self.0.last().is_none_or(|last| last.1 != decision) {
            self.0.push((first, decision));
        }
    }
}

fn gather(profile: &Profile, target: Target) -> Result<BTreeMap<u32, Gathered>, SeccompError> {
    let arch = target.arch;
    let mut calls: BTreeMap<u32, Gathered> = BTreeMap::new();
    let named = |call: &str| profile.rules.iter().any(|rule| rule.names.iter().any(|name| name == call));
    let shared =
        ["socketcall", "ipc"].map(|call| (call, arch.number(call).filter(|_| arch == Arch::X86 && !named(call))));
    // As of the calls themselves: what had conditions comes first.
    let mut seconds: [Vec<(u32, Condition, Action)>; 2] = [Vec::new(), Vec::new()];
    for (at, rule) in profile.rules.iter().enumerate() {
        let applies = rule.applies_to(target);
        let conditions = rule.conditions_of(arch);
        for name in &rule.names {
            let mut known = false;
            for number in arch.numbers(name) {
                known = true;
                if applies {
                    calls.entry(number).or_default().add(&conditions, rule.action);
                }
            }
            if !known && !rule.action.permits() && !exists_anywhere(name) {
                return Err(SeccompError::UnknownCall { rule: at + 1, name: name.clone() });
            }
            let seen = conditions.is_empty() || !rule.action.permits();
            if arch == Arch::X86
                && applies
                && seen
                && let Some((call, which)) = multiplexed(name)
                && let Some((_, Some(number))) = shared.iter().find(|(known, _)| *known == call)
            {
                // ipc(2) has a version in the upper half of its first argument.
                let condition = Condition { index: 0, op: Op::MaskedEq { mask: 0xffff }, value: which };
                seconds[usize::from(conditions.is_empty())].push((*number, condition, rule.action));
            }
        }
    }
    for (number, condition, action) in seconds.into_iter().flatten() {
        calls.entry(number).or_default().add(&[condition], action);
    }
    Ok(calls)
}

/// The first of `sections` is decided first.
fn assemble(sections: &[(Arch, Vec<(u32, Decision)>)]) -> Vec<Insn> {
    let mut assembler = Assembler::default();
    let mut next = assembler.ret(Action::KillProcess.code());
    for (arch, ranges) in sections.iter().rev() {
        let search = search(&mut assembler, &mut HashMap::new(), *arch, ranges);
        let search = assembler.load(bpf::NUMBER, search);
        next = assembler.branch(Test::Eq, arch.audit(), search, next);
    }
    let entry = assembler.load(bpf::ARCH, next);
    assembler.finish(entry)
}

fn search<'a>(
    assembler: &mut Assembler,
    written: &mut HashMap<&'a Decision, Label>,
    arch: Arch,
    ranges: &'a [(u32, Decision)],
) -> Label {
    if let [(_, decision)] = ranges {
        if let Some(&label) = written.get(decision) {
            return label;
        }
        let label = decide(assembler, arch, decision);
        if !decision.tests.is_empty() {
            written.insert(decision, label);
        }
        return label;
    }
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let yes = search(assembler, written, arch, above);
    let no = search(assembler, written, arch, below);
    assembler.branch(Test::Ge, above[0].0, yes, no)
}

fn decide(assembler: &mut Assembler, arch: Arch, decision: &Decision) -> Label {
    let mut next = assembler.ret(decision.otherwise.code());
    for (conditions, action) in decision.tests.iter().rev() {
        let mut holds = assembler.ret(action.code());
        for condition in conditions.iter().rev() {
            holds = compare(assembler, arch, *condition, holds, next);
        }
        next = holds;
    }
    next
}

/// A comparison of 64 bits, as two of 32. libseccomp's reading: unsigned.
///
/// Of a short argument only the lower half is looked at: a program of 64 bits that makes a call of i386's may have put
/// anything into the upper one, which the kernel shows to the filter, and then does not read.
fn compare(assembler: &mut Assembler, arch: Arch, condition: Condition, yes: Label, no: Label) -> Label {
    let Condition { index, op, value } = condition;
    let short = arch.has_short_arguments();
    let equals = |assembler: &mut Assembler, mask: u64, yes, no| {
        let rest = masked_word(assembler, bpf::low(index), mask as u32, value as u32, yes, no);
        if short {
            return rest;
        }
        masked_word(assembler, bpf::high(index), (mask >> 32) as u32, (value >> 32) as u32, rest, no)
    };
    let exceeds = |assembler: &mut Assembler, test, yes, no| {
        let rest = assembler.branch(test, value as u32, yes, no);
        let rest = assembler.load(bpf::low(index), rest);
        if short {
            return rest;
        }
        let high = assembler.branch(Test::Eq, (value >> 32) as u32, rest, no);
        let high = assembler.branch(Test::Gt, (value >> 32) as u32, yes, high);
        assembler.load(bpf::high(index), high)
    };
    match op {
        Op::Eq => equals(assembler, u64::MAX, yes, no),
        Op::Ne => equals(assembler, u64::MAX, no, yes),
        Op::MaskedEq { mask } => equals(assembler, mask, yes, no),
        Op::Gt => exceeds(assembler, Test::Gt, yes, no),
        Op::Le => exceeds(assembler, Test::Gt, no, yes),
        Op::Ge => exceeds(assembler, Test::Ge, yes, no),
        Op::Lt => exceeds(assembler, Test::Ge, no, yes),
    }
}

/// `word & mask == value` for the word at `offset`; `value` has no bit outside `mask`.
fn masked_word(assembler: &mut Assembler, offset: u32, mask: u32, value: u32, yes: Label, no: Label) -> Label {
    let test = match (mask, value) {
        (0, _) => return yes,
        (_, 0) => assembler.branch(Test::Any, mask, no, yes),
        (u32::MAX, _) => assembler.branch(Test::Eq, value, yes, no),
        _ => {
            let test = assembler.branch(Test::Eq, value, yes, no);
            assembler.and(mask, test)
        }
    };
    assembler.load(offset, test)
}
