//! Text to tree, by recursive descent over the grammar of CEL. Both the text's length and its nesting are bounded.

use std::sync::Arc;

use crate::ast::{Access, Call, Element, Entry, Expr, Kind, Literal, MAX_DEPTH, Member};
use crate::issues::Issues;
use crate::lex::{self, Spanned, Token};
use crate::macros;

/// In code points.
const MAX_LENGTH: usize = 100_000;
const STARTS: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, \
                      BYTES, IDENTIFIER}";
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Spelling, function, strength.
const OPERATORS: [(&str, &str, u8); 14] = [
    ("||", "_||_", 1),
    ("&&", "_&&_", 2),
    ("<", "_<_", 3),
    ("<=", "_<=_", 3),
    (">=", "_>=_", 3),
    (">", "_>_", 3),
    ("==", "_==_", 3),
    ("!=", "_!=_", 3),
    ("in", "@in", 3),
    ("+", "_+_", 4),
    ("-", "_-_", 4),
    ("*", "_*_", 5),
    ("/", "_/_", 5),
    ("%", "_%_", 5),
];

pub fn parse(source: &str) -> Result<Expr, Issues> {
    let mut issues = Issues::new(source);
    let text: Vec<char> = source.chars().collect();
    if text.len() > MAX_LENGTH {
        let message =
            format!("expression code point size exceeds limit: size: {}, limit {MAX_LENGTH}", text.len());
        issues.add(None, message);
        return Err(issues);
    }
    let tokens = lex::tokens(&text, &mut issues);
    let mut parser = Parser { text: &text, tokens, next: 0, nesting: 0, issues, gave_up: false };
    let expr = parser.expr();
    if !parser.gave_up && parser.peek() != &Token::End {
        let how = if parser.recovers() { "extraneous" } else { "mismatched" };
        parser.unexpected(how, "<EOF>");
    }
    if parser.issues.is_empty() { Ok(expr) } else { Err(parser.issues) }
}

