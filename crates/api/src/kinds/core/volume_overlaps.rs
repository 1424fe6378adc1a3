//! Paths of one volume that lie in one another: the later would be written over the earlier, or where a folder has to be.
//! Warnings in the original's words; its order, too.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};

/// No more are told of one volume: an answer has room for fewer.
const WARNINGS_MAX: usize = 128;

/// A path, and what puts it there where that is not the volume's only source.
struct Placed {
    path: String,
    source: String,
}

impl Placed {
    fn shown(&self) -> String {
        match self.source.as_str() {
            "" => format!("{:?}", self.path),
            source => format!("{:?} ({source})", self.path),
        }
    }
}

pub fn warnings(volume: &Volume, out: &mut Vec<String>) {
    let mut tell = |what: &str, overlaps: Vec<String>| {
        let told = overlaps
            .into_iter()
            .map(|o| format!("volume {:?} ({what}): overlapping paths: {o}", volume.name));
        out.extend(told);
    };
    if let Some(map) = &volume.config_map {
        tell(&format!("ConfigMap {:?}", map.name), overlaps(keys(map.items.as_deref(), "")));
    }
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        tell(&format!("Secret {name:?}"), overlaps(keys(secret.items.as_deref(), "")));
    }
    if let Some(downward) = &volume.downward_api {
        tell("DownwardAPI", overlaps(files(downward.items.as_deref(), "")));
    }
    if let Some(projected) = &volume.projected {
        let sources = projected.sources.as_deref().unwrap_or_default();
        for _ in sources.iter().filter(|source| **source == VolumeProjection::default()) {
            out.push(format!("volume {:?} (Projected) has no sources provided", volume.name));
        }
        let placed = sources.iter().flat_map(placed).collect();
        let told = overlaps(placed).into_iter();
        out.extend(told.map(|o| format!("volume {:?} (Projected): overlapping paths: {o}", volume.name)));
    }
}

fn keys(items: Option<&[KeyToPath]>, source: &str) -> Vec<Placed> {
    let placed = |item: &KeyToPath| Placed { path: item.path.clone(), source: source.to_owned() };
    items.into_iter().flatten().map(placed).collect()
}

fn files(items: Option<&[DownwardAPIVolumeFile]>, source: &str) -> Vec<Placed> {
    let placed = |item: &DownwardAPIVolumeFile| Placed { path: item.path.clone(), source: source.to_owned() };
    items.into_iter().flatten().map(placed).collect()
}

fn placed(source: &VolumeProjection) -> Vec<Placed> {
    let one = |path: &str, source: String| vec![Placed { path: path.to_owned(), source }];
    if let Some(map) = &source.config_map {
        return keys(map.items.as_deref(), &format!("ConfigMap {:?}", map.name));
    }
    if let Some(secret) = &source.secret {
        return keys(secret.items.as_deref(), &format!("Secret {:?}", secret.name));
    }
    if let Some(downward) = &source.downward_api {
        return files(downward.items.as_deref(), "DownwardAPI");
    }
    if let Some(token) = &source.service_account_token {
        return one(&token.path, "ServiceAccountToken".into());
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        let name =
            bundle.name.as_ref().or(bundle.signer_name.as_ref()).map(String::as_str).unwrap_or_default();
        return one(&bundle.path, format!("ClusterTrustBundle {name:?}"));
    }
    let Some(certificate) = &source.pod_certificate else { return Vec::new() };
    [
        (&certificate.certificate_chain_path, "PodCertificate chain"),
        (&certificate.key_path, "PodCertificate key"),
        (&certificate.credential_bundle_path, "PodCertificate credential bundle"),
    ]
    .into_iter()
    .filter_map(|(path, source)| Some((path.as_deref()?, source)))
    .flat_map(|(path, source)| one(path, source.to_owned()))
    .collect()
}

/// Each path with those before it that it lies in, that lie in it, or that are the same. By the paths' order and not by
/// comparing all with all, as there may be many.
fn overlaps(all: Vec<Placed>) -> Vec<String> {
    let mut told = Vec::new();
    let mut seen: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let all: Vec<Placed> = all
        .into_iter()
        .map(|placed| Placed { path: placed.path.trim_end_matches('/').to_owned(), ..placed })
        .filter(|placed| !placed.path.is_empty())
        .collect();
    for (index, placed) in all.iter().enumerate() {
        let folder = format!("{}/", placed.path);
        let above = folder.match_indices('/').map(|(at, _)| &folder[..=at]).filter(|above| *above != folder);
        let mut met: Vec<usize> = above.filter_map(|above| seen.get(above)).flatten().copied().collect();
        let inside = seen.range(folder.clone()..).take_while(|(path, _)| path.starts_with(&folder));
        met.extend(inside.flat_map(|(_, at)| at).take(WARNINGS_MAX));
        met.sort_unstable();
        for other in met {
            if told.len() >= WARNINGS_MAX {
                return told;
            }
            told.push(format!("{} with {}", placed.shown(), all[other].shown()));
        }
        seen.entry(folder).or_default().push(index);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(volume: Value, expected: &[&str]) {
        let volume: Volume = serde_json::from_value(volume).expect("a volume");
        let mut out = Vec::new();
        warnings(&volume, &mut out);
        assert_eq!(out, expected, "{volume:?}");
    }

    #[test]
    fn paths_in_one_another_are_told() {
        let items =
            |paths: &[&str]| paths.iter().map(|path| json!({"key": "k", "path": path})).collect::<Vec<_>>();
        check(
            json!({"name": "v", "configMap": {"name": "m", "items": items(&["a", "a/b/", "ab", "a/b", "c"])}}),
            &[
                r#"volume "v" (ConfigMap "m"): overlapping paths: "a/b" with "a""#,
                r#"volume "v" (ConfigMap "m"): overlapping paths: "a/b" with "a""#,
                r#"volume "v" (ConfigMap "m"): overlapping paths: "a/b" with "a/b""#,
            ],
        );
        check(json!({"name": "v", "secret": {"secretName": "s", "items": items(&["a", "b"])}}), &[]);
        check(
            json!({"name": "v", "projected": {"sources": [
                {}, {"serviceAccountToken": {"path": "t/x"}}, {"secret": {"name": "s", "items": items(&["t"])}},
            ]}}),
            &[
                r#"volume "v" (Projected) has no sources provided"#,
                r#"volume "v" (Projected): overlapping paths: "t" (Secret "s") with "t/x" (ServiceAccountToken)"#,
            ],
        );
        check(json!({"name": "v", "projected": {}}), &[]);
        let many: Vec<&str> = std::iter::repeat_n("same", 50_000).collect();
        let volume: Volume =
            serde_json::from_value(json!({"name": "v", "configMap": {"name": "m", "items": items(&many)}}))
                .expect("a volume");
        let mut out = Vec::new();
        warnings(&volume, &mut out);
        assert_eq!(out.len(), WARNINGS_MAX);
    }
}
