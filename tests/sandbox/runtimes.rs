//! Every runtime that this host has says hello, reads its input and its arguments, and ends as it wants to.

use crate::{
    both,
    common::{Run, Who, skip},
};

/// A program that prints `hello` and its first argument, and ends with status 3.
fn programs(runtime: &str) -> (&'static str, &'static str) {
    match runtime {
        "python" => ("main.py", "import sys\nprint('hello', sys.argv[1])\nsys.exit(3)\n"),
        "node" => ("main.js", "console.log('hello', process.argv[2]); process.exit(3);\n"),
        "bash" => ("main.sh", "a=(hello \"$1\"); echo \"${a[@]}\"; exit 3\n"),
        "sh" => ("main", "#!/bin/sh\necho hello \"$1\"; exit 3\n"),
        "ruby" => ("main.rb", "puts \"hello #{ARGV[0]}\"\nexit 3\n"),
        "perl" => ("main.pl", "print \"hello $ARGV[0]\\n\"; exit 3;\n"),
        "php" => ("main.php", "<?php echo \"hello $argv[1]\\n\"; exit(3);\n"),
        "lua" => ("main.lua", "print('hello ' .. arg[1])\nos.exit(3)\n"),
        "go" => (
            "main.go",
            "package main\nimport (\"fmt\"; \"os\")\nfunc main() { fmt.Println(\"hello\", os.Args[1]); os.Exit(3) }\n",
        ),
        "c" => (
            "main.c",
            "#include <stdio.h>\nint main(int c, char **v) { (void)c; printf(\"hello %s\\n\", v[1]); return 3; }\n",
        ),
        "c++" => (
            "main.cpp",
            "#include <iostream>\nint main(int, char **v) { std::cout << \"hello \" << v[1] << std::endl; return 3; }\n",
        ),
        "rust" => (
            "main.rs",
            "fn main() { println!(\"hello {}\", std::env::args().nth(1).unwrap()); std::process::exit(3) }\n",
        ),
        "java" => (
            "Main.java",
            "class M { public static void main(String[] a) { System.out.println(\"hello \" + a[0]); System.exit(3); } }\n",
        ),
        "r" => ("main.R", "cat('hello', commandArgs(trailingOnly = TRUE)[1], '\\n', sep = ' ')\nquit(status = 3)\n"),
        other => panic!("{other}"),
    }
}

/// Whether `fumehood runtimes` finds it; if not, that is a skip.
fn is_here(who: Who, runtime: &str) -> bool {
    let list = Run::verb(who, "runtimes").json_result().done().expect_code(0).json();
    let all = list.as_array().or_else(|| list["runtimes"].as_array()).expect("a list of runtimes").clone();
    let entry =
        all.iter().find(|entry| entry["name"] == runtime).unwrap_or_else(|| panic!("{runtime} is not in {list}"));
    let here = ["path", "program", "found"].iter().any(|key| entry[*key].is_string() || entry[*key] == true);
    if !here {
        skip(&format!("runtimes::{runtime} as {who:?}"), "it is not installed under /usr, /usr/local or /opt");
    }
    here
}

fn says_hello(who: Who, runtime: &str) {
    if !is_here(who, runtime) {
        return;
    }
    let (name, code) = programs(runtime);
    let run = Run::new(who).args(["--memory", "2g", "--timeout", "110s"]);
    let file = run.place.write(name, code);
    let done = run.arg(file).program_args(["wörld"]).done().expect_code(3);
    assert_eq!(done.out().trim_end(), "hello wörld", "{done}");
    // As text, with a whole result.
    let done = Run::new(who).args(["--memory", "2g", "--timeout", "110s"]).json_result().eval(runtime, code);
    let json = done.program_args(["x"]).done().expect_code(3).expect_verdict("failed").json();
    assert_eq!(json["exit_code"], 3, "{json}");
    assert_eq!(json["runtime"], runtime, "{json}");
    assert_eq!(json["stdout"].as_str().unwrap().trim_end(), "hello x", "{json}");
}

macro_rules! runtimes {
    ($($name:ident = $runtime:literal,)+) => { both! { $(
        fn $name(who: Who) { says_hello(who, $runtime); }
    )+ } };
}

runtimes! {
    python = "python", node = "node", bash = "bash", sh = "sh", ruby = "ruby", perl = "perl", php = "php", lua = "lua",
    go = "go", c = "c", cpp = "c++", rust = "rust", java = "java", r = "r",
}

both! {
    fn node_takes_esm_and_commonjs(who: Who) {
        if !is_here(who, "node") {
            return;
        }
        for (name, code) in [
            ("a.mjs", "import { basename } from 'node:path'; console.log(basename('/a/b'), typeof require);"),
            ("a.cjs", "const { basename } = require('path'); console.log(basename('/a/b'), typeof module === 'object' ? 'undefined' : '');"),
        ] {
            let run = Run::new(who);
            let file = run.place.write(name, code);
            run.arg(file).done().expect_code(0).expect_out("b undefined\n");
        }
    }

    fn the_shebang_line_chooses_the_runtime(who: Who) {
        let run = Run::new(who);
        let file = run.place.write("script", "#!/usr/bin/env python3\nimport sys; print(sys.version_info[0])\n");
        run.arg(file).done().expect_code(0).expect_out("3\n");
        let run = Run::new(who);
        let file = run.place.write("script", "#!/usr/bin/perl -w\nprint 'perl';\n");
        run.arg(file).done().expect_code(0).expect_out("perl");
    }

    fn code_comes_from_standard_input(who: Who) {
        Run::new(who).args(["-r", "python", "-"]).input("print(6*7)").done().expect_code(0).expect_out("42\n");
    }

    fn eval_without_a_runtime_is_python(who: Who) {
        Run::new(who).args(["-e", "print(6*7)"]).done().expect_code(0).expect_out("42\n");
    }

    fn a_program_that_does_not_compile_fails_with_the_compilers_words(who: Who) {
        let done = Run::new(who).json_result().eval("c", "int main() { return x; }").done().expect_verdict("failed");
        let json = done.json();
        assert_eq!(json["compile"]["verdict"], "failed", "{json}");
        assert!(json["compile"]["stderr"].as_str().unwrap().contains("undeclared"), "{json}");
        let done = Run::new(who).eval("c", "int main() { return x; }").done();
        assert_ne!(done.code, 0);
        assert!(done.err().contains("undeclared") && done.out().is_empty(), "{done}");
    }

    fn compilers_run_in_the_sandbox_too(who: Who) {
        let run = Run::new(who);
        let secret = run.place.text("marker");
        let done = run.eval("c", &format!("#include \"{secret}\"\nint main() {{ return 0; }}")).done();
        assert!(done.code != 0 && done.err().contains("No such file"), "{done}");
    }
}
