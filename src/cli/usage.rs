//! What a person can get wrong on the command line, and what they may have meant.

use std::ffi::OsString;

use fumehood::{error::Hint, net::policy::RuleError};

#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    #[error("`{}` is no variable: it has no name", .0.to_string_lossy())]
    Assignment(OsString),
    #[error("{first} and {second} cannot be given together{}", because(why))]
    Conflict { first: String, second: String, why: &'static str },
    #[error("cannot read `{}`: {why}", path.display())]
    EnvFile { path: std::path::PathBuf, why: String },
    #[error("--{flag} says something of an image, and none is given")]
    NeedsImage { flag: &'static str },
    #[error("--setup-net is the network of a setup, and there is none")]
    NeedsSetup,
    #[error("--index-url says where packages come from, and none is named")]
    NeedsInstall,
    #[error("--install is for what runs on this host's programs or in an image")]
    NoInstall,
    #[error("the packages of --install are not there yet, and an explanation installs nothing")]
    NotInstalled,
    #[error("--{flag} says what may be reached, and with --net {mode} nothing asks")]
    NeedsGateway { flag: &'static str, mode: &'static str },
    #[error("--log-network tells of what a gateway sees, and with --net {mode} there is none")]
    NothingToLog { mode: &'static str },
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error("{flag} needs a value")]
    MissingValue { flag: String, name: &'static str },
    #[error("unknown isolation `{kind}`")]
    Isolation { kind: String },
    #[error("--gvisor-platform is given without --isolation gvisor")]
    NeedsGvisor,
    #[error("--gvisor-platform: there is no `{name}`")]
    Platform { name: String },
    #[error("unknown network mode `{mode}`")]
    Network { mode: String },
    #[error("--{flag}: `{}` is not UTF-8", raw.to_string_lossy())]
    NotUtf8 { flag: &'static str, raw: OsString },
    #[error("no jobs are named")]
    NoJobs,
    #[error("there is nothing to run")]
    Nothing { verb: &'static str },
    #[error("the input device is not a TTY")]
    NoTerminal,
    #[error("`{}` is a program, not source code", path.display())]
    Program { path: std::path::PathBuf },
    #[error("--{flag} is given twice")]
    Twice { flag: &'static str },
    #[error("--{flag} takes no value")]
    UnexpectedValue { flag: String },
    #[error("unexpected argument `{}`", arg.to_string_lossy())]
    UnexpectedArgument { verb: &'static str, file: OsString, arg: OsString },
    #[error("unknown option {flag}")]
    UnknownFlag { verb: &'static str, flag: String, file: Option<OsString>, nearest: Option<&'static str> },
    #[error("unknown command `{word}`")]
    UnknownVerb { word: String, nearest: Option<String>, is_file: bool },
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

impl Hint for UsageError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Assignment(_) => "--env NAME=VALUE, or --env NAME to pass on a variable of your own".to_owned(),
            Self::NeedsImage { .. } => "name it with --image".to_owned(),
            Self::NeedsSetup => "name its command with --setup".to_owned(),
            Self::NeedsInstall => "name one with --install".to_owned(),
            Self::NotInstalled => "they are, after the first run".to_owned(),
            Self::NothingToLog { .. } => {
                "--net filtered lets nothing through, and all that is tried is told".to_owned()
            }
            Self::NeedsGateway { .. } => "--net filtered, or leave --net out".to_owned(),
            Self::Rule(error) => return error.hint(),
            Self::MissingValue { flag, name } => format!("{flag} {name}"),
            Self::Isolation { .. } => "there are native and gvisor".to_owned(),
            Self::NeedsGvisor => "--isolation gvisor is what has platforms".to_owned(),
            Self::Platform { .. } => "there are auto, systrap, kvm and ptrace".to_owned(),
            Self::Network { .. } => "there are none, filtered, packages, web, public, open and host".to_owned(),
            Self::Nothing { verb } => {
                format!("fumehood {verb} script.py, fumehood {verb} -e 'print(1)', or fumehood {verb} -- ls -l")
            }
            Self::NoJobs => "a file, a directory of scripts, `-` for standard input, or unix:PATH".to_owned(),
            Self::NoTerminal => "leave -t out when standard input is not a terminal; -i passes it on".to_owned(),
            Self::Program { path } if ["/usr", "/opt", "/bin", "/sbin"].iter().any(|dir| path.starts_with(dir)) => {
                format!("fumehood run -- {}", path.display())
            }
            Self::Program { path } => {
                let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
                format!("fumehood run --file {} -- ./{name}", path.display())
            }
            Self::UnexpectedArgument { verb, file, arg } => {
                let (file, arg) = (file.to_string_lossy(), arg.to_string_lossy());
                format!("arguments of the program follow `--`: fumehood {verb} {file} -- {arg}")
            }
            Self::UnknownFlag { nearest: Some(nearest), .. } => format!("did you mean --{nearest}?"),
            Self::UnknownFlag { verb, flag, file: Some(file), .. } => {
                // A file of ours is code; any other word may be meant as a program.
                let word = file.to_string_lossy();
                match std::path::Path::new(file).exists() {
                    true => format!("arguments of the program follow `--`: fumehood {verb} {word} -- {flag}"),
                    false => {
                        format!("a program inside and its arguments follow `--`: fumehood {verb} -- {word} {flag}")
                    }
                }
            }
            Self::UnknownFlag { verb, .. } => {
                format!("what is meant for the program follows `--`; `fumehood {verb} --help` lists the options")
            }
            Self::UnknownVerb { word, is_file: true, .. } => format!("fumehood run {word}"),
            Self::UnknownVerb { nearest: Some(nearest), .. } => format!("did you mean `{nearest}`?"),
            Self::UnknownVerb { .. } => "`fumehood --help` lists the commands".to_owned(),
            _ => return None,
        })
    }
}

/// What was most likely meant, if it is near.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let reach = if word.len() < 4 { 1 } else { 2 };
    let near = known.into_iter().map(|known| (strsim::osa_distance(word, known), known));
    near.filter(|(distance, known)| *distance <= reach && *distance < known.len())
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn only_what_is_near_is_suggested() {
        let verbs = ["run", "ps", "kill", "explain"];
        assert_eq!(nearest("rnu", verbs), Some("run"));
        assert_eq!(nearest("explian", verbs), Some("explain"));
        assert_eq!(nearest("kil", verbs), Some("kill"));
        assert_eq!(nearest("script.py", verbs), None);
        assert_eq!(nearest("x", verbs), None);
    }
}
