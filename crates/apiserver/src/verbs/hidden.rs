//! What a refusal must not show: somebody may change a Secret and not read it, and what is wrong with a change is often
//! told with all of the object.

use api::status::ApiError;

use crate::{ApiServer, Context};

const HIDDEN: &str = "(hidden)";

/// The same without what the Secret holds that it is about.
pub(super) async fn hidden(server: &ApiServer, context: &Context, error: ApiError) -> ApiError {
    let (kind, target) = (&context.kind, &context.target);
    let shows_values = matches!(error.code, 400 | 422 | 500);
    if !(kind.group.is_empty() && kind.kind == "Secret") || target.name.is_empty() || !shows_values {
        return error;
    }
    let Ok(Some((_, object))) = server.0.objects.get(kind, &target.namespace, &target.name).await else {
        return error;
    };
    let data = object["data"].as_object();
    let values = data.into_iter().flatten().filter_map(|(_, value)| value.as_str());
    without(error, values.filter(|value| !value.is_empty()).collect())
}

fn without(mut error: ApiError, mut values: Vec<&str>) -> ApiError {
    // One may be a part of another.
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    let clean = |text: &str| values.iter().fold(text.to_owned(), |text, value| text.replace(value, HIDDEN));
    error.message = clean(&error.message);
    let causes = error.details.iter_mut().flat_map(|details| details.causes.iter_mut().flatten());
    for message in causes.filter_map(|cause| cause.message.as_mut()) {
        *message = clean(message);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_hidden_wherever_they_stand() {
        let error = ApiError::bad_request("is \"YWJjZGVm\" and YWJj, not x");
        assert_eq!(without(error, vec!["YWJj", "YWJjZGVm"]).message, "is \"(hidden)\" and (hidden), not x");
    }
}
