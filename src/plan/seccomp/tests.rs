//! Programs against a naive reading of their profiles, call by call.

use std::collections::BTreeSet;

use super::{
    bpf,
    compile::program,
    profile::{Condition, Op, Rule},
    *,
};

const BOTH: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];
const NO_ARGS: [u64; 6] = [0; 6];
const EPERM: Action = Action::Errno(1);
const ENOSYS: Action = Action::Errno(38);

fn target(arch: Arch) -> Target {
    Target { arch, kernel: KernelVersion(6, 1) }
}

fn parse(json: &str) -> Profile {
    Profile::parse(json).expect(json)
}

fn filter(json: &str, arch: Arch) -> Filter {
    compile(&parse(json), target(arch)).expect(json)
}

fn allow_list(rules: &str) -> String {
    format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{rules}]}}"#)
}

fn holds(condition: &Condition, args: &[u64; 6]) -> bool {
    let (argument, value) = (args[usize::from(condition.index)], condition.value);
    match condition.op {
        Op::Ne => argument != value,
        Op::Lt => argument < value,
        Op::Le => argument <= value,
        Op::Eq => argument == value,
        Op::Ge => argument >= value,
        Op::Gt => argument > value,
        Op::MaskedEq { mask } => argument & mask == value,
    }
}

/// The profile read from top to bottom, one call at a time.
struct Naive<'a> {
    profile: &'a Profile,
    arch: Arch,
    highest: Option<u32>,
}

impl<'a> Naive<'a> {
    fn new(profile: &'a Profile, arch: Arch) -> Self {
        let rules = profile.rules.iter().filter(|rule| rule.applies_to(target(arch)));
        let highest = rules.flat_map(|rule| &rule.names).filter_map(|name| arch.number(name)).max();
        Self { profile, arch, highest }
    }

    fn rules(&self, number: u32) -> Vec<&'a Rule> {
        let Some(name) = self.arch.name(number) else { return Vec::new() };
        let names = |rule: &&Rule| rule.applies_to(target(self.arch)) && rule.names.iter().any(|n| n == name);
        self.profile.rules.iter().filter(names).collect()
    }

    fn decide(&self, number: u32, rules: &[&Rule], args: &[u64; 6]) -> Action {
        if self.arch == Arch::X86_64 && (0x4000_0000..u32::MAX).contains(&number) {
            return Action::KillProcess;
        }
        if matches!(self.profile.default, Action::Errno(_)) && self.highest.is_some_and(|highest| number > highest) {
            return ENOSYS;
        }
        for rule in rules.iter().filter(|rule| !rule.conditions.is_empty()) {
            let indices: BTreeSet<u8> = rule.conditions.iter().map(|condition| condition.index).collect();
            let mut results = rule.conditions.iter().map(|condition| holds(condition, args));
            let repeated = indices.len() < rule.conditions.len();
            if if repeated { results.any(|holds| holds) } else { results.all(|holds| holds) } {
                return rule.action;
            }
        }
        rules.iter().find(|rule| rule.conditions.is_empty()).map_or(self.profile.default, |rule| rule.action)
    }
}

/// Arguments at, beside and far from the edges of what `rules` compare, in all combinations.
fn edges(rules: &[&Rule]) -> Vec<[u64; 6]> {
    let mut calls = vec![NO_ARGS];
    for index in 0..6 {
        let mut values = BTreeSet::new();
        for condition in rules.iter().flat_map(|rule| &rule.conditions).filter(|c| c.index == index) {
            let v = condition.value;
            values.extend([
                0,
                v,
                v.wrapping_add(1),
                v.wrapping_sub(1),
                v ^ 1 << 32,
                v ^ 1 << 31,
                v ^ 1 << 63,
                u64::MAX,
            ]);
            if let Op::MaskedEq { mask } = condition.op {
                values.extend([v | !mask, v ^ mask, v ^ (mask & mask.wrapping_neg())]);
            }
        }
        if !values.is_empty() {
            calls = calls
                .iter()
                .flat_map(|call| {
                    values.iter().map(move |&value| {
                        let mut call = *call;
                        call[usize::from(index)] = value;
                        call
                    })
                })
                .collect();
        }
    }
    calls
}

fn numbers() -> impl Iterator<Item = u32> {
    let far = [1023, 0x3fff_ffff, 0x4000_0000, 0x4000_0001, 0x4000_0206, 0x7fff_ffff, 0x8000_0000, 0xc000_0000];
    (0..600).chain(far).chain([u32::MAX - 1, u32::MAX])
}

