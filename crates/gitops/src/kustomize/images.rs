//! Other names, tags and digests for images, wherever containers stand in an object.

use serde_json::Value;

use super::Object;
use super::file::Image;

pub fn run(images: &[Image], objects: &mut [Object]) {
    if images.is_empty() {
        return;
    }
    for object in objects.iter_mut().filter(|o| o.kind() != "CustomResourceDefinition") {
        walk(&mut object.value, images);
    }
}

fn walk(value: &mut Value, images: &[Image]) {
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                if matches!(key.as_str(), "containers" | "initContainers") {
                    for container in child.as_array_mut().into_iter().flatten() {
                        let new = container["image"].as_str().map(|image| replaced(image, images));
                        if let Some(new) = new {
                            container["image"] = new.into();
                        }
                    }
                }
                walk(child, images);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|item| walk(item, images)),
        _ => {}
    }
}

/// Name, tag and digest of a reference.
fn split(image: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = image.split_once('@').map_or((image, None), |(rest, digest)| (rest, Some(digest)));
    match rest.rsplit_once(':') {
        // A colon before the last slash belongs to the registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag), digest),
        _ => (rest, None, digest),
    }
}

fn replaced(image: &str, images: &[Image]) -> String {
    let (name, tag, digest) = split(image);
    let Some(entry) = images.iter().find(|i| i.name == name) else { return image.to_owned() };
    let name = entry.new_name.as_deref().unwrap_or(name);
    match (&entry.new_tag, &entry.digest) {
        (Some(tag), Some(digest)) => format!("{name}:{tag}@{digest}"),
        (None, Some(digest)) => format!("{name}@{digest}"),
        (Some(tag), None) => format!("{name}:{tag}"),
        (None, None) => {
            let tag = tag.map(|t| format!(":{t}")).unwrap_or_default();
            let digest = digest.map(|d| format!("@{d}")).unwrap_or_default();
            format!("{name}{tag}{digest}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_parts_change() {
        let entry = |name: &str, new_name: Option<&str>, tag: Option<&str>| {
            vec![Image {
                name: name.into(),
                new_name: new_name.map(Into::into),
                new_tag: tag.map(Into::into),
                digest: None,
            }]
        };
        assert_eq!(replaced("web:v1", &entry("web", None, Some("v2"))), "web:v2");
        assert_eq!(replaced("web", &entry("web", Some("reg:5000/web"), None)), "reg:5000/web");
        assert_eq!(replaced("reg:5000/web:v1", &entry("reg:5000/web", None, Some("v2"))), "reg:5000/web:v2");
        assert_eq!(replaced("reg:5000/web", &entry("reg", None, Some("v2"))), "reg:5000/web");
        assert_eq!(replaced("other:v1", &entry("web", None, Some("v2"))), "other:v1");
    }
}
