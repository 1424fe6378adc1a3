//! Git: which commit a reference means, and the files of that commit. A repository on this machine is read in place; a
//! remote one is mirrored first. No `git` binary is needed.

mod remote;
pub mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::files::Files;
use crate::types::GitReference;

pub use remote::Login;

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot open the Git repository at {path}: {source}")]
    Open { path: String, source: gix::Error },
    #[error("cannot fetch {url}: {detail}")]
    Fetch { url: String, detail: String },
    #[error("{reference} is not in the repository; it has {available}")]
    NoReference { reference: String, available: String },
    #[error("no tag of the repository is in the range {range:?}")]
    NoVersion { range: String },
    #[error("cannot read commit {commit}: {detail}")]
    Read { commit: String, detail: String },
    #[error("the repository's files take more than {limit_mib} MiB; name a smaller repository")]
    TooLarge { limit_mib: usize },
    #[error("{url:?} is neither a path, nor a file://, http:// or https:// address")]
    Url { url: String },
}

/// A commit and its files.
#[derive(Clone, Debug)]
pub struct Checkout {
    /// `main@sha1:0123…`
    pub revision: String,
    pub commit: String,
    pub files: Files,
}

const FILES_LIMIT_BYTES: usize = 64 << 20;
/// A larger file is not a manifest; it is left out.
const FILE_LIMIT_BYTES: usize = 4 << 20;

/// The folder that a URL means, if it is on this machine.
pub fn local_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("file://").unwrap_or(url);
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// Where the mirror of a remote repository lies, below the engine's folder. By its address too: what another repository
/// had under this name must not be found here.
pub fn mirror(folder: &Path, namespace: &str, name: &str, url: &str) -> PathBuf {
    folder.join(namespace).join(name).join(&base::id::sha256_hex(url.as_bytes())[..16])
}

/// Brings the repository up to date and returns what its reference means now. Blocks; `cancel` ends it early.
pub fn checkout(
    url: &str,
    reference: &GitReference,
    mirror: &Path,
    login: Option<&Login>,
    known: Option<&Checkout>,
    cancel: &AtomicBool,
) -> Result<Checkout, SourceError> {
    let repository = match local_path(url) {
        Some(path) => open(&path)?,
        None if url.starts_with("https://") || url.starts_with("http://") => {
            remote::fetch(url, mirror, login, cancel)?
        }
        None => return Err(SourceError::Url { url: url.to_owned() }),
    };
    let (label, commit) = find(&repository, reference)?;
    let revision = match label.as_str() {
        "" => format!("sha1:{commit}"),
        label => format!("{label}@sha1:{commit}"),
    };
    let shown = commit.to_string();
    match known {
        // Nothing new: the files are those that are known.
        Some(known) if *known.commit == *shown => Ok(Checkout { revision, ..known.clone() }),
        _ => Ok(Checkout { revision, commit: commit.to_string(), files: read(&repository, commit)? }),
    }
}

fn open(path: &Path) -> Result<gix::Repository, SourceError> {
    // What others configured for their own use of Git must not change what is deployed.
    let options = gix::open::Options::isolated();
    gix::open_opts(path, options)
        .map_err(|source| SourceError::Open { path: path.display().to_string(), source })
}

/// The label of a reference and the commit it means.
fn find(
    repository: &gix::Repository,
    reference: &GitReference,
) -> Result<(String, gix::ObjectId), SourceError> {
    if let Some(commit) = &reference.commit {
        let id = commit_of(repository, commit, commit)?;
        return Ok((reference.branch.clone().unwrap_or_default(), id));
    }
    if let Some(name) = &reference.name {
        return Ok((name.clone(), commit_of(repository, name, name)?));
    }
    if let Some(range) = &reference.semver {
        let tag = newest_in_range(repository, range)
            .ok_or_else(|| SourceError::NoVersion { range: range.clone() })?;
        let id = commit_of(repository, &format!("refs/tags/{tag}"), &format!("tag {tag:?}"))?;
        return Ok((tag, id));
    }
    if let Some(tag) = &reference.tag {
        let id = commit_of(repository, &format!("refs/tags/{tag}"), &format!("tag {tag:?}"))?;
        return Ok((tag.clone(), id));
    }
    let branch = reference.branch.as_deref().unwrap_or("master");
    Ok((
        branch.to_owned(),
        commit_of(repository, &format!("refs/heads/{branch}"), &format!("branch {branch:?}"))?,
    ))
}

fn commit_of(repository: &gix::Repository, spec: &str, shown: &str) -> Result<gix::ObjectId, SourceError> {
    let id = match gix::ObjectId::from_hex(spec.as_bytes()) {
        Ok(id) => Some(id),
        Err(_) => {
            repository.find_reference(spec).ok().and_then(|mut r| r.peel_to_id().ok()).map(gix::Id::detach)
        }
    };
    // A tag may have an object of its own between itself and the commit.
    let object = id.and_then(|id| repository.find_object(id).ok());
    object.and_then(|object| object.peel_to_commit().ok()).map(|commit| commit.id).ok_or_else(|| {
        SourceError::NoReference { reference: shown.to_owned(), available: available(repository) }
    })
}