/// Runs every edge of every call; returns how many.
fn check_all(profile: &Profile, arch: Arch, quiet: &[Insn], reporting: Option<&[Insn]>) -> usize {
    let naive = Naive::new(profile, arch);
    let mut calls = 0;
    for number in numbers() {
        let rules = naive.rules(number);
        for args in edges(&rules) {
            let expected = naive.decide(number, &rules, &args);
            let run = |program| bpf::run(program, arch.audit(), number, &args).map(Action::from_code);
            assert_eq!(run(quiet), Some(expected), "{arch:?} {number} {args:x?}");
            if let Some(reporting) = reporting {
                let refused = matches!(expected, Action::Errno(errno) if errno != 38);
                let expected = if refused { Action::Notify } else { expected };
                assert_eq!(run(reporting), Some(expected), "{arch:?} {number} {args:x?}");
            }
            calls += 1;
        }
    }
    calls
}

#[test]
fn built_in_profiles_decide_as_they_read() {
    for builtin in &BUILTINS {
        for arch in BOTH {
            let filter = filter(builtin.json, arch);
            let calls = check_all(&parse(builtin.json), arch, filter.quiet(), filter.reporting());
            assert!(calls > 600, "{} {arch:?}: {calls}", builtin.name);
        }
    }
}

#[test]
fn built_in_filters_are_their_profiles_compiled() {
    for builtin in &BUILTINS {
        assert_eq!(builtin.filter, filter(builtin.json, Arch::NATIVE), "{}", builtin.name);
        assert!(!builtin.about.is_empty());
    }
}

#[test]
fn built_in_profiles_name_only_calls_that_exist() {
    for builtin in &BUILTINS {
        for name in parse(builtin.json).rules.iter().flat_map(|rule| &rule.names) {
            assert!(BOTH.iter().any(|arch| arch.number(name).is_some()), "{}: {name}", builtin.name);
        }
    }
}

#[test]
fn each_built_in_profile_allows_what_the_stricter_one_allows() {
    for arch in BOTH {
        for pair in BUILTINS.windows(2) {
            let profiles = [parse(pair[0].json), parse(pair[1].json)];
            let [stricter, wider] = [filter(pair[0].json, arch), filter(pair[1].json, arch)];
            for number in numbers() {
                let rules: Vec<_> = profiles.iter().flat_map(|p| Naive::new(p, arch).rules(number)).collect();
                for args in edges(&rules) {
                    let allowed = stricter.decide(number, &args).permits();
                    assert!(!allowed || wider.decide(number, &args).permits(), "{} {number} {args:x?}", pair[1].name);
                }
            }
        }
    }
}

#[test]
fn other_architectures_and_x32_kill_the_process() {
    let i386 = 0x4000_0003;
    for builtin in &BUILTINS {
        for arch in BOTH {
            let filter = filter(builtin.json, arch);
            for foreign in [i386, 0, u32::MAX, BOTH[usize::from(arch == BOTH[0])].audit()] {
                let kill = Some(Action::KillProcess.code());
                assert_eq!(bpf::run(filter.quiet(), foreign, 0, &NO_ARGS), kill);
                assert_eq!(filter.reporting().map(|program| bpf::run(program, foreign, 0, &NO_ARGS)), Some(kill));
            }
        }
        let filter = filter(builtin.json, Arch::X86_64);
        for number in [0x4000_0000, 0x4000_0000 + 39, 0x4000_0000 + 520, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe] {
            assert_eq!(filter.decide(number, &NO_ARGS), Action::KillProcess, "{number:#x}");
        }
        assert_eq!(filter.decide(u32::MAX, &NO_ARGS), ENOSYS);
    }
}

/// The kernel's `seccomp_is_const_allow`: follows the program while it needs nothing but architecture and
/// number, and gives up at the first look at an argument.
fn constant(program: &[Insn], arch: Arch, number: u32) -> Option<Action> {
    let (mut at, mut accumulator) = (0usize, 0);
    loop {
        let insn = program[at];
        at += 1;
        let skip = |holds: bool| usize::from(if holds { insn.jt } else { insn.jf });
        match insn.code {
            0x20 if insn.k == 0 => accumulator = number,
            0x20 if insn.k == 4 => accumulator = arch.audit(),
            0x20 => return None,
            0x06 => return Some(Action::from_code(insn.k)),
            0x05 => at += insn.k as usize,
            0x15 => at += skip(accumulator == insn.k),
            0x35 => at += skip(accumulator >= insn.k),
            code => panic!("{code:#x} where only the number is decided"),
        }
    }
}

