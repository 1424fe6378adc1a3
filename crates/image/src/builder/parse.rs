//! The text of a Dockerfile into instructions.

use super::error::BuildError;
use super::instruction::{Command, Copy, Heredoc, Instruction, Step};
use super::suggest;
use crate::manifest::Healthcheck;

/// One instruction as it stands: continued lines joined, comments gone, here-documents beside it.
struct Raw {
    line: usize,
    keyword: String,
    flags: Vec<(String, Option<String>)>,
    rest: String,
    text: String,
    heredocs: Vec<Heredoc>,
}

impl Raw {
    fn error(&self, message: impl Into<String>) -> BuildError {
        BuildError::Parse { line: self.line, message: message.into() }
    }
}

pub fn parse(text: &str) -> Result<Vec<Step>, BuildError> {
    raw_instructions(text)?.into_iter().map(understand).collect()
}

fn raw_instructions(text: &str) -> Result<Vec<Raw>, BuildError> {
    let escape = escape_directive(text);
    let mut lines = text.lines().enumerate().peekable();
    let mut found = Vec::new();
    while let Some((number, line)) = lines.next() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let mut joined = String::new();
        let mut current = line.trim_start().to_owned();
        loop {
            let Some(head) = current.trim_end().strip_suffix(escape) else {
                joined.push_str(current.trim_end());
                break;
            };
            joined.push_str(head);
            // Comments and empty lines between continued lines do not end them.
            let next = lines
                .by_ref()
                .map(|(_, line)| line)
                .find(|l| !l.trim().is_empty() && !l.trim().starts_with('#'));
            match next {
                Some(next) => current = next.to_owned(),
                None => break,
            }
        }
        let mut raw = split_instruction(number + 1, &joined)?;
        if ["RUN", "COPY", "ADD"].contains(&raw.keyword.as_str()) {
            for (marker, name, strip, expand) in heredoc_markers(&raw.rest) {
                let mut content = String::new();
                let mut ended = false;
                for (_, line) in lines.by_ref() {
                    let line = if strip { line.trim_start_matches('\t') } else { line };
                    if line == name {
                        ended = true;
                        break;
                    }
                    content.push_str(line);
                    content.push('\n');
                }
                if !ended {
                    return Err(raw.error(format!("unterminated heredoc {marker:?}")));
                }
                raw.heredocs.push(Heredoc { name, content, expand });
            }
        }
        found.push(raw);
    }
    Ok(found)
}

/// `# escape=` in the comments the file begins with.
fn escape_directive(text: &str) -> char {
    let comments = text.lines().map(str::trim).take_while(|line| line.starts_with('#'));
    let directives = comments.filter_map(|line| line[1..].split_once('='));
    let mut escape = directives.filter(|(name, _)| name.trim().eq_ignore_ascii_case("escape"));
    match escape.next() {
        Some((_, value)) if value.trim() == "`" => '`',
        _ => '\\',
    }
}

fn split_instruction(line: usize, text: &str) -> Result<Raw, BuildError> {
    let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let mut rest = rest.trim();
    let mut flags = Vec::new();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        flags.push((name.to_owned(), value.map(|value| value.trim_matches('"').to_owned())));
        rest = after.trim_start();
    }
    let keyword = keyword.to_ascii_uppercase();
    let words: Vec<&str> = text.split_whitespace().skip(1).collect();
    let shown = format!("{keyword} {}", words.join(" ")).trim_end().to_owned();
    let raw = Raw { line, keyword, flags, rest: rest.to_owned(), text: shown, heredocs: Vec::new() };
    if raw.rest.is_empty() && raw.keyword != "FROM" {
        return Err(raw.error(format!("{} requires at least one argument", raw.keyword)));
    }
    Ok(raw)
}

/// `<<EOF`, `<<-EOF`, `<<"EOF"`: the marker, its name, whether tabs are taken off, whether variables are replaced.
fn heredoc_markers(text: &str) -> Vec<(String, String, bool, bool)> {
    let mut found = Vec::new();
    for word in text.split_whitespace() {
        // A number before it is a descriptor of the shell's.
        let Some(rest) = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<") else {
            continue;
        };
        let (strip, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
        let name = rest.trim_matches(|c| c == '"' || c == '\'');
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.is_empty();
        if is_name {
            found.push((word.to_owned(), name.to_owned(), strip, name.len() == rest.len()));
        }
    }
    found
}

