//! How large the automaton of a pattern becomes, told from its text before anything is built: fifteen letters can stand for
//! millions of states, and whoever writes a schema may write thousands of such patterns.

use regex_syntax::ast::parse::ParserBuilder;
use regex_syntax::ast::{Ast, ClassSet, ClassSetItem, RepetitionKind, RepetitionRange};
use regex_syntax::hir::translate::Translator;

use super::re2_words;

const MAX_NESTING: u32 = 100;
/// A letter, or a range of them, in UTF-8, also where both cases are meant.
const RANGE: usize = 8;
/// Any letter at all, or all but some ASCII.
const ANY: usize = 16;
/// The largest classes of Unicode have hundreds of ranges.
const CLASS: usize = 4096;
/// What a group or a choice adds.
const JOINT: usize = 2;

/// The weight of a pattern in our engine's spelling: about its states. What is wrong with the pattern is the error.
pub fn weigh(pattern: &str, limit: usize) -> Result<usize, String> {
    const TOO_LARGE: &str = "expression too large";
    // What is read of a letter takes more room than what it weighs.
    if pattern.len() > limit / RANGE {
        return Err(TOO_LARGE.to_owned());
    }
    let ast = ParserBuilder::new().nest_limit(MAX_NESTING).build().parse(pattern);
    let ast = ast.map_err(|error| re2_words::of(&error))?;
    if let Some(fault) = re2_words::excess(pattern, &ast) {
        return Err(fault);
    }
    let weight = of(&ast);
    if weight > limit {
        return Err(TOO_LARGE.to_owned());
    }
    // Names of classes are known here only. Nothing is repeated yet.
    Translator::new().translate(pattern, &ast).map_err(|error| error.to_string())?;
    Ok(weight)
}

fn of(ast: &Ast) -> usize {
    let sum = |parts: &[Ast]| parts.iter().map(of).fold(0, usize::saturating_add);
    match ast {
        Ast::Empty(_) | Ast::Flags(_) | Ast::Assertion(_) => 1,
        Ast::Literal(_) => RANGE,
        Ast::Dot(_) => ANY,
        Ast::ClassUnicode(_) | Ast::ClassPerl(_) => CLASS,
        Ast::ClassBracketed(class) => of_set(&class.kind).saturating_add(ANY),
        Ast::Group(group) => of(&group.ast).saturating_add(JOINT),
        Ast::Concat(concat) => sum(&concat.asts),
        Ast::Alternation(choice) => sum(&choice.asts).saturating_add(JOINT * choice.asts.len()),
        Ast::Repetition(repeated) => {
            let times = match &repeated.op.kind {
                RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => 1,
                RepetitionKind::Range(RepetitionRange::Exactly(most) | RepetitionRange::Bounded(_, most)) => {
                    (*most as usize).max(1)
                }
                RepetitionKind::Range(RepetitionRange::AtLeast(least)) => *least as usize + 1,
            };
            of(&repeated.ast).saturating_add(JOINT).saturating_mul(times)
        }
    }
}

fn of_set(set: &ClassSet) -> usize {
    match set {
        ClassSet::Item(item) => of_item(item),
        ClassSet::BinaryOp(both) => of_set(&both.lhs).saturating_add(of_set(&both.rhs)),
    }
}

fn of_item(item: &ClassSetItem) -> usize {
    match item {
        ClassSetItem::Empty(_) => 0,
        ClassSetItem::Literal(_) | ClassSetItem::Range(_) | ClassSetItem::Ascii(_) => RANGE,
        ClassSetItem::Unicode(_) | ClassSetItem::Perl(_) => CLASS,
        ClassSetItem::Bracketed(class) => of_set(&class.kind).saturating_add(ANY),
        ClassSetItem::Union(union) => union.items.iter().map(of_item).fold(0, usize::saturating_add),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 21;

    #[test]
    fn what_is_weighed_is_what_is_built() {
        for (pattern, least, most) in [
            ("^a$", 8, 16),
            ("^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$", 50, 300),
            ("^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", 50, 400),
            ("^.{1,253}$", 2_000, 10_000),
            ("(\\pL{1,300}){1}", 1_000_000, LIMIT),
            ("(?i)[a-z]{5}é|[^x]", 50, 500),
            ("([^a-z]{3}){30}", 1_000, 10_000),
        ] {
            let weight = weigh(pattern, LIMIT).unwrap_or_else(|why| panic!("{pattern}: {why}"));
            assert!((least..=most).contains(&weight), "{pattern} weighs {weight}");
            // Room for what the engine itself takes.
            let built = regex::RegexBuilder::new(pattern).size_limit(weight * 64 + 4096).build();
            assert!(built.is_ok(), "{pattern}, which weighs {weight}, is larger");
        }
    }

    #[test]
    fn what_is_too_large_is_not_built() {
        for pattern in [
            "(\\pL{1,900}){1}",
            "((((a{1,99}){1,99}){1,99}){1,99}){1,99}",
            "[\\pL\\pN]{900}",
            &"\\pL".repeat(1_000),
            &"a".repeat(LIMIT),
        ] {
            assert_eq!(weigh(pattern, LIMIT), Err("expression too large".to_owned()), "{pattern:.40}");
        }
        for wrong in ["(", "\\p{Nobody}", "a{2,1}", &"(".repeat(200)] {
            let why = weigh(wrong, LIMIT).err().unwrap_or_default();
            assert!(!why.is_empty() && why != "expression too large", "{wrong}: {why}");
        }
    }
}
