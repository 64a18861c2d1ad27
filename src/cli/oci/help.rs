//! `--help`, in the form that command lines of containers have.

use super::{
    flags::Flag,
    table::{GLOBALS, VERBS, Verb},
};

/// Of the whole.
pub fn all(program: &str) -> String {
    let mut text = format!(
        "NAME:\n   {program} - Open Container Initiative runtime, fumehood's own\n\n\
         USAGE:\n   {program} [global options] command [options] [arguments]\n\nCOMMANDS:\n"
    );
    rows(&mut text, VERBS.iter().map(|verb| (verb.name.to_owned(), verb.about)));
    text.push_str("\nGLOBAL OPTIONS:\n");
    rows(&mut text, options(GLOBALS));
    text
}

/// Of one command.
pub fn of(program: &str, verb: &Verb) -> String {
    let Verb { name, words, about, .. } = verb;
    let words = if words.is_empty() { String::new() } else { format!(" {words}") };
    let mut text =
        format!("NAME:\n   {program} {name} - {about}\n\nUSAGE:\n   {program} {name} [options]{words}\n\nOPTIONS:\n");
    rows(&mut text, options(verb.flags));
    text
}

fn options(flags: &'static [Flag]) -> impl Iterator<Item = (String, &'static str)> {
    let row = |flag: &Flag| {
        let short = flag.short.map(|letter| format!(", -{}", letter as char)).unwrap_or_default();
        let value = flag.value.map(|value| format!(" {value}")).unwrap_or_default();
        (format!("--{}{short}{value}", flag.long), flag.about)
    };
    let shown = flags.iter().filter(|flag| !flag.about.is_empty());
    shown.map(row).chain([("--help, -h".to_owned(), "show help")])
}

fn rows(text: &mut String, rows: impl Iterator<Item = (String, &'static str)>) {
    let rows: Vec<_> = rows.collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, about) in rows {
        text.push_str(&format!("   {name:width$}  {about}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_tells_its_options() {
        for verb in VERBS {
            let text = of("fumehood-oci", verb);
            assert!(text.starts_with(&format!("NAME:\n   fumehood-oci {} - ", verb.name)), "{text}");
            for flag in verb.flags {
                assert_eq!(text.contains(&format!("--{}", flag.long)), !flag.about.is_empty(), "{}", flag.long);
            }
        }
        assert!(VERBS.iter().all(|verb| all("x").contains(&format!("   {} ", verb.name))));
    }
}
