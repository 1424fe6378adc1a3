//! `status.typeChecking`: what expressions say wrongly of the objects that a policy is about, as far as its rules name
//! built-in kinds one by one. They are warnings: rules are taken all the same.

use std::collections::BTreeSet;

use cel::{Env, Program};
use k8s_openapi::api::admissionregistration::v1::{
    ExpressionWarning, TypeChecking, ValidatingAdmissionPolicySpec,
};

use crate::kinds::builtin;
use crate::policy::{Declared, compile_variables};
use crate::schema::expressions::declare_builtin;

/// So many kinds of one policy are looked at.
const MAX_KINDS: usize = 10;

pub fn check(spec: &ValidatingAdmissionPolicySpec) -> TypeChecking {
    let declared = Declared { params: spec.param_kind.is_some(), authorizer: true };
    let kinds = kinds(spec);
    let envs: Vec<(String, Env)> = kinds
        .iter()
        .filter_map(|(group, version, kind)| {
            let decl = declare_builtin(&crate::schema::of_kind(group, version, kind)?);
            let env = declared.env().declare("object", &decl).declare("oldObject", &decl);
            let (env, _) = compile_variables(env, spec.variables.as_deref());
            let separator = if group.is_empty() { "" } else { "/" };
            Some((format!("{group}{separator}{version}, Kind={kind}"), env))
        })
        .collect();
    let mut warnings = Vec::new();
    for (index, validation) in spec.validations.iter().flatten().enumerate() {
        let expressions = [
            ("expression", Some(&validation.expression)),
            ("messageExpression", validation.message_expression.as_ref()),
        ];
        for (field, source) in expressions {
            let Some(source) = source.filter(|source| !source.trim().is_empty()) else { continue };
            let faults: Vec<String> = envs
                .iter()
                .filter_map(|(kind, env)| {
                    Program::compile(env, source).err().map(|issues| format!("{kind}: {issues}\n"))
                })
                .collect();
            if !faults.is_empty() {
                let field_ref = format!("spec.validations[{index}].{field}");
                warnings.push(ExpressionWarning { field_ref, warning: faults.concat() });
            }
        }
    }
    TypeChecking { expression_warnings: (!warnings.is_empty()).then_some(warnings) }
}

/// Group, version and kind of what the rules name without a `*`.
fn kinds(spec: &ValidatingAdmissionPolicySpec) -> BTreeSet<(String, String, String)> {
    let mut out = BTreeSet::new();
    let rules = spec.match_constraints.iter().flat_map(|resources| resources.resource_rules.iter().flatten());
    for rule in rules {
        let names =
            |list: &'_ Option<Vec<String>>| -> BTreeSet<String> { list.iter().flatten().cloned().collect() };
        let (groups, versions) = (names(&rule.api_groups), names(&rule.api_versions));
        for resource in names(&rule.resources) {
            let found = builtin().iter().filter(|kind| {
                kind.plural == resource && groups.contains(&*kind.group) && versions.contains(&*kind.version)
            });
            for kind in found.take(MAX_KINDS - out.len().min(MAX_KINDS)) {
                out.insert((kind.group.to_string(), kind.version.to_string(), kind.kind.to_string()));
            }
        }
    }
    out
}