#[test]
fn what_is_always_allowed_is_decided_by_number_alone() {
    for builtin in &BUILTINS {
        for arch in BOTH {
            let (profile, filter) = (parse(builtin.json), filter(builtin.json, arch));
            let naive = Naive::new(&profile, arch);
            let mut count = 0;
            for number in 0..600 {
                let rules = naive.rules(number);
                if rules.iter().all(|rule| rule.conditions.is_empty()) {
                    let expected = naive.decide(number, &rules, &NO_ARGS);
                    assert_eq!(constant(filter.quiet(), arch, number), Some(expected));
                    let reporting = filter.reporting().expect("built in");
                    assert_eq!(constant(reporting, arch, number) == Some(Action::Allow), expected == Action::Allow);
                    count += usize::from(expected == Action::Allow);
                }
            }
            assert!(count > 150, "{} {arch:?}: {count}", builtin.name);
        }
    }
}

/// The default profile's decision for a call by name.
fn default_decides(name: &str, args: &[u64]) -> Action {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    filter(BUILTINS[1].json, Arch::X86_64).decide(Arch::X86_64.number(name).expect(name), &all)
}

#[test]
fn the_default_refuses_the_ways_out() {
    let refused = "acct add_key bpf chroot clock_settime create_module delete_module fanotify_init finit_module \
        fsconfig fsmount fsopen fspick init_module ioperm iopl kcmp kexec_file_load kexec_load keyctl \
        lookup_dcookie modify_ldt mount mount_setattr move_mount name_to_handle_at nfsservctl open_by_handle_at \
        open_tree open_tree_attr perf_event_open pidfd_getfd pivot_root process_vm_readv process_vm_writev ptrace \
        query_module quotactl quotactl_fd reboot request_key setdomainname sethostname setns settimeofday swapoff \
        swapon sysfs syslog _sysctl umount2 unshare uselib userfaultfd ustat vhangup";
    for name in refused.split_whitespace() {
        assert_eq!(default_decides(name, &[]), EPERM, "{name}");
    }
    for name in ["clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "mbind", "set_mempolicy"] {
        assert_eq!(default_decides(name, &[]), ENOSYS, "{name}");
    }
}

#[test]
fn the_default_looks_at_the_bits_that_the_kernel_reads() {
    const HIGH: u64 = 1 << 32;
    let (allow, no_family, no_protocol) = (Action::Allow, Action::Errno(97), Action::Errno(93));
    let flags = 0o2000000 | 0o4000; // SOCK_CLOEXEC | SOCK_NONBLOCK
    let cases: &[(&str, &[u64], Action)] = &[
        ("socket", &[1, 1 | flags, 0], allow),
        ("socket", &[1, 5, 0], allow),
        ("socket", &[2, 1 | flags, 6], allow),
        ("socket", &[10, 2, 17], allow),
        ("socket", &[HIGH | 2, HIGH | 1, HIGH], allow),
        ("socket", &[16, 3, 0], allow),
        ("socket", &[2, 3 | flags, 0], EPERM),
        ("socket", &[HIGH | 2, HIGH | 3, 1], EPERM),
        ("socket", &[2, 2, 1], no_protocol),
        ("socket", &[2, 1, 132], no_protocol),
        ("socket", &[2, 1, 262], no_protocol),
        ("socket", &[16, 3, 9], no_family),
        ("socket", &[17, 3, 0], no_family),
        ("socket", &[38, 5, 0], no_family),
        ("socket", &[HIGH | 40, 1, 0], no_family),
        ("socketpair", &[1, 1, 0], allow),
        ("socketpair", &[2, 1, 0], no_family),
        ("ioctl", &[0, 0x5401], allow),
        ("ioctl", &[0, 0x5412], EPERM),
        ("ioctl", &[0, HIGH | 0x5412], EPERM),
        ("ioctl", &[0, 0xffff_ffff_0000_541c], EPERM),
        ("clone", &[0x003d_0f00], allow),
        ("clone", &[0x1000_0000], EPERM),
        ("clone", &[HIGH | 0x0002_0011], EPERM),
        ("seccomp", &[1, 0], allow),
        ("seccomp", &[1, 8], EPERM),
        ("seccomp", &[1, HIGH | 9], EPERM),
        ("personality", &[0xffff_ffff], allow),
        ("personality", &[0x0004_0000], EPERM),
        ("personality", &[0x0040_0000], EPERM),
    ];
    for (name, args, expected) in cases {
        assert_eq!(default_decides(name, args), *expected, "{name} {args:x?}");
    }
}

