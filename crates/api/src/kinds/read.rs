//! What an object gets when it is read, if another server has stored it: fields that the original fills in whenever it
//! decodes, and the form of the version that is known, where one that is served no more still lies in stores.

use serde_json::{Map, Value, json};

/// A job without labels has those of its pods.
pub fn job(mut object: Value) -> Value {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    let bare =
        crate::meta::metadata(&object).get("labels").and_then(Value::as_object).is_none_or(Map::is_empty);
    if bare && labels.is_object() {
        crate::meta::set(&mut object, "labels", labels);
    }
    object
}

/// A claim that nobody has looked at is pending.
pub fn claim(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        let status = map.entry("status").or_insert_with(|| json!({}));
        if let Some(status) = status.as_object_mut() {
            status.entry("phase").or_insert_with(|| "Pending".into());
        }
    }
    object
}

/// The templates of a set's claims say what they are.
pub fn stateful_set(mut object: Value) -> Value {
    let templates = object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
    for template in templates.into_iter().flatten() {
        *template = claim(std::mem::take(template));
        if let Some(template) = template.as_object_mut() {
            template.insert("apiVersion".into(), "v1".into());
            template.insert("kind".into(), "PersistentVolumeClaim".into());
        }
    }
    object
}

/// A CustomResourceDefinition of `v1beta1`, which the original stores to this day: what holds of all versions stands
/// beside them there, and in each of them in `v1`.
pub fn definition(mut object: Value) -> Value {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return object };
    let first = spec.remove("version").unwrap_or_default();
    let schema = spec.remove("validation");
    let subresources = spec.remove("subresources");
    let columns = spec.remove("additionalPrinterColumns");
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(false)) {
        spec.remove("preserveUnknownFields");
    }
    let versions = spec.entry("versions").or_insert_with(|| json!([]));
    if versions.as_array().is_none_or(Vec::is_empty) {
        *versions = json!([{"name": first, "served": true, "storage": true}]);
    }
    for version in versions.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        let shared =
            [("schema", &schema), ("subresources", &subresources), ("additionalPrinterColumns", &columns)];
        for (field, value) in shared {
            if let Some(value) = value {
                version.entry(field).or_insert_with(|| value.clone());
            }
        }
        let columns = version.get_mut("additionalPrinterColumns").and_then(Value::as_array_mut);
        for column in columns.into_iter().flatten().filter_map(Value::as_object_mut) {
            if let Some(path) = column.remove("JSONPath") {
                column.insert("jsonPath".into(), path);
            }
        }
    }
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut) {
        convert_webhook(conversion);
    }
    object
}

fn convert_webhook(conversion: &mut Map<String, Value>) {
    let (client, versions) =
        (conversion.remove("webhookClientConfig"), conversion.remove("conversionReviewVersions"));
    let mut webhook = Map::new();
    webhook.extend(client.map(|client| ("clientConfig".to_owned(), client)));
    webhook.extend(versions.map(|versions| ("conversionReviewVersions".to_owned(), versions)));
    if webhook.contains_key("clientConfig") {
        conversion.insert("webhook".into(), webhook.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: Value, expected: Value) {
        assert_eq!(definition(json!({"spec": spec}))["spec"], expected);
    }

    #[test]
    fn what_the_original_fills_in() {
        let labels = json!({"a": "b"});
        let template = json!({"template": {"metadata": {"labels": labels}}});
        assert_eq!(job(json!({"spec": template}))["metadata"]["labels"], labels);
        let own = job(json!({"metadata": {"labels": {"x": "y"}}, "spec": template}));
        assert_eq!(own["metadata"]["labels"], json!({"x": "y"}));
        assert_eq!(claim(json!({"status": {"phase": "Bound"}}))["status"]["phase"], "Bound");
        let set = stateful_set(json!({"spec": {"volumeClaimTemplates": [{}]}}));
        assert_eq!(
            set["spec"]["volumeClaimTemplates"][0],
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}})
        );
    }

    #[test]
    fn definitions_of_before() {
        check(
            json!({"version": "v1", "validation": {"a": 1}, "preserveUnknownFields": false,
                "additionalPrinterColumns": [{"name": "x", "JSONPath": ".a"}]}),
            json!({"versions": [{"name": "v1", "served": true, "storage": true, "schema": {"a": 1},
                "additionalPrinterColumns": [{"name": "x", "jsonPath": ".a"}]}]}),
        );
        check(
            json!({"versions": [{"name": "v2", "schema": {"own": 1}}], "subresources": {"status": {}},
                "conversion": {"strategy": "Webhook", "webhookClientConfig": {"url": "u"}, "conversionReviewVersions": ["v1"]}}),
            json!({"versions": [{"name": "v2", "schema": {"own": 1}, "subresources": {"status": {}}}],
                "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {"url": "u"}, "conversionReviewVersions": ["v1"]}}}),
        );
    }
}
