//! A choice with its programs found: on the host, or by bare name in an image.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    RuntimeError,
    commands::{Commands, Values},
    search::{SearchPath, expand},
    table::{Choice, CompileLimits, Runtime, Table, Variant},
};
use crate::{error::Hint, request::limits::Bytes};

/// A runtime with its programs found: everything about it but the file and the limits.
#[derive(Debug)]
pub struct Located<'t> {
    pub runtime: &'t Runtime,
    variant: &'t Variant,
    /// Placeholder and path of each program.
    programs: Vec<(&'t str, String)>,
    args: Vec<String>,
    on_host: bool,
}

impl<'t> Choice<'t> {
    /// The first variant whose programs the host has.
    pub fn locate(&self, host: &SearchPath) -> Result<Located<'t>, RuntimeError> {
        self.resolve(true, |name| host.find(name)).map_err(|wanted| {
            let outside = wanted.iter().flatten().flat_map(|name| host.outside(name)).collect();
            self.missing(&wanted, host.dirs.join(", "), outside)
        })
    }

    /// By bare names, for a root filesystem other than the host's: `has` tells whether a program of
    /// that name is in its PATH. No path of the host, nor of its /etc, comes into it.
    pub fn unlocated(&self, has: impl Fn(&str) -> bool) -> Result<Located<'t>, RuntimeError> {
        self.resolve(false, |name| has(name).then(|| name.to_owned()))
            .map_err(|wanted| self.missing(&wanted, "the PATH of the root filesystem".to_owned(), Vec::new()))
    }

    /// On failure, for each variant the names of the first program that it lacks.
    fn resolve(&self, on_host: bool, find: impl Fn(&str) -> Option<String>) -> Result<Located<'t>, Vec<Vec<String>>> {
        let runtime = self.runtime;
        let mut wanted = Vec::new();
        let fits = |variant: &&Variant| self.pin.as_deref().is_none_or(|pin| variant.takes(pin));
        for variant in runtime.variants.iter().filter(fits) {
            let find_program = |(place, names): (&'t String, &'t Vec<String>)| {
                let pinned = self.pin.as_slice();
                let names = if place == variant.primary() && !pinned.is_empty() { pinned } else { names };
                let path = names.iter().find_map(|name| find(name)).ok_or_else(|| names.to_vec())?;
                Ok((place.as_str(), path))
            };
            match variant.programs.iter().map(find_program).collect() {
                Ok(programs) => return Ok(Located { runtime, variant, programs, args: self.args.clone(), on_host }),
                Err(names) => wanted.push(names),
            }
        }
        Err(wanted)
    }

    fn missing(&self, wanted: &[Vec<String>], looked: String, outside: Vec<(PathBuf, PathBuf)>) -> RuntimeError {
        let wanted: Vec<_> = wanted.iter().flatten().map(String::as_str).collect();
        RuntimeError::Missing {
            runtime: self.runtime.name().to_owned(),
            wanted: wanted.join(", "),
            looked,
            outside,
            get: self.runtime.how_to_get().to_owned(),
        }
    }
}

impl Located<'_> {
    /// The program it is known by: the interpreter, or the compiler.
    #[must_use]
    pub fn program(&self) -> &Path {
        let primary = self.variant.primary();
        self.programs.iter().find(|(place, _)| *place == primary).map_or(Path::new(""), |(_, path)| Path::new(path))
    }

    /// The limits of the compile step, where there is one.
    #[must_use]
    pub fn compile_limits(&self) -> Option<CompileLimits> {
        self.variant.compile.as_ref().map(|compile| compile.limits)
    }

    /// Files and directories under /etc of the host to bind read-only; none for an image.
    #[must_use]
    pub fn etc(&self) -> Vec<PathBuf> {
        let globs = self.variant.etc.iter().filter(|_| self.on_host);
        globs.flat_map(|glob| expand(glob)).filter(|path| path.exists()).collect()
    }

    /// The commands for `file`, an absolute path inside the sandbox (so that no name is taken for an
    /// option), within the limits of the run.
    #[must_use]
    pub fn commands(&self, file: &str, memory: Bytes, cpus: f64) -> Commands {
        self.variant.commands(&self.args, &Values { programs: &self.programs, file, memory, cpus })
    }
}

/// One line of `fumehood runtimes`.
#[derive(Debug, Serialize)]
pub struct Survey<'t> {
    pub name: &'t str,
    pub aliases: &'t [String],
    pub extensions: &'t [String],
    /// Where it is, or null.
    pub program: Option<PathBuf>,
    /// Why it is not there, or null.
    pub error: Option<String>,
    pub hint: Option<String>,
}

