//! `matchConditions`: expressions that must all hold before a webhook is called or a policy looks at a request.

use cel::{MATCH_BUDGET, Program, Type, Value};

use super::variables::{AdmissionVars, Declared, evaluate};

/// Compiled conditions, in their order.
#[derive(Debug, Clone, Default)]
pub struct MatchConditions {
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone)]
struct Condition {
    expression: String,
    program: Program,
}

/// What is wrong with one expression: which, and the detail of its field error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionFault {
    pub index: usize,
    pub detail: String,
}

impl MatchConditions {
    /// Compiles `(name, expression)` pairs as webhooks have them: with `authorizer`, without `params`.
    pub fn compile(conditions: &[(&str, &str)]) -> Result<Self, Vec<ConditionFault>> {
        Self::compile_with(Declared { params: false, authorizer: true }, conditions)
    }

    pub fn compile_with(
        declared: Declared,
        conditions: &[(&str, &str)],
    ) -> Result<Self, Vec<ConditionFault>> {
        let env = declared.env();
        let (mut compiled, mut faults) = (Vec::new(), Vec::new());
        for (index, (_, expression)) in conditions.iter().enumerate() {
            match compile(&env, expression, &[Type::Bool]) {
                Ok(program) => compiled.push(Condition { expression: (*expression).to_owned(), program }),
                Err(detail) => faults.push(ConditionFault { index, detail }),
            }
        }
        if faults.is_empty() { Ok(Self { conditions: compiled }) } else { Err(faults) }
    }

    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether all hold. One that does not outweighs what went wrong with others; the error is what failed, and the
    /// failure policy's to judge.
    pub fn matches(&self, variables: &AdmissionVars<'_>) -> Result<bool, String> {
        let mut budget = MATCH_BUDGET;
        let mut faults = Vec::new();
        for condition in &self.conditions {
            match evaluate(&condition.expression, &condition.program, variables, &mut budget)? {
                Ok(Value::Bool(true)) => {}
                Ok(_) => return Ok(false),
                Err(fault) => faults.push(fault),
            }
        }
        match faults.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

/// Compiles one expression of the given types; the error is the detail of a field error.
pub(super) fn compile(env: &cel::Env, expression: &str, types: &[Type]) -> Result<Program, String> {
    let program =
        Program::compile(env, expression).map_err(|issues| format!("compilation failed: {issues}"))?;
    let output = program.output();
    if types.contains(output) {
        return Ok(program);
    }
    let named = |ty: &Type| if *ty == Type::Null { "null_type".to_owned() } else { ty.to_string() };
    let output = named(output);
    Err(match types {
        [one] => format!("must evaluate to {} but got {output}", named(one)),
        many => {
            let all: Vec<String> = many.iter().map(named).collect();
            format!("must evaluate to one of [{}] but got {output}", all.join(" "))
        }
    })
}

#[cfg(test)]
mod tests {
    use cel::Question;
    use serde_json::{Value as Json, json};

    use super::*;

    fn check(conditions: &[&str]) -> Result<bool, String> {
        let named: Vec<(&str, &str)> = conditions.iter().map(|source| ("c", *source)).collect();
        let compiled = MatchConditions::compile(&named).map_err(|faults| faults[0].detail.clone())?;
        let object = json!({"metadata": {"name": "web", "labels": {"a": "b"}}});
        let request = json!({"operation": "CREATE", "userInfo": {"username": "jane", "groups": ["devs"]},
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "namespace": "shop"});
        compiled.matches(&AdmissionVars {
            object: &object,
            old_object: &Json::Null,
            request: &request,
            params: &Json::Null,
            namespace: &Json::Null,
            authorizer: None,
            resource: Question::default(),
        })
    }

    #[test]
    fn all_must_hold_and_one_that_does_not_decides() {
        assert_eq!(check(&[]), Ok(true));
        assert_eq!(check(&["request.operation == 'CREATE'", "object.metadata.name == 'web'"]), Ok(true));
        assert_eq!(check(&["'devs' in request.userInfo.groups && oldObject == null"]), Ok(true));
        assert_eq!(check(&["request.resource.resource != 'pods'"]), Ok(false));
        assert_eq!(check(&["object.x == 1", "false"]), Ok(false));
        let failed = "expression 'object.x == 1' resulted in error: no such key: x";
        assert_eq!(check(&["object.x == 1"]), Err(failed.to_owned()));
        assert_eq!(check(&["object.x == 1", "object.x == 1"]), Err(format!("[{failed}, {failed}]")));
    }

    #[test]
    fn what_cannot_hold_is_refused_when_it_is_written() {
        assert_eq!(check(&["1"]), Err("must evaluate to bool but got int".to_owned()));
        let undeclared = "compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params == null\n | ^";
        assert_eq!(check(&["params == null"]), Err(undeclared.to_owned()));
        let undefined =
            "compilation failed: ERROR: <input>:1:8: undefined field 'foo'\n | request.foo == 1\n | .......^";
        assert_eq!(check(&["request.foo == 1"]), Err(undefined.to_owned()));
    }

    #[test]
    fn a_budget_ends_what_is_endless() {
        let endless = "lists.range(900).all(a, lists.range(300).all(b, b >= 0))";
        let found = check(&[endless; 4]);
        assert_eq!(found, Err(super::super::variables::OUT_OF_BUDGET.to_owned()));
    }
}