/// Deterministic noise (splitmix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn value(&mut self) -> u64 {
        match self.below(4) {
            0 => self.next() & 0xff,
            1 => self.next() & 0xffff_ffff,
            2 => self.next() << 32,
            _ => self.next(),
        }
    }

    fn profile(&mut self, rules: usize) -> Profile {
        const ACTIONS: [&str; 7] = ["ALLOW", "ERRNO", "KILL_PROCESS", "KILL_THREAD", "TRAP", "LOG", "TRACE"];
        const OPS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
        let names: Vec<_> = (0..470).filter_map(|number| Arch::X86_64.name(number)).collect();
        let mut json = Vec::new();
        for _ in 0..rules {
            let mut args = Vec::new();
            for _ in 0..self.below(4) {
                args.push(format!(
                    r#"{{"index": {}, "value": {}, "valueTwo": {}, "op": "SCMP_CMP_{}"}}"#,
                    self.below(3),
                    self.value(),
                    self.value(),
                    self.pick(&OPS)
                ));
            }
            let action = self.pick(&ACTIONS);
            let errno = if matches!(action, "ERRNO" | "TRACE") {
                format!(r#", "errnoRet": {}"#, self.below(60))
            } else {
                String::new()
            };
            json.push(format!(
                r#"{{"names": ["{}", "{}"], "action": "SCMP_ACT_{action}"{errno}, "args": [{}]}}"#,
                self.pick(&names),
                self.pick(&names),
                args.join(", ")
            ));
        }
        parse(&format!(r#"{{"defaultAction": "SCMP_ACT_{}", "syscalls": [{}]}}"#, self.pick(&ACTIONS), json.join(", ")))
    }
}

#[test]
fn random_profiles_decide_as_they_read() {
    let mut noise = Noise(1);
    let mut lengths = Vec::new();
    for rules in [0, 1, 2, 3, 5, 8, 13, 34, 89, 233, 610] {
        for _ in 0..3 {
            let profile = noise.profile(rules);
            for arch in BOTH {
                let program = program(&profile, target(arch)).expect("every name exists");
                check_all(&profile, arch, &program, None);
                lengths.push(program.len());
            }
        }
    }
    // Long enough for jumps of every kind, and none too long for its distance to be right by chance.
    assert!(lengths.iter().any(|&len| len > 2000) && lengths.iter().any(|&len| len < 20), "{lengths:?}");
}

#[test]
fn four_thousand_rules_keep_their_jumps() {
    let profile = Noise(2).profile(4000);
    let program = program(&profile, target(Arch::X86_64)).expect("every name exists");
    assert!(program.iter().any(|insn| insn.code == bpf::JUMP), "stress must need long jumps");
    let naive = Naive::new(&profile, Arch::X86_64);
    let mut noise = Noise(3);
    for number in numbers() {
        let rules = naive.rules(number);
        let values: Vec<u64> = rules.iter().flat_map(|rule| &rule.conditions).map(|c| c.value).collect();
        for _ in 0..300 {
            let mut args = NO_ARGS;
            for argument in &mut args[..3] {
                *argument = match noise.below(3) {
                    0 if !values.is_empty() => values[noise.below(values.len())],
                    1 => noise.value(),
                    _ => 0,
                };
            }
            let expected = naive.decide(number, &rules, &args);
            let decided = bpf::run(&program, Arch::X86_64.audit(), number, &args).map(Action::from_code);
            assert_eq!(decided, Some(expected), "{number} {args:x?}");
        }
    }
    assert_eq!(compile(&profile, target(Arch::X86_64)), Err(SeccompError::TooLong(program.len())));
}

#[test]
fn a_program_may_have_4096_instructions_and_no_more() {
    let with_conditions = |count: usize| {
        let rule = |value| {
            format!(
                r#"{{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args":
                    [{{"index": 0, "value": 4294967295, "valueTwo": {value}, "op": "SCMP_CMP_MASKED_EQ"}}]}}"#
            )
        };
        let rules: Vec<_> = (1..=count).map(rule).collect();
        compile(&parse(&allow_list(&rules.join(","))), target(Arch::X86_64))
    };
    let (mut fits, mut too_many) = (1, 4096);
    while too_many - fits > 1 {
        let middle = (fits + too_many) / 2;
        if with_conditions(middle).is_ok() { fits = middle } else { too_many = middle }
    }
    // A condition is a load and a jump, now and then a stepping stone.
    let longest = with_conditions(fits).expect("fits").quiet().len();
    assert!((4094..=4096).contains(&longest), "{longest}");
    assert!(matches!(with_conditions(too_many), Err(SeccompError::TooLong(4097..))));
}