pub struct Parser<'a> {
    text: &'a [char],
    tokens: Vec<Spanned>,
    next: usize,
    nesting: u32,
    pub issues: Issues,
    /// After a fault of syntax only what was found is reported: no guesses at what was meant.
    gave_up: bool,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |spanned| &spanned.token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.text.len(), |spanned| spanned.at)
    }

    fn advance(&mut self) {
        if self.next + 1 < self.tokens.len() {
            self.next += 1;
        }
    }

    fn accept(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(s) if *s == sign);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, sign: &str, expected: &str) {
        if !self.accept(sign) && !self.gave_up {
            self.unexpected("mismatched", expected);
        }
    }

    /// Whether leaving out one token would make the rest whole.
    fn recovers(&self) -> bool {
        self.tokens.get(self.next + 1).is_none_or(|spanned| spanned.token == Token::End)
            && !matches!(self.peek(), Token::Sign(_))
    }

    fn unexpected(&mut self, how: &str, expected: &str) {
        if self.gave_up {
            return;
        }
        self.gave_up = true;
        let found: String = match self.tokens.get(self.next) {
            Some(spanned) if spanned.token != Token::End => {
                self.text[spanned.at..spanned.end].iter().collect()
            }
            _ => "<EOF>".to_owned(),
        };
        let message = format!("Syntax error: {how} input '{found}' expecting {expected}");
        self.issues.push(self.at(), message);
    }

    /// A node, unless the tree became too deep by it.
    pub fn node(&mut self, at: usize, kind: Kind) -> Expr {
        let expr = Expr::new(at, kind);
        if expr.depth <= MAX_DEPTH {
            return expr;
        }
        self.too_deep();
        Expr::new(at, Kind::Broken)
    }

    fn too_deep(&mut self) {
        if !self.gave_up {
            self.gave_up = true;
            self.issues.add(None, format!("expression recursion limit exceeded: {MAX_DEPTH}"));
        }
    }

    fn expr(&mut self) -> Expr {
        self.nesting += 1;
        if self.nesting > MAX_DEPTH {
            self.too_deep();
        }
        if self.gave_up {
            self.nesting -= 1;
            return Expr::new(self.at(), Kind::Broken);
        }
        let condition = self.binary(0);
        let at = self.at();
        let expr = if self.accept("?") {
            let yes = self.binary(0);
            self.expect(":", "':'");
            let no = self.expr();
            self.node(at, Kind::Ternary(Box::new([condition, yes, no])))
        } else {
            condition
        };
        self.nesting -= 1;
        expr
    }

    /// By the strength of operators: one frame a nesting, however many levels there are between.
    fn binary(&mut self, weakest: u8) -> Expr {
        let mut left = self.unary();
        while !self.gave_up {
            let Token::Sign(sign) = *self.peek() else { break };
            let Some((_, function, strength)) = OPERATORS.iter().find(|(text, ..)| *text == sign) else {
                break;
            };
            if *strength < weakest {
                break;
            }
            let at = self.at();
            self.advance();
            let right = self.binary(strength + 1);
            left = match sign {
                "||" => self.join(at, left, right, false),
                "&&" => self.join(at, left, right, true),
                _ => self.call(at, function, None, vec![left, right]),
            };
        }
        left
    }

    /// A chain of one operator is one flat node, however long.
    fn join(&mut self, at: usize, left: Expr, right: Expr, and: bool) -> Expr {
        let (at, mut terms) = match (left.kind, and) {
            (Kind::And(terms), true) | (Kind::Or(terms), false) => (left.at, terms),
            (kind, _) => (at, vec![Expr { kind, ..left }]),
        };
        terms.push(right);
        self.node(at, if and { Kind::And(terms) } else { Kind::Or(terms) })
    }

    pub fn call(&mut self, at: usize, function: &str, target: Option<Expr>, args: Vec<Expr>) -> Expr {
        let call = Call { function: function.into(), target, args, overloads: Vec::new() };
        self.node(at, Kind::Call(Box::new(call)))
    }

    fn unary(&mut self) -> Expr {
        let at = self.at();
        for (sign, function) in [("!", "!_"), ("-", "-_")] {
            let mut count = 0u32;
            while self.accept(sign) {
                count += 1;
            }
            if count == 0 {
                continue;
            }
            // The last minus before a number is part of it.
            if sign == "-" && matches!(self.peek(), Token::Int(_) | Token::Double(_)) {
                let number_at = at + usize::try_from(count - 1).unwrap_or(0);
                let number = self.primary(true);
                let member = self.member(Expr { at: number_at, ..number });
                return self.negated(at, function, count - 1, member);
            }
            let member = self.primary(false);
            let member = self.member(member);
            return self.negated(at, function, count, member);
        }
        let primary = self.primary(false);
        self.member(primary)
    }

    /// Two of the same operator undo one another.
    fn negated(&mut self, at: usize, function: &str, count: u32, operand: Expr) -> Expr {
        if count.is_multiple_of(2) { operand } else { self.call(at, function, None, vec![operand]) }
    }

    fn member(&mut self, operand: Expr) -> Expr {
        let mut operand = operand;
        while !self.gave_up {
            let at = self.at();
            if self.accept("[") {
                let optional = self.accept("?");
                let key = Box::new(self.expr());
                self.expect("]", "']'");
                operand = self.node(at, Kind::Index { operand: Box::new(operand), key, optional });
            } else if self.accept(".") {
                let optional = self.accept("?");
                let Token::Ident(name) = self.peek().clone() else {
                    self.no_alternative(at);
                    break;
                };
                self.advance();
                let open = self.at();
                if !optional && self.accept("(") {
                    let args = self.list(")");
                    operand = macros::member(self, open, operand, &name, args);
                } else {
                    let how = if optional { Access::Optional } else { Access::Field };
                    operand = self.node(at, Kind::Select { operand: Box::new(operand), field: name, how });
                }
            } else if matches!(self.peek(), Token::Sign("{")) && self.message_name(&operand).is_some() {
                let name = self.message_name(&operand).unwrap_or_default();
                self.advance();
                operand = self.message(at, name.into());
            } else {
                break;
            }
        }
        operand
    }

    fn no_alternative(&mut self, from: usize) {
        if !self.gave_up {
            self.gave_up = true;
            let end = self.tokens.get(self.next).map_or(self.text.len(), |spanned| spanned.end);
            let text: String = self.text[from..end].iter().collect();
            let at = self.at();
            self.issues.push(at, format!("Syntax error: no viable alternative at input '{text}'"));
        }
    }

    /// `a.b.C` before a brace names a type.
    fn message_name(&self, expr: &Expr) -> Option<String> {
        match &expr.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select { operand, field, how: Access::Field } => {
                Some(format!("{}.{field}", self.message_name(operand)?))
            }
            _ => None,
        }
    }

    fn message(&mut self, at: usize, name: Arc<str>) -> Expr {
        let mut fields = Vec::new();
        while !self.gave_up && !self.accept("}") {
            let optional = self.accept("?");
            let Token::Ident(field) = self.peek().clone() else {
                self.unexpected("mismatched", "{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}");
                break;
            };
            self.advance();
            let at = self.at();
            self.expect(":", "':'");
            let value = self.expr();
            fields.push(Member { at, name: field, value, optional });
            if !self.accept(",") {
                self.expect("}", "{'}', ','}");
                break;
            }
        }
        self.node(at, Kind::Struct { name, fields })
    }

    fn list(&mut self, close: &str) -> Vec<Expr> {
        let mut out = Vec::new();
        if self.accept(close) {
            return out;
        }
        while !self.gave_up {
            out.push(self.expr());
            if !self.accept(",") {
                break;
            }
        }
        self.expect(close, &format!("{{'{close}', ','}}"));
        out
    }

    fn primary(&mut self, negative: bool) -> Expr {
        let at = self.at();
        let literal = match self.peek().clone() {
            Token::Int(value) => {
                let value = value.and_then(|value| match negative {
                    true => 0i64.checked_sub_unsigned(value),
                    false => i64::try_from(value).ok(),
                });
                self.number(at, value.map(Literal::Int), "int")
            }
            Token::Uint(value) => self.number(at, value.map(Literal::Uint), "uint"),
            Token::Double(value) => {
                let value = value.map(|value| if negative { -value } else { value });
                self.number(at, value.map(Literal::Double), "double")
            }
            Token::String(text) => Literal::String(text),
            Token::Bytes(data) => Literal::Bytes(data),
            Token::Sign("true") => Literal::Bool(true),
            Token::Sign("false") => Literal::Bool(false),
            Token::Sign("null") => Literal::Null,
            Token::Ident(name) => {
                self.advance();
                return self.named(at, name);
            }
            Token::Sign(".") => {
                self.advance();
                let Token::Ident(name) = self.peek().clone() else {
                    self.no_alternative(at);
                    return Expr::new(at, Kind::Broken);
                };
                self.advance();
                return self.named(at, format!(".{name}").into());
            }
            Token::Sign("(") => {
                self.advance();
                let inner = self.expr();
                self.expect(")", "')'");
                return inner;
            }
            Token::Sign("[") => {
                self.advance();
                return self.list_literal(at);
            }
            Token::Sign("{") => {
                self.advance();
                return self.map_literal(at);
            }
            _ => {
                self.unexpected("mismatched", STARTS);
                return Expr::new(at, Kind::Broken);
            }
        };
        self.advance();
        self.node(at, Kind::Literal(literal))
    }

    fn number(&mut self, at: usize, value: Option<Literal>, kind: &str) -> Literal {
        value.unwrap_or_else(|| {
            self.issues.push(at, format!("invalid {kind} literal"));
            Literal::Null
        })
    }

    fn named(&mut self, at: usize, name: Arc<str>) -> Expr {
        let open = self.at();
        if RESERVED.contains(&name.trim_start_matches('.')) {
            self.issues.push(at, format!("reserved identifier: {name}"));
        }
        if self.accept("(") {
            let args = self.list(")");
            return macros::global(self, open, &name, args);
        }
        self.node(at, Kind::Ident(name))
    }

    fn list_literal(&mut self, at: usize) -> Expr {
        let mut elements = Vec::new();
        while !self.gave_up && !self.accept("]") {
            let optional = self.accept("?");
            elements.push(Element { value: self.expr(), optional });
            if !self.accept(",") {
                self.expect("]", "{']', ','}");
                break;
            }
        }
        self.node(at, Kind::List(elements))
    }

    fn map_literal(&mut self, at: usize) -> Expr {
        let mut entries = Vec::new();
        while !self.gave_up && !self.accept("}") {
            let optional = self.accept("?");
            let key = self.expr();
            self.expect(":", "':'");
            let value = self.expr();
            entries.push(Entry { key, value, optional });
            if !self.accept(",") {
                self.expect("}", "{'}', ','}");
                break;
            }
        }
        self.node(at, Kind::Map(entries))
    }
}
