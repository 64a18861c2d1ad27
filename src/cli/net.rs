//! `fumehood net`: what a running sandbox may reach.

use std::process::ExitCode;

use fumehood::{
    Error, Result,
    error::Hint,
    launch::control::{Answer, Request},
    net::policy::{Mode, Policy, Private, RuleError},
    request::Network,
    state::Record,
};

use super::{
    kill, message,
    policy::{NetworkMode, Words, rules},
    ps,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Give a running sandbox another policy, in place of the one it has; what that forbids is cut
    #[command(
        after_help = "Examples:\n  fumehood net set 3f2a --allow pypi.org\n  fumehood net set 3f2a --net none\n  \
                            fumehood net set 3f2a --net @policy.json"
    )]
    Set(SetArgs),
    /// Print a running sandbox's policy, as --net @FILE takes it
    #[command(after_help = "Examples:\n  fumehood net show 3f2a > policy.json")]
    Show {
        /// Its id, or as much of it as no other begins with
        id: String,
    },
}

#[derive(Debug, clap::Args)]
struct SetArgs {
    /// Its id, or as much of it as no other begins with
    id: String,
    /// As of `fumehood run`, but for `host`; `none` lets nothing through
    #[arg(long, value_name = "MODE", required_unless_present_any = ["allow", "deny", "allow_private"])]
    net: Option<String>,
    /// As of `fumehood run`
    #[arg(long, value_name = "RULE")]
    allow: Vec<String>,
    /// As of `fumehood run`
    #[arg(long, value_name = "RULE")]
    deny: Vec<String>,
    /// As of `fumehood run`
    #[arg(long, value_name = "HOST:PORT")]
    allow_private: Vec<String>,
}

pub fn run(args: &Args) -> ExitCode {
    let done = match &args.verb {
        Verb::Set(args) => set(args).map(|()| ExitCode::SUCCESS),
        Verb::Show { id } => show(id),
    };
    done.unwrap_or_else(|error| message::fail(&error))
}

fn set(args: &SetArgs) -> Result<()> {
    let policy = policy(args)?;
    let record = find(&args.id)?;
    match ask(&record, &Request::Set(policy))? {
        Answer::Done => Ok(()),
        other => Err(unfit(&record, &other)),
    }
}

fn show(id: &str) -> Result<ExitCode> {
    let record = find(id)?;
    match ask(&record, &Request::Show)? {
        Answer::Policy(policy) => Ok(message::print_json(&policy)),
        other => Err(unfit(&record, &other)),
    }
}

fn unfit(record: &Record, answer: &Answer) -> Error {
    let why = match answer {
        Answer::Error(why) => why,
        Answer::Policy(_) | Answer::Done => "its supervisor answers something else",
    };
    Error::new(format!("sandbox {}: {why}", record.id))
}

fn policy(args: &SetArgs) -> Result<Box<Policy>> {
    let mut words = Words { mode: args.net.as_deref().map(NetworkMode::parse).transpose()?, ..Words::default() };
    for (given, rules_of) in [(&args.allow, &mut words.allow), (&args.deny, &mut words.deny)] {
        for text in given {
            rules_of.extend(rules(text)?);
        }
    }
    for text in &args.allow_private {
        let private: Result<Private, RuleError> = text.parse();
        words.allow_private.push(private.map_err(Hint::into_error)?);
    }
    match words.network().map_err(Hint::into_error)? {
        Network::Gateway(policy) => Ok(policy),
        Network::None => Policy::new(Mode::Filtered).map(Box::new).map_err(Hint::into_error),
        Network::Host => Err(Error::new("--net host is for `fumehood run` alone: a sandbox has its network for good")
            .with_hint("--net open lets it reach all that is public")),
    }
}

fn find(id: &str) -> Result<Record> {
    let running = ps::running()?;
    kill::choose(&running, id).cloned()
}

fn ask(record: &Record, request: &Request) -> Result<Answer> {
    let failed = |why: String| Error::new(format!("sandbox {}: {why}", record.id));
    let words = serde_json::to_vec(request).map_err(|error| failed(error.to_string()))?;
    let Some(answer) = record.say(&words).map_err(Hint::into_error)? else {
        return Err(failed(format!("it has no gateway that could have a policy (--net {})", record.network))
            .with_hint("start it with --net filtered, which lets nothing through until it is told to"));
    };
    serde_json::from_slice(&answer).map_err(|error| failed(error.to_string()))
}