const INSTRUCTIONS: [&str; 17] = [
    "FROM",
    "ARG",
    "ENV",
    "LABEL",
    "MAINTAINER",
    "RUN",
    "COPY",
    "ADD",
    "WORKDIR",
    "USER",
    "EXPOSE",
    "ENTRYPOINT",
    "CMD",
    "VOLUME",
    "STOPSIGNAL",
    "SHELL",
    "HEALTHCHECK",
];

fn understand(raw: Raw) -> Result<Step, BuildError> {
    let instruction = match raw.keyword.as_str() {
        "FROM" => from(&raw)?,
        "ARG" => Instruction::Arg(arguments(&raw)?),
        "ENV" => Instruction::Env(pairs(&raw)?),
        "LABEL" => Instruction::Label(pairs(&raw)?),
        "MAINTAINER" => Instruction::Label(vec![("maintainer".into(), raw.rest.clone())]),
        "RUN" => run(&raw)?,
        "COPY" | "ADD" => Instruction::Copy(copy(&raw)?),
        "WORKDIR" => Instruction::Workdir(raw.rest.clone()),
        "USER" => Instruction::User(raw.rest.clone()),
        "EXPOSE" => Instruction::Expose(words(&raw.rest)),
        "ENTRYPOINT" => Instruction::Entrypoint(command(&raw.rest)),
        "CMD" => Instruction::Cmd(command(&raw.rest)),
        "VOLUME" => Instruction::Volume(json_words(&raw.rest).unwrap_or_else(|| words(&raw.rest))),
        "STOPSIGNAL" => Instruction::StopSignal(raw.rest.clone()),
        "SHELL" => match json_words(&raw.rest).filter(|words| !words.is_empty()) {
            Some(words) => Instruction::Shell(words),
            None => return Err(raw.error("SHELL requires the arguments to be in JSON form")),
        },
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(&raw)?),
        "ONBUILD" => {
            return Err(raw.error("ONBUILD is not supported: write the instruction where it is needed"));
        }
        other => {
            let hint = suggest::hint(other, INSTRUCTIONS);
            return Err(raw.error(format!("unknown instruction: {other}{hint}")));
        }
    };
    let flags_understood = ["FROM", "RUN", "COPY", "ADD", "HEALTHCHECK"].contains(&raw.keyword.as_str());
    if let (Some((flag, _)), false) = (raw.flags.first(), flags_understood) {
        return Err(raw.error(format!("unknown flag: --{flag}")));
    }
    Ok(Step { line: raw.line, text: raw.text, instruction })
}

fn from(raw: &Raw) -> Result<Instruction, BuildError> {
    // There is one platform: this machine's.
    if let Some((flag, _)) = raw.flags.iter().find(|(flag, _)| flag != "platform") {
        return Err(raw.error(format!("unknown flag: --{flag}")));
    }
    let words: Vec<&str> = raw.rest.split_whitespace().collect();
    match words.as_slice() {
        [image] => Ok(Instruction::From { image: (*image).to_owned(), alias: None }),
        [image, word, alias] if word.eq_ignore_ascii_case("as") => {
            Ok(Instruction::From { image: (*image).to_owned(), alias: Some((*alias).to_owned()) })
        }
        _ => Err(raw.error("FROM requires either one argument, or three: FROM <source> [AS <name>]")),
    }
}

fn arguments(raw: &Raw) -> Result<Vec<(String, Option<String>)>, BuildError> {
    let split = |word: String| match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word, None),
    };
    let all: Vec<_> = words(&raw.rest).into_iter().map(split).collect();
    if all.iter().any(|(name, _)| name.is_empty()) {
        Err(raw.error("ARG names can not be blank"))
    } else {
        Ok(all)
    }
}

