//! What interpreters read when they are started ahead: a file of ours that each of them reads by itself before the
//! program, so that the program is run by the interpreter alone, as ever, with nothing of ours around it.

use std::path::Path;

use crate::{
    launch::Boot,
    plan::{
        path::{BoxPath, PathError},
        setup::{Content, Owner, SetupOp},
    },
};

struct Way {
    runtime: &'static str,
    file: &'static str,
    code: &'static str,
    /// By which the interpreter finds it.
    variable: (&'static str, &'static str),
    joins: bool,
    preload: &'static str,
    takes_args: bool,
    noticed_by: Option<&'static str>,
    is_shell: bool,
}

/// In a directory of its own, where every sandbox has memory that can be written.
const DIR: &str = "/tmp/.fumehood";

/// Of Python's modules those that many programs import and that are part of the interpreter: a pool whose jobs come as
/// fast as it can make sandboxes pays for them with each, and `collections` alone, with what it imports, is a fifth of a
/// start. They do nothing but define things.
const PYTHON: &str = "itertools math time";

const WAYS: [Way; 4] = [
    Way {
        runtime: "python",
        file: "sitecustomize.py",
        code: include_str!("python.py"),
        variable: ("PYTHONPATH", "/tmp/.fumehood"),
        joins: true,
        preload: PYTHON,
        takes_args: true,
        noticed_by: None,
        is_shell: false,
    },
    Way {
        runtime: "node",
        file: "boot.js",
        code: include_str!("node.js"),
        variable: ("NODE_OPTIONS", "--require=/tmp/.fumehood/boot.js"),
        joins: false,
        preload: "",
        takes_args: true,
        // Each starts as node does, with what is removed by then.
        noticed_by: Some("worker_threads"),
        is_shell: false,
    },
    Way {
        runtime: "bash",
        file: "boot.sh",
        code: include_str!("bash.sh"),
        variable: ("BASH_ENV", "/tmp/.fumehood/boot.sh"),
        joins: false,
        preload: "",
        // BASH_ARGV tells of those that it was started with.
        takes_args: false,
        noticed_by: None,
        is_shell: true,
    },
    Way {
        runtime: "ruby",
        file: "did_you_mean.rb",
        code: include_str!("ruby.rb"),
        variable: ("RUBYLIB", "/tmp/.fumehood"),
        joins: true,
        preload: "",
        takes_args: true,
        noticed_by: None,
        is_shell: false,
    },
];

/// How the interpreter of a runtime is started ahead, with modules beside those that it imports anyway.
pub fn boot(runtime: &str, preload: &[String]) -> Option<Result<Boot, PathError>> {
    let way = WAYS.iter().find(|way| way.runtime == runtime)?;
    Some(way.boot(preload))
}

impl Way {
    fn boot(&self, preload: &[String]) -> Result<Boot, PathError> {
        let path = |path: &Path| BoxPath::new(path);
        let code = Content(self.code.as_bytes().into());
        let owner = Owner::Setup;
        let files = vec![
            SetupOp::Dir { path: path(Path::new(DIR))?, mode: 0o755, owner },
            SetupOp::File { path: path(&Path::new(DIR).join(self.file))?, mode: 0o644, owner, content: code },
        ];
        // What all have, and what was asked for.
        let names = format!("{}|{}", self.preload, preload.join(" "));
        let env = [(self.variable.0, self.variable.1), ("FUMEHOOD_BOOT", "{fd}"), ("FUMEHOOD_PRELOAD", &names)];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let Self { joins, takes_args, noticed_by, is_shell, .. } = *self;
        Ok(Boot { files, env, joins, takes_args, noticed_by, is_shell })
    }
}
