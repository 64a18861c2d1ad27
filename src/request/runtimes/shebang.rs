//! The `#!` line of a file, as the kernel and `env -S` read it (execve(2), env(1)).
//!
//! The bytes are a stranger's; whatever is not a plain line naming an interpreter is no shebang.

/// BINPRM_BUF_SIZE: the kernel looks at no more of a file than this.
const KERNEL_READS: usize = 256;

/// The interpreter's base name, and the arguments it gets before the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shebang<'a> {
    pub(super) interpreter: &'a str,
    pub(super) args: Vec<&'a str>,
}

impl<'a> Shebang<'a> {
    pub(super) fn parse(first_bytes: &'a [u8]) -> Option<Self> {
        let rest = first_bytes.strip_prefix(b"#!")?;
        let end = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        if end > KERNEL_READS - 2 {
            return None;
        }
        let line = std::str::from_utf8(&rest[..end]).ok()?.trim_matches([' ', '\t', '\r']);
        if line.contains('\0') {
            return None;
        }
        let (path, arg) = split_word(line);
        let interpreter = base_name(path)?;
        if interpreter == "env" {
            return Self::from_env(arg);
        }
        // The kernel hands over what follows as one argument, however many words it has.
        Some(Self { interpreter, args: if arg.is_empty() { Vec::new() } else { vec![arg] } })
    }

    /// `env NAME`, `env -S NAME ARG…`. Other options, assignments and quoting would change what the
    /// program sees, so a line with them is left alone. The kernel would pass `NAME ARG` to an `env`
    /// without -S as one name, which cannot run; it is understood as what was meant.
    fn from_env(arg: &'a str) -> Option<Self> {
        let words = arg.strip_prefix("-S").or_else(|| arg.strip_prefix("--split-string=")).unwrap_or(arg);
        if words.contains(['"', '\'', '\\', '$', '#']) {
            return None;
        }
        let mut words = words.split([' ', '\t']).filter(|word| !word.is_empty());
        let program = words.next().filter(|word| !word.starts_with('-') && !word.contains('='))?;
        Some(Self { interpreter: base_name(program)?, args: words.collect() })
    }
}

fn split_word(text: &str) -> (&str, &str) {
    match text.split_once([' ', '\t']) {
        Some((word, rest)) => (word, rest.trim_start_matches([' ', '\t'])),
        None => (text, ""),
    }
}

fn base_name(path: &str) -> Option<&str> {
    path.rsplit('/').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_name_an_interpreter() {
        for (line, interpreter, args) in [
            ("#!/bin/sh", "sh", vec![]),
            ("#! /usr/bin/python3.11 \r\nprint(1)", "python3.11", vec![]),
            ("#!/bin/bash -eu", "bash", vec!["-eu"]),
            ("#!/usr/bin/awk -f  x ", "awk", vec!["-f  x"]),
            ("#!/usr/bin/env python3", "python3", vec![]),
            ("#!/usr/bin/env python3 -u\n", "python3", vec!["-u"]),
            ("#!/usr/bin/env -S deno run  --allow-read\n", "deno", vec!["run", "--allow-read"]),
            ("#!/usr/bin/env -Snode\n", "node", vec![]),
            ("#!\t/usr/bin/env\tlua\n", "lua", vec![]),
        ] {
            assert_eq!(Shebang::parse(line.as_bytes()), Some(Shebang { interpreter, args }), "{line:?}");
        }
    }

    #[test]
    fn bytes_that_name_none() {
        let long = format!("#!/bin/{}\n", "x".repeat(300));
        let lines: [&[u8]; 15] = [
            b"",
            b"#",
            b"#!",
            b"#!\n",
            b"#! \t\n",
            b"#!/\n",
            b" #!/bin/sh",
            b"\xef\xbb\xbf#!/bin/sh",
            b"#!/bin/s\0h",
            b"#!/bin/\xff\n",
            b"#!/usr/bin/env",
            b"#!/usr/bin/env -i sh",
            b"#!/usr/bin/env -S A=b sh",
            b"#!/usr/bin/env -S sh -c 'x y'",
            long.as_bytes(),
        ];
        for line in lines {
            assert_eq!(Shebang::parse(line), None, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn any_bytes_are_taken() {
        for a in 0..=255u8 {
            for b in [0, 9, 10, 13, 32, 47, 45, 83, 128, 255] {
                for prefix in ["#!", "#!/", "#!/usr/bin/env ", "#!/usr/bin/env -S", ""] {
                    let bytes = [prefix.as_bytes(), &[a, b, a]].concat();
                    if let Some(found) = Shebang::parse(&bytes) {
                        assert!(
                            bytes.starts_with(b"#!")
                                && !found.interpreter.is_empty()
                                && !found.interpreter.contains('/')
                        );
                    }
                }
            }
        }
    }
}