#[test]
fn conditions_come_before_the_rule_without() {
    let json = allow_list(
        r#"{"names": ["ioctl"], "action": "SCMP_ACT_ALLOW"},
           {"names": ["ioctl"], "action": "SCMP_ACT_KILL_PROCESS"},
           {"names": ["ioctl"], "action": "SCMP_ACT_TRAP", "args": [{"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}]},
           {"names": ["ioctl"], "action": "SCMP_ACT_LOG", "args": [{"index": 1, "value": 5, "op": "SCMP_CMP_LE"}]}"#,
    );
    let filter = filter(&json, Arch::X86_64);
    for (request, expected) in [(5, Action::Trap), (4, Action::Log), (6, Action::Allow)] {
        assert_eq!(filter.decide(16, &[0, request, 0, 0, 0, 0]), expected);
    }
}

#[test]
fn one_argument_compared_twice_is_either_comparison() {
    let json = allow_list(
        r#"{"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]}"#,
    );
    let filter = filter(&json, Arch::X86_64);
    for (fd, expected) in [(0, EPERM), (1, Action::Allow), (2, Action::Allow), (3, EPERM)] {
        assert_eq!(filter.decide(32, &[fd, 0, 0, 0, 0, 0]), expected);
    }
}

#[test]
fn a_masked_value_is_masked_too() {
    let json = allow_list(
        r#"{"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 15, "valueTwo": 255, "op": "SCMP_CMP_MASKED_EQ"}]}"#,
    );
    assert_eq!(filter(&json, Arch::X86_64).decide(32, &[0x2f, 0, 0, 0, 0, 0]), Action::Allow);
}

#[test]
fn unknown_names_may_be_allowed_but_not_refused() {
    let with = |name: &str, action: &str| {
        let json = allow_list(&format!(r#"{{"names": ["read", "{name}"], "action": "SCMP_ACT_{action}"}}"#));
        compile(&parse(&json), target(Arch::X86_64)).map(|_| ())
    };
    for action in ["ALLOW", "LOG"] {
        assert_eq!(with("mout", action), Ok(()));
    }
    for action in ["ERRNO", "KILL", "KILL_PROCESS", "TRAP", "TRACE", "NOTIFY"] {
        let unknown = SeccompError::UnknownCall { rule: 1, name: "mout".into() };
        assert!(unknown.hint().is_some());
        assert_eq!(with("mout", action), Err(unknown), "{action}");
        assert_eq!(with("umount", action), Ok(()), "a call of i386: {action}");
    }
}

const LISTED: &str =
    r#""architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]"#;

fn listed(default: &str, rules: &str, arch: Arch) -> Filter {
    let json = format!(r#"{{"defaultAction": "{default}", {LISTED}, "syscalls": [{rules}]}}"#);
    compile_listed(&parse(&json), target(arch)).expect(&json)
}

#[test]
fn listed_architectures_have_the_rules_by_their_own_numbers() {
    let rules = r#"{"names": ["read", "execve", "set_tls", "umount"], "action": "SCMP_ACT_ALLOW"}"#;
    for arch in BOTH {
        let filter = listed("SCMP_ACT_ERRNO", rules, arch);
        for other in arch.others().iter().map(|(_, other)| *other).chain([arch]) {
            for name in ["read", "execve", "set_tls", "umount", "write", "reboot"] {
                let Some(number) = other.number(name) else { continue };
                let expected = match name {
                    "read" | "execve" | "set_tls" | "umount" => Action::Allow,
                    _ if number
                        > ["read", "execve", "set_tls", "umount"]
                            .iter()
                            .filter_map(|n| other.number(n))
                            .max()
                            .unwrap() =>
                    {
                        ENOSYS
                    }
                    _ => EPERM,
                };
                assert_eq!(filter.decide_of(other, number, &NO_ARGS), expected, "{other:?} {name}");
            }
        }
        let elsewhere = BOTH.into_iter().find(|other| *other != arch).unwrap();
        assert_eq!(filter.decide_of(elsewhere, elsewhere.number("read").unwrap(), &NO_ARGS), Action::KillProcess);
        // What a run compiles is for one.
        let own =
            compile(&parse(&format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", {LISTED}}}"#)), target(arch)).unwrap();
        for (name, other) in arch.others() {
            assert_eq!(own.decide_of(*other, other.number("read").unwrap(), &NO_ARGS), Action::KillProcess, "{name}");
        }
        assert_eq!(own.decide(u32::MAX, &NO_ARGS), Action::Allow);
    }
}

#[test]
fn x32_has_no_second_name_for_what_is_refused() {
    let filter = listed("SCMP_ACT_ALLOW", r#"{"names": ["execve", "open"], "action": "SCMP_ACT_ERRNO"}"#, Arch::X86_64);
    for number in [520, 59, 2] {
        assert_eq!(filter.decide_of(Arch::X32, 0x4000_0000 + number, &NO_ARGS), EPERM, "{number}");
    }
    assert_eq!(filter.decide_of(Arch::X32, 0x4000_0000, &NO_ARGS), Action::Allow);
    assert_eq!(filter.decide(520, &NO_ARGS), Action::Allow);
}

#[test]
fn conditions_of_short_arguments_have_32_bits() {
    let rules = r#"{"names": ["personality"], "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 18446744073709551615, "op": "SCMP_CMP_EQ"}]}"#;
    let filter = listed("SCMP_ACT_ERRNO", rules, Arch::X86_64);
    let decide =
        |arch: Arch, first: u64| filter.decide_of(arch, arch.number("personality").unwrap(), &[first, 0, 0, 0, 0, 0]);
    assert_eq!(decide(Arch::X86, 0xffff_ffff), Action::Allow);
    assert_eq!(decide(Arch::X86, 0xffff_fffe), EPERM);
    assert_eq!((decide(Arch::X86_64, 0xffff_ffff), decide(Arch::X86_64, u64::MAX)), (EPERM, Action::Allow));
}

/// By int 0x80 from a program of 64 bits the filter is shown all of a register, of which the kernel reads half.
#[test]
fn what_the_kernel_does_not_read_decides_nothing() {
    let masked = r#""op": "SCMP_CMP_MASKED_EQ", "valueTwo": 40"#;
    for (op, holds) in [
        (r#""op": "SCMP_CMP_EQ""#, [false, true, false]),
        (r#""op": "SCMP_CMP_NE""#, [true, false, true]),
        (r#""op": "SCMP_CMP_LT""#, [true, false, false]),
        (r#""op": "SCMP_CMP_LE""#, [true, true, false]),
        (r#""op": "SCMP_CMP_GE""#, [false, true, true]),
        (r#""op": "SCMP_CMP_GT""#, [false, false, true]),
        (masked, [false, true, true]),
    ] {
        let rule = format!(
            r#"{{"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [{{"index": 0, "value": 40, {op}}}]}}"#
        );
        for (arch, other) in [(Arch::X86_64, Arch::X86), (Arch::Aarch64, Arch::Arm)] {
            let filter = listed("SCMP_ACT_ALLOW", &rule, arch);
            let number = other.number("personality").unwrap();
            for (first, refused) in [39, 40, 41].into_iter().zip(holds) {
                // 41 has all the bits that are asked for.
                for upper in [0, 1, 0x8000_0000, 0xffff_ffff_u64] {
                    let refuses = filter.decide_of(other, number, &[upper << 32 | first, 0, 0, 0, 0, 0]) == EPERM;
                    assert_eq!(refuses, refused, "{other:?} {op} {upper:#x} {first}");
                }
            }
        }
    }
}

#[test]
fn what_is_refused_is_refused_by_its_second_way_in() {
    let decide = |default: &str, rules: &str, call: &str, first: u64| {
        let filter = listed(default, rules, Arch::X86_64);
        filter.decide_of(Arch::X86, Arch::X86.number(call).unwrap(), &[first, 0, 0, 0, 0, 0])
    };
    let deny = r#"{"names": ["connect", "shmget"], "action": "SCMP_ACT_ERRNO"},
                  {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]}"#;
    for (call, first, expected) in [
        ("socketcall", 3, EPERM),
        ("socketcall", 2, Action::Allow),
        // Of which family it is, is not to be seen.
        ("socketcall", 1, EPERM),
        ("ipc", 23, EPERM),
        ("ipc", 1 << 16 | 23, EPERM),
        ("ipc", 24, Action::Allow),
    ] {
        assert_eq!(decide("SCMP_ACT_ALLOW", deny, call, first), expected, "{call} {first:#x}");
    }
    let allow = r#"{"names": ["connect"], "action": "SCMP_ACT_ALLOW"},
                   {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]}"#;
    for (first, expected) in [(3, Action::Allow), (1, EPERM), (2, EPERM)] {
        assert_eq!(decide("SCMP_ACT_ERRNO", allow, "socketcall", first), expected, "{first}");
    }
    // As of the call itself, whichever comes first.
    let both = r#"{"names": ["socket"], "action": "SCMP_ACT_ALLOW"},
                  {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]}"#;
    assert_eq!(
        (decide("SCMP_ACT_ERRNO", both, "socket", 40), decide("SCMP_ACT_ERRNO", both, "socketcall", 1)),
        (EPERM, EPERM)
    );
    // Who names it has decided, as Docker's profile has.
    let named = format!(r#"{deny}, {{"names": ["socketcall"], "action": "SCMP_ACT_ALLOW"}}"#);
    assert_eq!(decide("SCMP_ACT_ERRNO", &named, "socketcall", 3), Action::Allow);
}

#[test]
fn newer_calls_than_the_profile_knows_do_not_exist() {
    let rules = r#"{"names": ["read", "dup"], "action": "SCMP_ACT_ALLOW"}"#;
    let filter_of = |default: &str| {
        filter(&format!(r#"{{"defaultAction": "SCMP_ACT_{default}", "syscalls": [{rules}]}}"#), Arch::X86_64)
    };
    let decisions = |filter: Filter| [1, 33, 5000].map(|number| filter.decide(number, &NO_ARGS));
    assert_eq!(decisions(filter_of("ERRNO")), [EPERM, ENOSYS, ENOSYS]);
    assert_eq!(decisions(filter_of("KILL")), [Action::KillThread; 3]);
    assert_eq!(decisions(filter_of("ALLOW")), [Action::Allow; 3]);
}

#[test]
fn a_profile_with_a_listener_of_its_own_is_not_reported_on() {
    let json = allow_list(r#"{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}"#);
    let filter = filter(&json, Arch::X86_64);
    assert_eq!(filter.reporting(), None);
    assert_eq!(filter.decide(83, &NO_ARGS), Action::Notify);
}

#[test]
fn refusals_are_answered_and_explained() {
    let default = &builtin("default").expect("built in").filter;
    let number = |name| Arch::NATIVE.number(name).expect(name);
    let args = |first, second| [first, second, 0, 0, 0, 0];
    assert_eq!(default.errno(number("ptrace"), &NO_ARGS), 1);
    assert_eq!(default.errno(number("socket"), &args(17, 3)), 97);
    assert_eq!(default.errno(number("socket"), &args(2, 3)), 1);
    for (name, args, expected) in [
        ("ptrace", NO_ARGS, Some("dev")),
        ("personality", args(0x4_0000, 0), Some("dev")),
        ("socket", args(2, 1), Some("default")),
        ("socket", args(17, 3), None),
        ("mount", NO_ARGS, None),
        ("read", NO_ARGS, Some("strict")),
    ] {
        assert_eq!(explain_refused(number(name), &args), Refused { name: Some(name), allowed_by: expected });
    }
    assert_eq!(explain_refused(999, &NO_ARGS).name, None);
    assert!(builtin("unconfined").is_none());
}

#[test]
fn runsc_is_told_that_it_has_registered_and_no_more() {
    let membarrier = Arch::NATIVE.number("membarrier").expect("known");
    for (command, expected) in [(0, Action::Allow), (1, Action::Allow), (8, Action::Allow), (16, Action::Errno(0))] {
        assert_eq!(beside::NO_REGISTRATION.decide(membarrier, &[command, 0, 0, 0, 0, 0]), expected, "{command}");
    }
    assert_eq!(beside::NO_REGISTRATION.decide(membarrier + 1, &[16, 0, 0, 0, 0, 0]), Action::Allow);
}
