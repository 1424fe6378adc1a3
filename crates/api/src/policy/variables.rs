//! The variables of admission's expressions, and how they are declared.

use std::sync::{Arc, LazyLock};

use cel::functions::{authorizer, request_resource};
use cel::{
    Authorizer, CALL_LIMIT, Decl, DeclKind, Env, Fault, Field, ListKind, Meter, Program, Question, Type,
    Value, Variables,
};
use serde_json::Value as Json;

use crate::expressions::library;

pub(super) const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// What an expression is about. Absent objects are null.
#[derive(Clone)]
pub struct AdmissionVars<'a> {
    pub object: &'a Json,
    pub old_object: &'a Json,
    /// The `AdmissionRequest`, without the objects.
    pub request: &'a Json,
    pub params: &'a Json,
    /// The namespace of the object; null where it has none.
    pub namespace: &'a Json,
    pub authorizer: Option<Arc<dyn Authorizer>>,
    /// What `authorizer.requestResource` asks about.
    pub resource: Question,
}

/// Which variables there are, beside those that always are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Declared {
    pub params: bool,
    pub authorizer: bool,
}

impl Declared {
    pub(crate) fn env(self) -> Env {
        let mut env = Env::new(library().clone())
            .variable("object", Type::Dyn)
            .variable("oldObject", Type::Dyn)
            .declare("request", request_decl())
            .declare("namespaceObject", namespace_decl());
        if self.params {
            env = env.variable("params", Type::Dyn);
        }
        if self.authorizer {
            env = env.variable("authorizer", Type::Opaque("kubernetes.authorization.Authorizer")).variable(
                "authorizer.requestResource",
                Type::Opaque("kubernetes.authorization.ResourceCheck"),
            );
        }
        env
    }
}

impl<'a> Variables<'a> for AdmissionVars<'a> {
    fn get(&self, name: &str, _: &mut Meter) -> Result<Option<Value<'a>>, Fault> {
        Ok(Some(match name {
            "object" => Decl::any().read(self.object)?,
            "oldObject" => Decl::any().read(self.old_object)?,
            "params" => Decl::any().read(self.params)?,
            "request" => request_decl().read(self.request)?,
            "namespaceObject" => namespace_decl().read(self.namespace)?,
            "authorizer" => match &self.authorizer {
                Some(who) => authorizer(Arc::clone(who)),
                None => return Ok(None),
            },
            "authorizer.requestResource" => match &self.authorizer {
                Some(who) => request_resource(Arc::clone(who), self.resource.clone()),
                None => return Ok(None),
            },
            _ => return Ok(None),
        }))
    }
}

/// Evaluates on a budget; the outer error is that it is used up.
pub(super) fn evaluate<'a>(
    source: &str,
    program: &Program,
    variables: &dyn Variables<'a>,
    budget: &mut i64,
) -> Result<Result<Value<'a>, String>, &'static str> {
    let evaluation = program.evaluate(variables, CALL_LIMIT);
    spend(budget, evaluation.spent)?;
    Ok(evaluation.result.map_err(|fault| format!("expression '{source}' resulted in error: {fault}")))
}

pub(super) fn spend(budget: &mut i64, cost: u64) -> Result<(), &'static str> {
    match i64::try_from(cost) {
        Ok(cost) if cost <= *budget => {
            *budget -= cost;
            Ok(())
        }
        _ => Err(OUT_OF_BUDGET),
    }
}

/// Sizes are not bounded here: what these expressions may cost is only known when they run.
fn decl(kind: DeclKind) -> Arc<Decl> {
    Arc::new(Decl::new(kind, u64::MAX, 1))
}

fn text() -> Arc<Decl> {
    decl(DeclKind::String)
}

fn list(item: Arc<Decl>) -> Arc<Decl> {
    decl(DeclKind::List { item, kind: ListKind::Atomic })
}

fn map(value: Arc<Decl>) -> Arc<Decl> {
    decl(DeclKind::Map(value))
}

fn object(name: &str, fields: &[(&str, Arc<Decl>)]) -> Arc<Decl> {
    let field = |(name, decl): &(&str, Arc<Decl>)| {
        let expressed = cel::escape(name).unwrap_or_default().into_owned();
        (expressed.into(), Field { json: (*name).into(), decl: Arc::clone(decl) })
    };
    decl(DeclKind::Object { name: name.into(), fields: fields.iter().map(field).collect() })
}

fn request_decl() -> &'static Arc<Decl> {
    static REQUEST: LazyLock<Arc<Decl>> = LazyLock::new(|| {
        let three =
            |name: &str, last: &str| object(name, &[("group", text()), ("version", text()), (last, text())]);
        let kind = three("kubernetes.GroupVersionKind", "kind");
        let resource = three("kubernetes.GroupVersionResource", "resource");
        let user = object(
            "kubernetes.UserInfo",
            &[("username", text()), ("uid", text()), ("groups", list(text())), ("extra", map(list(text())))],
        );
        object(
            "kubernetes.AdmissionRequest",
            &[
                ("kind", Arc::clone(&kind)),
                ("resource", Arc::clone(&resource)),
                ("subResource", text()),
                ("requestKind", kind),
                ("requestResource", resource),
                ("requestSubResource", text()),
                ("name", text()),
                ("namespace", text()),
                ("operation", text()),
                ("userInfo", user),
                ("dryRun", decl(DeclKind::Bool)),
                ("options", decl(DeclKind::Dyn)),
            ],
        )
    });
    &REQUEST
}

fn namespace_decl() -> &'static Arc<Decl> {
    static NAMESPACE: LazyLock<Arc<Decl>> = LazyLock::new(|| {
        let time = || decl(DeclKind::Timestamp);
        let condition = object(
            "kubernetes.NamespaceCondition",
            &[
                ("status", text()),
                ("type", text()),
                ("lastTransitionTime", time()),
                ("message", text()),
                ("reason", text()),
            ],
        );
        let metadata = object(
            "kubernetes.NamespaceMetadata",
            &[
                ("name", text()),
                ("generateName", text()),
                ("namespace", text()),
                ("labels", map(text())),
                ("annotations", map(text())),
                ("UID", text()),
                ("creationTimestamp", time()),
                ("deletionGracePeriodSeconds", decl(DeclKind::Int)),
                ("deletionTimestamp", time()),
                ("generation", decl(DeclKind::Int)),
                ("resourceVersion", text()),
                ("finalizers", list(text())),
            ],
        );
        let spec = object("kubernetes.NamespaceSpec", &[("finalizers", list(text()))]);
        let status =
            object("kubernetes.NamespaceStatus", &[("conditions", list(condition)), ("phase", text())]);
        object("kubernetes.Namespace", &[("metadata", metadata), ("spec", spec), ("status", status)])
    });
    &NAMESPACE
}