impl Table {
    /// Every runtime, and whether the host has it.
    pub fn survey(&self, host: &SearchPath) -> Result<Vec<Survey<'_>>, RuntimeError> {
        let row = |runtime| {
            let located = Choice::any(runtime).locate(host);
            let error = located.as_ref().err();
            Survey {
                name: runtime.name(),
                aliases: runtime.aliases(),
                extensions: runtime.extensions(),
                program: located.as_ref().ok().map(|located| located.program().to_owned()),
                error: error.map(ToString::to_string),
                hint: error.and_then(Hint::hint),
            }
        };
        Ok(self.runtimes()?.into_iter().map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        process::{Command, Output},
    };

    use super::*;
    use crate::request::{limits::Limits, runtimes::table};

    /// A host of our own: `usr/bin`, `opt/*/bin`, and a `home` that the sandbox does not see.
    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            for dir in ["usr/bin", "usr/local", "opt/lang/bin", "home"] {
                fs::create_dir_all(host.path(dir)).unwrap();
            }
            host
        }

        fn path(&self, path: &str) -> String {
            self.0.path().canonicalize().unwrap().join(path).to_str().unwrap().to_owned()
        }

        fn program(&self, path: &str) {
            fs::write(self.path(path), "").unwrap();
            fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn search(&self) -> SearchPath {
            let dirs = ["usr/bin", "opt/*/bin"].map(|dir| self.path(dir));
            let roots = ["usr", "opt"].map(|root| self.path(root));
            SearchPath::new(&dirs.each_ref().map(String::as_str), &roots.each_ref().map(String::as_str))
        }
    }

    fn locate(name: &str, host: &SearchPath) -> Result<PathBuf, RuntimeError> {
        table().by_name(name).unwrap().locate(host).map(|located| located.program().to_owned())
    }

    #[test]
    fn the_first_candidate_that_can_run_is_taken() {
        let host = Host::new();
        fs::write(host.path("usr/bin/lua"), "not executable").unwrap();
        fs::create_dir(host.path("usr/bin/lua5.4")).unwrap();
        host.program("opt/lang/bin/lua5.3");
        host.program("usr/bin/luajit");
        assert_eq!(locate("lua", &host.search()), Ok(host.path("opt/lang/bin/lua5.3").into()));
        assert_eq!(locate("luajit", &host.search()), Ok(host.path("usr/bin/luajit").into()));
        let error = locate("lua5.2", &host.search()).unwrap_err();
        assert!(error.to_string().starts_with("no program for runtime `lua`: no lua5.2 in "), "{error}");
    }

    #[test]
    fn a_link_that_leads_out_of_sight_is_refused_and_named() {
        let host = Host::new();
        host.program("home/rustc");
        host.program("usr/bin/cc");
        symlink(host.path("home/rustc"), host.path("usr/bin/rustc")).unwrap();
        let error = locate("rust", &host.search()).unwrap_err();
        let said = format!("{} leads to {}, which is out of", host.path("usr/bin/rustc"), host.path("home/rustc"));
        assert!(error.to_string().contains(&said), "{error}");
        assert!(error.hint().unwrap().starts_with("apt install rustc"));

        let mut search = host.search();
        search.callers = Some(host.path("home").into());
        assert!(
            locate("rust", &search)
                .unwrap_err()
                .to_string()
                .contains(&format!("; {} is out of", host.path("home/rustc")))
        );

        host.program("opt/lang/bin/rustc");
        assert_eq!(locate("rust", &host.search()), Ok(host.path("opt/lang/bin/rustc").into()));
    }

    #[test]
    fn a_link_within_sight_keeps_its_own_name() {
        let host = Host::new();
        host.program("usr/bin/python3.11");
        symlink("../../../usr/bin/python3.11", host.path("opt/lang/bin/python3")).unwrap();
        assert_eq!(locate("python", &host.search()), Ok(host.path("opt/lang/bin/python3").into()));
    }

    #[test]
    fn variants_are_tried_in_order_and_need_all_their_programs() {
        let host = Host::new();
        host.program("usr/bin/tsc");
        let error = locate("typescript", &host.search()).unwrap_err();
        assert!(error.to_string().contains("no bun, deno, node, nodejs in "), "{error}");
        host.program("usr/bin/nodejs");
        assert_eq!(locate("typescript", &host.search()), Ok(host.path("usr/bin/tsc").into()));
        host.program("usr/bin/deno");
        assert_eq!(locate("typescript", &host.search()), Ok(host.path("usr/bin/deno").into()));
        assert_eq!(locate("tsc", &host.search()), Ok(host.path("usr/bin/tsc").into()));
    }

    #[test]
    fn an_image_is_asked_by_bare_name() {
        let table = table();
        let c = table.by_name("c").unwrap().unlocated(|name| name == "clang").unwrap();
        let commands = c.commands("/sandbox/main.c", Bytes::mib(64), 0.5);
        assert_eq!(commands.compile.unwrap().join(" "), "clang -O2 -pthread -o /sandbox/main /sandbox/main.c -lm");
        assert_eq!(commands.run, ["/sandbox/main"]);
        let java = table.by_name("java").unwrap().unlocated(|_| true).unwrap();
        assert_eq!(java.etc(), Vec::<PathBuf>::new());
        let commands = java.commands("/sandbox/Main.java", Bytes::mib(64), 1.5);
        assert!(
            commands.run.contains(&"-XX:MaxRAM=64m".to_owned())
                && commands.run.contains(&"-XX:ActiveProcessorCount=2".to_owned())
        );
        assert!(matches!(table.by_name("c").unwrap().unlocated(|_| false), Err(RuntimeError::Missing { .. })));
    }

    #[test]
    fn arguments_of_a_shebang_replace_the_tables() {
        let table = table();
        let run = |line: &str| {
            let located = table.by_shebang(line.as_bytes()).unwrap().unwrap().unlocated(|_| true).unwrap();
            located.commands("/sandbox/tool", Bytes::mib(64), 1.0).run
        };
        assert_eq!(
            run("#!/bin/bash -eu
"),
            ["bash", "-eu", "/sandbox/tool"]
        );
        assert_eq!(
            run("#!/usr/bin/env -S deno run --allow-read
"),
            ["deno", "run", "--allow-read", "/sandbox/tool"]
        );
        assert_eq!(
            run("#!/usr/bin/python3.12
"),
            ["python3.12", "/sandbox/tool"]
        );
    }

    /// Every runtime that this host has runs a program, by the very commands of the table.
    #[test]
    fn what_the_host_has_works() {
        let table = table();
        let host = SearchPath::host();
        let mut ran = 0;
        for (runtime, code) in [
            ("python", "import json\nprint(json.dumps(42))"),
            // Neither needs a node that tells ESM by itself, which Debian 12's does not.
            ("node", "import('node:fs').then(() => console.log(42, process.argv.length))"),
            ("node", "require('fs'); console.log(42)"),
            ("typescript", "enum E { A = 42 }\nconst x: number = E.A; console.log(x)"),
            ("bun", "const x: number = 42; console.log(x)"),
            ("deno", "const x: number = 42; console.log(x)"),
            ("bash", "a=(42); echo ${a[0]}"),
            ("sh", "echo 42"),
            ("ruby", "puts 42"),
            ("perl", "print 42"),
            ("php", "<?php echo 42;"),
            ("lua", "print(42)"),
            ("go", "package main\nimport \"fmt\"\nfunc main() { fmt.Println(42) }"),
            ("rust", "fn main() { println!(\"42\"); }"),
            (
                "c",
                "#include <stdio.h>\n#include <math.h>\nint main(int c, char **v) { printf(\"%.0f\", 41 + sqrt(c)); }",
            ),
            ("c++", "#include <iostream>\nint main() { std::cout << 42; }"),
            ("java", "public class Any { public static void main(String[] a) { System.out.println(42); } }"),
            ("r", "cat(median(c(41, 42, 43)))"),
        ] {
            let located = match table.by_name(runtime).unwrap().locate(&host) {
                Ok(located) => located,
                Err(error) => {
                    eprintln!("not run here: {error}");
                    continue;
                }
            };
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join(table.file_name(located.runtime, None).unwrap());
            fs::write(&file, code).unwrap();
            let limits = Limits::default();
            let commands = located.commands(file.to_str().unwrap(), limits.memory, limits.cpus);
            let execute = |argv: &[String]| -> Output {
                let mut command = Command::new(&argv[0]);
                command.args(&argv[1..]).env_clear().envs(commands.env.clone()).current_dir(dir.path());
                command.env("HOME", dir.path()).env("PATH", "/usr/local/bin:/usr/bin:/bin").output().unwrap()
            };
            assert_eq!(commands.compile.is_some(), located.compile_limits().is_some());
            if let Some(argv) = &commands.compile {
                let output = execute(argv);
                assert!(output.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&output.stderr));
            }
            let output = execute(&commands.run);
            let stdout = String::from_utf8_lossy(&output.stdout);
            assert!(stdout.starts_with("42") && output.status.success(), "{:?}: {output:?}", commands.run);
            ran += 1;
        }
        assert!(ran > 0, "this host has no runtime at all");
    }
}