/// `a=1 b="2 3"`, or the old form `a the rest`.
fn pairs(raw: &Raw) -> Result<Vec<(String, String)>, BuildError> {
    let words = words(&raw.rest);
    if words.first().is_some_and(|word| word.contains('=')) {
        let split = |word: String| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok((name.trim_matches(|c| c == '"' || c == '\'').to_owned(), value.to_owned()))
            }
            _ => Err(raw.error(format!("can't find = in {word:?}. Must be of the form: name=value"))),
        };
        return words.into_iter().map(split).collect();
    }
    match raw.rest.split_once(char::is_whitespace) {
        Some((name, value)) => Ok(vec![(name.to_owned(), value.trim_start().to_owned())]),
        None => Err(raw.error(format!("{} must have two arguments", raw.keyword))),
    }
}

fn run(raw: &Raw) -> Result<Instruction, BuildError> {
    if let Some((flag, _)) = raw.flags.first() {
        return Err(raw.error(format!("RUN --{flag} is not supported")));
    }
    Ok(Instruction::Run { command: command(&raw.rest), heredocs: raw.heredocs.clone() })
}

fn copy(raw: &Raw) -> Result<Copy, BuildError> {
    let mut copy = Copy { add: raw.keyword == "ADD", heredocs: raw.heredocs.clone(), ..Copy::default() };
    for (flag, value) in &raw.flags {
        match (flag.as_str(), value) {
            ("from", Some(value)) if !copy.add => copy.from = Some(value.clone()),
            ("chown", Some(value)) => copy.chown = Some(value.clone()),
            ("chmod", Some(value)) => copy.chmod = Some(value.clone()),
            // Every copy is a layer of its own already.
            ("link", _) => {}
            _ => return Err(raw.error(format!("unknown flag: --{flag}"))),
        }
    }
    let mut words = json_words(&raw.rest).unwrap_or_else(|| words(&raw.rest));
    copy.destination = words.pop().unwrap_or_default();
    if words.is_empty() {
        return Err(raw.error(format!("{} requires at least two arguments", raw.keyword)));
    }
    copy.sources = words;
    Ok(copy)
}

fn healthcheck(raw: &Raw) -> Result<Healthcheck, BuildError> {
    let mut check = Healthcheck::default();
    for (flag, value) in &raw.flags {
        let value = value.as_deref().unwrap_or_default();
        let duration = || duration_ns(value).ok_or_else(|| raw.error(format!("invalid duration {value:?}")));
        match flag.as_str() {
            "interval" => check.interval = duration()?,
            "timeout" => check.timeout = duration()?,
            "start-period" => check.start_period = duration()?,
            "start-interval" => check.start_interval = duration()?,
            "retries" => check.retries = value.parse().map_err(|_| raw.error("invalid number of retries"))?,
            other => return Err(raw.error(format!("unknown flag: --{other}"))),
        }
    }
    let (kind, rest) = raw.rest.split_once(char::is_whitespace).unwrap_or((&raw.rest, ""));
    check.test = match (kind.to_ascii_uppercase().as_str(), command(rest.trim())) {
        ("NONE", _) => vec!["NONE".into()],
        ("CMD", Command::Exec(words)) => [vec!["CMD".to_owned()], words].concat(),
        ("CMD", Command::Shell(line)) => vec!["CMD-SHELL".into(), line],
        _ => return Err(raw.error(format!("unknown type {kind:?} in HEALTHCHECK (try CMD)"))),
    };
    Ok(check)
}

/// `1m30s`, `500ms`
fn duration_ns(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 6] =
        [("ms", 1e6), ("us", 1e3), ("ns", 1.0), ("h", 3.6e12), ("m", 6e10), ("s", 1e9)];
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let (unit, factor) = UNITS.iter().find(|(unit, _)| rest[end..].starts_with(unit))?;
        total += number * factor;
        rest = &rest[end + unit.len()..];
    }
    (!text.is_empty()).then_some(total as u64)
}

fn command(rest: &str) -> Command {
    json_words(rest).map_or_else(|| Command::Shell(rest.to_owned()), Command::Exec)
}

