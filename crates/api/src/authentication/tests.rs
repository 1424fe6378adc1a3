//! Configurations as users write them, and what they make of the claims of a token.

use serde_json::{Value, json};

use super::*;

const OWN: &str = "https://kubernetes.default.svc.cluster.local";

fn file(jwt: &str) -> String {
    format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n{jwt}")
}

fn with(mappings: &str) -> String {
    file(&format!("jwt:\n- issuer: {{url: 'https://i.example', audiences: [api]}}\n{mappings}"))
}

fn check(mappings: &str, claims: Value, expected: Result<(&str, &[&str]), &str>) {
    let configuration = parse(&with(mappings), OWN).expect("a configuration");
    let made = configuration.issuers[0].user(&claims);
    let made = made.map(|user| (user.username, user.groups));
    let expected = expected
        .map(|(name, groups)| (name.to_owned(), groups.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>()));
    assert_eq!(made, expected.map_err(str::to_owned), "{claims}");
}

#[test]
fn claims_make_a_user() {
    let plain =
        "  claimMappings: {username: {claim: sub, prefix: 'oidc:'}, groups: {claim: roles, prefix: 'g:'}}";
    check(plain, json!({"sub": "jane", "roles": ["a", "b"]}), Ok(("oidc:jane", &["g:a", "g:b"])));
    check(plain, json!({"sub": "jane", "roles": "a"}), Ok(("oidc:jane", &["g:a"])));
    check(plain, json!({"sub": "jane"}), Ok(("oidc:jane", &[])));
    check(plain, json!({"roles": ["a"]}), Err("oidc: claim \"sub\" is not present"));
    check(
        plain,
        json!({"sub": "jane", "roles": {"a": 1}}),
        Err("oidc: parse groups claim \"roles\": neither text nor a list of it"),
    );
    let expressed = "  claimMappings: {username: {expression: \"claims.name + '@x'\"}, groups: {expression: \"claims.roles.filter(r, r != 'root')\"}}";
    check(expressed, json!({"name": "jane", "roles": ["a", "root"]}), Ok(("jane@x", &["a"])));
    let ruled = "  claimValidationRules: [{claim: hd, requiredValue: x}, {expression: 'claims.exp - claims.nbf <= 3600', message: too long}]\n  \
                 claimMappings: {username: {claim: sub, prefix: ''}}\n  \
                 userValidationRules: [{expression: \"!user.username.startsWith('system:')\", message: reserved}]";
    let claims = |sub: &str, hd: &str, exp: i64| json!({"sub": sub, "hd": hd, "exp": exp, "nbf": 0});
    check(ruled, claims("jane", "x", 60), Ok(("jane", &[])));
    check(ruled, claims("jane", "y", 60), Err("oidc: claim hd is not \"x\""));
    check(ruled, claims("jane", "x", 6000), Err("too long"));
    check(ruled, claims("system:admin", "x", 60), Err("reserved"));
}

#[test]
fn a_token_is_for_one_of_the_audiences() {
    let configuration =
        parse(&with("  claimMappings: {username: {claim: sub, prefix: ''}}"), OWN).expect("a configuration");
    let has = |aud: Value| configuration.issuers[0].has_audience(&json!({"aud": aud}));
    assert!(has(json!("api")) && has(json!(["x", "api"])));
    assert!(!has(json!("x")) && !has(json!(["x"])) && !has(json!(null)) && !has(json!([])));
}

#[test]
fn what_is_wrong_with_a_configuration_is_said() {
    let fault = |text: &str| parse(text, OWN).map(|_| ()).expect_err("refused");
    let jwt = |issuer: &str, rest: &str| {
        file(&format!(
            "jwt:\n- issuer: {issuer}\n  claimMappings: {{username: {{claim: sub, prefix: ''}}}}\n{rest}"
        ))
    };
    for (text, expected) in [
        (file("jwt: 7"), "invalid type"),
        (file("jwt: []\nmore: 1"), "unknown field"),
        (jwt("{url: 'http://i', audiences: [a]}", ""), "URL scheme must be https"),
        (jwt("{url: 'https://u@i', audiences: [a]}", ""), "must not contain a username"),
        (jwt(&format!("{{url: '{OWN}', audiences: [a]}}"), ""), "must not overlap"),
        (jwt("{url: 'https://i', audiences: []}", ""), "audiences: Required value"),
        (jwt("{url: 'https://i', audiences: [a, b]}", ""), "audienceMatchPolicy must be MatchAny"),
        (with("  claimMappings: {username: {claim: sub}}"), "prefix is required when claim is set"),
        (with("  claimMappings: {username: {}}"), "claim or expression is required"),
        (with("  claimMappings: {username: {expression: 'claims.'}}"), "compilation failed"),
        (
            with(
                "  claimValidationRules: [{expression: '1 + 1'}]\n  claimMappings: {username: {claim: sub, prefix: ''}}",
            ),
            "must evaluate to bool",
        ),
        (
            with(
                "  claimMappings: {username: {claim: sub, prefix: ''}, extra: [{key: 'x.k8s.io/a', valueExpression: \"'1'\"}]}",
            ),
            "outside of k8s.io",
        ),
        (file("anonymous: {enabled: false, conditions: [{path: /livez}]}"), "enabled should be set to true"),
    ] {
        let said = fault(&text);
        assert!(said.contains(expected), "{text}\n{said}");
    }
    let open = parse(&file("anonymous: {enabled: true, conditions: [{path: /livez}]}"), OWN)
        .expect("a configuration");
    let open = open.anonymous.expect("said");
    assert!(open.allows("/livez") && !open.allows("/livez/x") && !open.allows("/api"));
}

#[test]
fn an_expression_that_takes_too_long_lets_nobody_in() {
    let bomb = "  claimMappings: {username: {expression: \"claims.a.all(x, claims.a.all(y, claims.a.all(z, x + y + z >= 0))) ? 'u' : 'v'\"}}";
    let configuration = parse(&with(bomb), OWN).expect("a configuration");
    let many: Vec<u32> = (0..2000).collect();
    assert!(configuration.issuers[0].user(&json!({"a": many})).is_err());
}
