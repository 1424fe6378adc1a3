//! What is wrong with a pattern, in the words of RE2, which whoever writes patterns for Kubernetes knows.

use regex_syntax::ast::{self, Ast, ErrorKind, RepetitionKind, RepetitionRange};

/// Nothing is repeated more often.
const MAX_REPEAT: u32 = 1000;

pub fn of(error: &ast::Error) -> String {
    let pattern = error.pattern();
    let (start, end) = (error.span().start.offset, error.span().end.offset);
    let shown = pattern.get(start..end).unwrap_or_default();
    let told = |what: &str, part: &str| format!("error parsing regexp: {what}: `{part}`");
    match error.kind() {
        ErrorKind::GroupUnclosed => told("missing closing )", pattern),
        ErrorKind::GroupUnopened => told("unexpected )", pattern),
        ErrorKind::ClassUnclosed => told("missing closing ]", pattern.get(start..).unwrap_or_default()),
        ErrorKind::ClassRangeInvalid | ErrorKind::ClassRangeLiteral => {
            told("invalid character class range", shown)
        }
        ErrorKind::EscapeUnrecognized
        | ErrorKind::UnsupportedBackreference
        | ErrorKind::ClassEscapeInvalid
        | ErrorKind::EscapeHexEmpty
        | ErrorKind::EscapeHexInvalid
        | ErrorKind::EscapeHexInvalidDigit => told("invalid escape sequence", shown),
        ErrorKind::EscapeUnexpectedEof => told("trailing backslash at end of expression", ""),
        ErrorKind::UnsupportedLookAround => {
            let more = pattern.get(end..end + 1).filter(|next| shown.ends_with('<') && *next != "=");
            told("invalid or unsupported Perl syntax", &format!("{shown}{}", more.unwrap_or_default()))
        }
        ErrorKind::FlagUnrecognized
        | ErrorKind::FlagUnexpectedEof
        | ErrorKind::FlagRepeatedNegation { .. } => {
            let from = pattern.get(..start).and_then(|before| before.rfind("(?")).unwrap_or(start);
            told("invalid or unsupported Perl syntax", pattern.get(from..end).unwrap_or_default())
        }
        ErrorKind::RepetitionMissing => {
            let from = pattern.get(start..).unwrap_or_default();
            told("missing argument to repetition operator", from.get(..1).unwrap_or_default())
        }
        ErrorKind::RepetitionCountInvalid => told("invalid repeat count", shown),
        ErrorKind::GroupNameDuplicate { .. } => told("duplicate capture group name", shown),
        ErrorKind::GroupNameInvalid | ErrorKind::GroupNameEmpty => told("invalid named capture", shown),
        ErrorKind::NestLimitExceeded(_) => "error parsing regexp: expression nests too deeply".to_owned(),
        _ => error.to_string(),
    }
}

/// What our engine would take and RE2 does not.
pub fn excess(pattern: &str, ast: &Ast) -> Option<String> {
    let mut below: Vec<&Ast> = vec![ast];
    while let Some(ast) = below.pop() {
        match ast {
            Ast::Repetition(repeated) => {
                let most = match &repeated.op.kind {
                    RepetitionKind::Range(
                        RepetitionRange::Exactly(most) | RepetitionRange::Bounded(_, most),
                    ) => *most,
                    RepetitionKind::Range(RepetitionRange::AtLeast(least)) => *least,
                    _ => 0,
                };
                if most > MAX_REPEAT {
                    let span = &repeated.op.span;
                    let shown = pattern.get(span.start.offset..span.end.offset).unwrap_or_default();
                    return Some(format!("error parsing regexp: invalid repeat count: `{shown}`"));
                }
                below.push(&repeated.ast);
            }
            Ast::Group(group) => below.push(&group.ast),
            Ast::Concat(concat) => below.extend(concat.asts.iter()),
            Ast::Alternation(choice) => below.extend(choice.asts.iter()),
            _ => {}
        }
    }
    None
}