fn names_below(repository: &gix::Repository, prefix: &str) -> Vec<String> {
    let Ok(platform) = repository.references() else { return Vec::new() };
    let Ok(references) = platform.prefixed(prefix) else { return Vec::new() };
    let name = |r: gix::Reference<'_>| r.name().as_bstr().to_string().strip_prefix(prefix).map(str::to_owned);
    references.filter_map(Result::ok).filter_map(name).collect()
}

fn available(repository: &gix::Repository) -> String {
    let branches = names_below(repository, "refs/heads/");
    match branches.as_slice() {
        [] => "no branch yet; commit something first".to_owned(),
        branches => {
            format!("the branches {}", branches.iter().take(20).cloned().collect::<Vec<_>>().join(", "))
        }
    }
}

/// Version numbers of a tag `v1.2.3`; pre-releases are not considered.
fn version(tag: &str) -> Option<[u64; 3]> {
    let mut parts = tag.strip_prefix('v').unwrap_or(tag).split('.').map(|p| p.parse().ok());
    let version = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(version)
}

fn newest_in_range(repository: &gix::Repository, range: &str) -> Option<String> {
    let tags = names_below(repository, "refs/tags/").into_iter();
    let versions =
        tags.filter_map(|tag| version(&tag).map(|v| (v, tag))).filter(|(v, _)| in_range(*v, range));
    versions.max().map(|(_, tag)| tag)
}

/// `>=1.2.0 <2.0.0`, `^1.2`, `~1.2.3`, `1.x`, `*`, alternatives with `||`.
fn in_range(version: [u64; 3], range: &str) -> bool {
    range.split("||").any(|all| {
        let terms = all.replace(',', " ");
        terms.split_whitespace().all(|term| satisfies(version, term))
    })
}

fn satisfies(version: [u64; 3], term: &str) -> bool {
    let (operator, rest) =
        term.split_at(term.find(|c: char| c.is_ascii_digit() || "vx*X".contains(c)).unwrap_or(term.len()));
    let given: Vec<Option<u64>> = rest.trim_start_matches('v').split('.').map(|p| p.parse().ok()).collect();
    let fixed: Vec<u64> = given.iter().map_while(|p| *p).take(3).collect();
    let low = [0, 1, 2].map(|i| fixed.get(i).copied().unwrap_or(0));
    // The first version that is too high when the last given number may grow.
    let above = |keep: usize| -> [u64; 3] {
        let mut high = low;
        if keep == 0 {
            return [u64::MAX; 3];
        }
        high[keep - 1] += 1;
        high[keep..].fill(0);
        high
    };
    match operator {
        ">" => version > low,
        ">=" => version >= low,
        "<" => version < low,
        "<=" => version <= low,
        "^" => {
            let first = low.iter().position(|n| *n > 0).unwrap_or(2).min(fixed.len().max(1) - 1);
            version >= low && version < above(first + 1)
        }
        "~" => version >= low && version < above(fixed.len().clamp(1, 2)),
        "" | "=" => version >= low && version < above(fixed.len()),
        "!=" => version != low,
        _ => false,
    }
}

fn read(repository: &gix::Repository, commit: gix::ObjectId) -> Result<Files, SourceError> {
    let fault = |error: &dyn std::fmt::Display| SourceError::Read {
        commit: commit.to_string(),
        detail: error.to_string(),
    };
    let tree = repository.find_commit(commit).map_err(|e| fault(&e))?.tree().map_err(|e| fault(&e))?;
    let entries = tree.traverse().breadthfirst.files().map_err(|e| fault(&e))?;
    let mut files = BTreeMap::new();
    let mut total = 0;
    for entry in entries.into_iter().filter(|e| e.mode.is_blob()) {
        let blob = repository.find_object(entry.oid).map_err(|e| fault(&e))?;
        if blob.data.len() > FILE_LIMIT_BYTES {
            continue;
        }
        total += blob.data.len();
        if total > FILES_LIMIT_BYTES {
            return Err(SourceError::TooLarge { limit_mib: FILES_LIMIT_BYTES >> 20 });
        }
        files.insert(entry.filepath.to_string(), Arc::from(blob.data.as_slice()));
    }
    Ok(Files::new(files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_select_versions() {
        for (range, inside, outside) in [
            ("^1.2", "1.9.0", "2.0.0"),
            ("^0.2.1", "0.2.9", "0.3.0"),
            ("~1.2.3", "1.2.9", "1.3.0"),
            (">=1.0.0 <1.5.0", "1.4.9", "1.5.0"),
            ("1.x", "1.7.0", "2.0.0"),
            ("*", "9.9.9", ""),
            ("<1.0.0 || >=3", "3.1.0", "2.0.0"),
            ("1.2.3", "1.2.3", "1.2.4"),
        ] {
            assert!(in_range(version(inside).expect("a version"), range), "{inside} in {range}");
            if let Some(version) = version(outside) {
                assert!(!in_range(version, range), "{outside} not in {range}");
            }
        }
        assert_eq!(version("v1.2.3-rc1"), None);
    }
}