/// `["a", "b"]`; anything that is not valid JSON is a line for the shell.
fn json_words(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Split at blanks outside of quotes. Quotes stay: expansion needs them.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut escaped) = (Vec::new(), String::new(), None, false);
    for c in text.chars() {
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', None | Some('"')) => escaped = true,
            (c, Some(q)) if c == q => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Instruction {
        let steps = parse(text).expect(text);
        assert_eq!(steps.len(), 1, "{steps:?}");
        steps[0].instruction.clone()
    }

    fn own(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn lines_are_joined_and_comments_skipped() {
        let steps = parse("# escape=\\\n\n# hello\nfrom a as b\nRUN one && \\\n  # not this\n\n  two\n")
            .expect("parses");
        assert_eq!(steps[0].instruction, Instruction::From { image: "a".into(), alias: Some("b".into()) });
        assert_eq!((steps[1].line, steps[1].text.as_str()), (5, "RUN one && two"));
        let windows = parse("# escape=`\nRUN one `\n two \\\n").expect("parses");
        assert_eq!(windows[0].text, "RUN one two \\");
    }

    #[test]
    fn forms_are_told_apart() {
        assert_eq!(one("CMD [\"a\", \"b c\"]"), Instruction::Cmd(Command::Exec(own(&["a", "b c"]))));
        assert_eq!(one("CMD a 'b"), Instruction::Cmd(Command::Shell("a 'b".into())));
        assert_eq!(one("CMD [not json"), Instruction::Cmd(Command::Shell("[not json".into())));
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(one("ENV a=1 b=\"2 3\""), Instruction::Env(vec![pair("a", "1"), pair("b", "\"2 3\"")]));
        assert_eq!(one("ENV a the rest"), Instruction::Env(vec![pair("a", "the rest")]));
        assert_eq!(
            one("ARG a b=c"),
            Instruction::Arg(vec![("a".into(), None), ("b".into(), Some("c".into()))])
        );
        let Instruction::Copy(copy) = one("COPY --from=x --chown=1:2 a b /c/") else { panic!("a copy") };
        assert_eq!((copy.from.as_deref(), copy.chown.as_deref()), (Some("x"), Some("1:2")));
        assert_eq!((copy.sources, copy.destination.as_str()), (own(&["a", "b"]), "/c/"));
        let Instruction::Healthcheck(check) = one("HEALTHCHECK --interval=1m30s --retries=3 CMD curl x")
        else {
            panic!()
        };
        assert_eq!(
            (check.interval, check.retries, check.test),
            (90_000_000_000, 3, own(&["CMD-SHELL", "curl x"]))
        );
    }

    #[test]
    fn here_documents_are_taken_out() {
        let steps =
            parse("RUN <<EOF\necho $a\n# kept\nEOF\nCOPY <<-'X' <<Y /dir/\n\tone\n\tX\ntwo\nY\nUSER a")
                .expect("parses");
        let Instruction::Run { heredocs, .. } = &steps[0].instruction else { panic!("a run") };
        assert_eq!(
            heredocs[0],
            Heredoc { name: "EOF".into(), content: "echo $a\n# kept\n".into(), expand: true }
        );
        let Instruction::Copy(copy) = &steps[1].instruction else { panic!("a copy") };
        assert_eq!(copy.heredocs[0], Heredoc { name: "X".into(), content: "one\n".into(), expand: false });
        assert_eq!(copy.heredocs[1].content, "two\n");
        assert_eq!(steps[2].line, 10);
    }

    #[test]
    fn mistakes_name_their_line() {
        let check = |text: &str, expect: &str| {
            assert_eq!(parse(text).expect_err(text).to_string(), expect);
        };
        check(
            "FROM a\nRUM x",
            "dockerfile parse error on line 2: unknown instruction: RUM (did you mean RUN?)",
        );
        check(
            "FROM",
            "dockerfile parse error on line 1: FROM requires either one argument, or three: FROM <source> [AS <name>]",
        );
        check("FROM a\n\nCOPY x", "dockerfile parse error on line 3: COPY requires at least two arguments");
        check("FROM a\nRUN <<E\nx", "dockerfile parse error on line 2: unterminated heredoc \"<<E\"");
        check(
            "ONBUILD RUN x",
            "dockerfile parse error on line 1: ONBUILD is not supported: write the instruction where it is needed",
        );
        check("RUN --mount=type=cache x", "dockerfile parse error on line 1: RUN --mount is not supported");
        check("WORKDIR", "dockerfile parse error on line 1: WORKDIR requires at least one argument");
        check(
            "SHELL sh",
            "dockerfile parse error on line 1: SHELL requires the arguments to be in JSON form",
        );
    }
}
