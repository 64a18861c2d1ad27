//! Compiles the built-in seccomp profiles for the target, so that a sandbox starts with a ready filter.

use std::{env, fmt::Write, fs, path::Path};

#[allow(dead_code, unreachable_pub)]
#[path = "src/plan/seccomp/bpf.rs"]
mod bpf;
#[allow(dead_code, unreachable_pub)]
#[path = "src/plan/seccomp/compile.rs"]
mod compile;
#[allow(dead_code, unreachable_pub)]
#[path = "src/plan/seccomp/names.rs"]
mod names;
#[allow(dead_code, unreachable_pub)]
#[path = "src/plan/seccomp/profile.rs"]
mod profile;

/// From the strictest on.
const PROFILES: [&str; 3] = ["strict", "default", "dev"];
/// Those that are loaded beside, which nobody chooses and of which nothing is reported.
const BESIDE: [(&str, &str); 3] =
    [("GVISOR", "gvisor"), ("NO_REGISTRATION", "no-registration"), ("NO_SETUID", "no-setuid")];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=profiles/seccomp");
    println!("cargo:rerun-if-changed=src/plan/seccomp");

    let arch = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => names::Arch::X86_64,
        "aarch64" => names::Arch::Aarch64,
        other => return Err(format!("fumehood has no system call table for {other}").into()),
    };
    // The oldest: a built-in profile must not depend on the kernel that it is built on.
    let target = profile::Target { arch, kernel: profile::KernelVersion(0, 0) };
    let root = env::var("CARGO_MANIFEST_DIR")?;

    let path_of = |name| Path::new(&root).join(format!("profiles/seccomp/{name}.json"));
    let compiled = |path: &Path| -> Result<_, Box<dyn std::error::Error>> {
        let in_file = |error: profile::SeccompError| format!("{}: {error}", path.display());
        let profile = profile::Profile::parse(&fs::read_to_string(path)?).map_err(in_file)?;
        let filter = compile::compile(&profile, target).map_err(in_file)?;
        Ok((profile, filter))
    };
    let mut builtins = String::from("[\n");
    for name in PROFILES {
        let path = path_of(name);
        let (profile, filter) = compiled(&path)?;
        let reporting = filter.reporting().ok_or("a built-in profile notifies")?;
        writeln!(
            builtins,
            "Builtin {{ name: {name:?}, about: {:?}, json: include_str!({path:?}),\n\
             filter: Filter::fixed(Arch::{arch:?}, {}, &{}, Some(&{})) }},",
            profile.comment,
            filter.flags(),
            literal(filter.quiet()),
            literal(reporting),
        )?;
    }
    builtins.push(']');
    let mut beside = String::new();
    for (constant, name) in BESIDE {
        let (_, filter) = compiled(&path_of(name))?;
        writeln!(
            beside,
            "pub static {constant}: Filter = Filter::fixed(Arch::{arch:?}, {}, &{}, None);",
            filter.flags(),
            literal(filter.quiet())
        )?;
    }
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("seccomp.rs"), builtins)?;
    fs::write(Path::new(&out).join("beside.rs"), beside)?;
    Ok(())
}

fn literal(program: &[bpf::Insn]) -> String {
    let insns: Vec<String> =
        program.iter().map(|i| format!("Insn::new({}, {}, {}, {})", i.code, i.jt, i.jf, i.k)).collect();
    format!("[{}]", insns.join(", "))
}
