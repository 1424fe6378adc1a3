//! `authorizer`: what the one who asks, or a service account, may do. Who answers is behind a trait.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::Row;
use crate::cost::{CHECK, Cost};
use crate::fault::Fault;
use crate::meter::Meter;
use crate::value::{Opaque, Value};

const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
const PATH: &str = "kubernetes.authorization.PathCheck";
const GROUP: &str = "kubernetes.authorization.GroupCheck";
const RESOURCE: &str = "kubernetes.authorization.ResourceCheck";
const DECISION: &str = "kubernetes.authorization.Decision";

macro_rules! resource_check {
    ($name:literal) => {
        concat!(
            "kubernetes.authorization.ResourceCheck::",
            $name,
            "(string): kubernetes.authorization.ResourceCheck"
        )
    };
}

pub const ROWS: &[Row] = &[
    Row(
        "kubernetes.authorization.Authorizer::path(string): kubernetes.authorization.PathCheck",
        Cost::One,
        path,
    ),
    Row(
        "kubernetes.authorization.Authorizer::group(string): kubernetes.authorization.GroupCheck",
        Cost::One,
        group,
    ),
    Row(
        "kubernetes.authorization.Authorizer::serviceAccount(string, string): kubernetes.authorization.Authorizer",
        Cost::One,
        service_account,
    ),
    Row(
        "kubernetes.authorization.GroupCheck::resource(string): kubernetes.authorization.ResourceCheck",
        Cost::One,
        resource,
    ),
    Row(resource_check!("subresource"), Cost::One, subresource),
    Row(resource_check!("namespace"), Cost::One, namespace),
    Row(resource_check!("name"), Cost::One, name),
    Row(resource_check!("fieldSelector"), Cost::Selector, field_selector),
    Row(resource_check!("labelSelector"), Cost::Selector, label_selector),
    Row(
        "kubernetes.authorization.PathCheck::check(string): kubernetes.authorization.Decision",
        Cost::Fixed(CHECK),
        check,
    ),
    Row(
        "kubernetes.authorization.ResourceCheck::check(string): kubernetes.authorization.Decision",
        Cost::Fixed(CHECK),
        check,
    ),
    Row("kubernetes.authorization.Decision::allowed(): bool", Cost::One, allowed),
    Row("kubernetes.authorization.Decision::reason(): string", Cost::One, reason),
    Row("kubernetes.authorization.Decision::errored(): bool", Cost::One, errored),
    Row("kubernetes.authorization.Decision::error(): string", Cost::One, error),
];

/// Answers whether something is allowed. Called at most as often as an expression's cost permits.
pub trait Authorizer: Send + Sync {
    fn check(&self, question: &Question) -> Decision;
}

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Namespace and name of a service account; `None` is the one whose request it is.
    pub service_account: Option<(String, String)>,
    pub verb: String,
    /// Of a question that is about no resource.
    pub path: Option<String>,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: Option<String>,
    pub label_selector: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

#[derive(Clone)]
struct Asking {
    kind: &'static str,
    who: Arc<dyn Authorizer>,
    question: Question,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple(self.kind).field(&self.question).finish()
    }
}

impl Opaque for Asking {
    fn type_name(&self) -> &'static str {
        self.kind
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        let other = other.as_any().downcast_ref::<Self>();
        other.is_some_and(|other| self.kind == other.kind && self.question == other.question)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Opaque for Decision {
    fn type_name(&self) -> &'static str {
        DECISION
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The variable `authorizer`.
pub fn authorizer<'a>(who: Arc<dyn Authorizer>) -> Value<'a> {
    Value::Opaque(Arc::new(Asking { kind: AUTHORIZER, who, question: Question::default() }))
}

/// The variable `authorizer.requestResource`.
pub fn request_resource<'a>(who: Arc<dyn Authorizer>, question: Question) -> Value<'a> {
    Value::Opaque(Arc::new(Asking { kind: RESOURCE, who, question }))
}

fn asking<'t>(args: &'t [Value<'_>]) -> Result<&'t Asking, Fault> {
    match args.first() {
        Some(Value::Opaque(value)) => value.as_any().downcast_ref().ok_or_else(Fault::no_overload),
        _ => Err(Fault::no_overload()),
    }
}

fn text<'t>(args: &'t [Value<'_>], at: usize) -> Result<&'t str, Fault> {
    match args.get(at) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(Fault::no_overload()),
    }
}

fn next<'a>(
    args: &[Value<'a>],
    kind: &'static str,
    set: impl FnOnce(&mut Question, String),
) -> Result<Value<'a>, Fault> {
    let mut asking = asking(args)?.clone();
    asking.kind = kind;
    set(&mut asking.question, text(args, 1)?.to_owned());
    Ok(Value::Opaque(Arc::new(asking)))
}

fn path<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    if text(args, 1)?.trim().is_empty() {
        return Err(Fault::failed("path must not be empty"));
    }
    next(args, PATH, |question, path| question.path = Some(path))
}

fn group<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    next(args, GROUP, |question, group| question.group = group)
}

fn service_account<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let plain = |text: &str, dots: bool| {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || (dots && c == '.');
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let limit = if dots { 253 } else { 63 };
        !text.is_empty()
            && text.len() <= limit
            && text.chars().all(fits)
            && text.starts_with(edge)
            && text.ends_with(edge)
    };
    let (namespace, name) = (text(args, 1)?, text(args, 2)?);
    if !plain(name, true) {
        return Err(Fault::failed("Invalid service account name"));
    }
    if !plain(namespace, false) {
        return Err(Fault::failed("Invalid service account namespace"));
    }
    let account = Some((namespace.to_owned(), name.to_owned()));
    next(args, AUTHORIZER, |question, _| question.service_account = account)
}

fn resource<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    if text(args, 1)?.trim().is_empty() {
        return Err(Fault::failed("resource must not be empty"));
    }
    next(args, RESOURCE, |question, resource| question.resource = resource)
}

fn subresource<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    next(args, RESOURCE, |question, subresource| question.subresource = subresource)
}

fn namespace<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    next(args, RESOURCE, |question, namespace| question.namespace = namespace)
}

fn name<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    next(args, RESOURCE, |question, name| question.name = name)
}

fn field_selector<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    next(args, RESOURCE, |question, selector| question.field_selector = Some(selector))
}

fn label_selector<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    next(args, RESOURCE, |question, selector| question.label_selector = Some(selector))
}

fn check<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let asking = asking(args)?;
    let question = Question { verb: text(args, 1)?.to_owned(), ..asking.question.clone() };
    Ok(Value::Opaque(Arc::new(asking.who.check(&question))))
}

fn decision<'t>(args: &'t [Value<'_>]) -> Result<&'t Decision, Fault> {
    match args.first() {
        Some(Value::Opaque(value)) => value.as_any().downcast_ref().ok_or_else(Fault::no_overload),
        _ => Err(Fault::no_overload()),
    }
}

fn allowed<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Bool(decision(args)?.allowed))
}

fn reason<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::text(&decision(args)?.reason))
}

fn errored<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Bool(decision(args)?.error.is_some()))
}

fn error<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::text(decision(args)?.error.as_deref().unwrap_or_default()))
}
