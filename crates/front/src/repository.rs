//! The Git repository that `up` is to deploy: where it lies, which branch is checked out, at which commit. Three
//! small files of `.git` tell it; everything else is the GitOps engine's.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Local(Repository),
    /// `https://…`
    Remote(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Its top folder.
    pub top: PathBuf,
    /// The folder that was named, as seen from the top; empty for the top itself.
    pub below: String,
    pub head: Head,
    /// Where references are kept.
    common: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    Branch(String),
    Commit(String),
}

/// What a word means: an address, or a folder in a repository. `Ok(None)`: the folder is in none.
pub fn find(word: &str) -> anyhow::Result<Option<Source>> {
    if word.starts_with("https://") || word.starts_with("http://") {
        return Ok(Some(Source::Remote(word.to_owned())));
    }
    if let Some((scheme, _)) = word.split_once("://").filter(|(scheme, _)| *scheme != "file") {
        bail!("{scheme}:// is not an address kedge can fetch from; use https://, file:// or a folder");
    }
    // As git itself writes it: user@host:path.
    if word.contains('@')
        && word.split_once(':').is_some_and(|(host, _)| !host.contains('/'))
        && !Path::new(word).exists()
    {
        bail!(
            "{word} is fetched by SSH, which kedge cannot do; use its https:// address, or a folder it is cloned into"
        );
    }
    let folder = Path::new(word.strip_prefix("file://").unwrap_or(word));
    let folder =
        fs::canonicalize(folder).with_context(|| format!("there is no folder {}", folder.display()))?;
    if !folder.is_dir() {
        bail!("{} is a file; name a folder of a Git repository", folder.display());
    }
    Ok(open(&folder)?.map(Source::Local))
}

fn open(folder: &Path) -> anyhow::Result<Option<Repository>> {
    for top in folder.ancestors() {
        let Some(git) = git_folder(top)? else { continue };
        let below = folder.strip_prefix(top).unwrap_or(Path::new(""));
        let common = match fs::read_to_string(git.join("commondir")) {
            Ok(path) => git.join(path.trim()),
            Err(_) => git.clone(),
        };
        let text = fs::read_to_string(git.join("HEAD"))
            .with_context(|| format!("cannot read {}", git.join("HEAD").display()))?;
        let head = match text.trim().strip_prefix("ref: refs/heads/") {
            Some(branch) => Head::Branch(branch.to_owned()),
            None => Head::Commit(text.trim().to_owned()),
        };
        return Ok(Some(Repository { top: top.to_owned(), below: slashed(below), head, common }));
    }
    Ok(None)
}

/// Where the repository of a top folder keeps its own files.
fn git_folder(top: &Path) -> anyhow::Result<Option<PathBuf>> {
    let git = top.join(".git");
    if git.is_dir() {
        return Ok(Some(git));
    }
    if git.is_file() {
        // A work tree or a submodule.
        let text = fs::read_to_string(&git).with_context(|| format!("cannot read {}", git.display()))?;
        let path = text
            .trim()
            .strip_prefix("gitdir: ")
            .with_context(|| format!("{} names no folder", git.display()))?;
        return Ok(Some(top.join(path)));
    }
    let bare = top.join("HEAD").is_file() && top.join("objects").is_dir() && top.join("refs").is_dir();
    Ok(bare.then(|| top.to_owned()))
}

fn slashed(path: &Path) -> String {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_string_lossy()),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}

impl Repository {
    /// Whether it has no working tree: what it holds is in its commits alone.
    pub fn is_bare(&self) -> bool {
        self.common == self.top
    }

    /// Whether a branch surely has no commit: it is misspelled, or nothing was committed yet.
    pub fn lacks(&self, branch: &str) -> bool {
        // Newer repositories may keep references in another form, which is not read here.
        !self.common.join("reftable").exists() && self.commit_of(branch).is_none()
    }

    fn commit_of(&self, branch: &str) -> Option<String> {
        let name = format!("refs/heads/{branch}");
        let is_commit = |text: &str| text.len() >= 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if let Ok(text) = fs::read_to_string(self.common.join(&name)) {
            return Some(text.trim().to_owned()).filter(|text| is_commit(text));
        }
        let packed = fs::read_to_string(self.common.join("packed-refs")).ok()?;
        let line = packed.lines().find_map(|line| line.strip_suffix(&name)?.strip_suffix(' '))?;
        Some(line.to_owned()).filter(|text| is_commit(text))
    }
}

/// A name for the application: the repository's, in the letters that object names may have.
pub fn name_of(source: &Source) -> String {
    let last = match source {
        Source::Local(repository) => slashed(Path::new(repository.top.file_name().unwrap_or_default())),
        Source::Remote(url) => url.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned(),
    };
    object_name(last.trim_end_matches(".git"))
}

pub fn object_name(text: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = text.chars().map(letter).take(50).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "app".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn local(path: &Path) -> Repository {
        match find(&path.to_string_lossy()).expect("looked") {
            Some(Source::Local(repository)) => repository,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_repository_is_read() {
        let directory = tempfile::Builder::new().prefix("kedge-t").tempdir().expect("a directory");
        let top = fs::canonicalize(directory.path()).expect("a path").join("My_Shop.git");
        fs::create_dir_all(top.join("deploy/dev")).expect("folders");
        fs::create_dir_all(top.join(".git/refs/heads")).expect("folders");
        fs::write(top.join(".git/HEAD"), "ref: refs/heads/feature/x\n").expect("a file");
        fs::write(top.join(".git/packed-refs"), format!("# pack-refs\n{COMMIT} refs/heads/main\n"))
            .expect("a file");

        let found = local(&top.join("deploy/dev"));
        assert_eq!((found.top.clone(), found.below.as_str()), (top.clone(), "deploy/dev"));
        assert_eq!(found.head, Head::Branch("feature/x".into()));
        assert_eq!(found.commit_of("main").as_deref(), Some(COMMIT));
        assert_eq!(found.commit_of("ain"), None);
        assert_eq!(found.commit_of("feature/x"), None, "a branch without a commit");
        assert!(found.lacks("feature/x") && !found.lacks("main"));
        assert_eq!(name_of(&Source::Local(found)), "my-shop");

        let tree = top.with_file_name("tree");
        fs::create_dir_all(top.join(".git/worktrees/tree")).expect("folders");
        fs::create_dir_all(&tree).expect("a folder");
        fs::write(tree.join(".git"), format!("gitdir: {}\n", top.join(".git/worktrees/tree").display()))
            .expect("a file");
        fs::write(top.join(".git/worktrees/tree/HEAD"), format!("{COMMIT}\n")).expect("a file");
        fs::write(top.join(".git/worktrees/tree/commondir"), "../..\n").expect("a file");
        assert!(!local(&top).is_bare());
        let found = local(&tree);
        assert!(!found.is_bare());
        assert_eq!(found.head, Head::Commit(COMMIT.into()));
        assert_eq!(found.commit_of("main").as_deref(), Some(COMMIT));
    }

    #[test]
    fn addresses_are_told_apart() {
        let url = "https://example.org/team/Shop.git";
        let found = find(url).expect("found").expect("a source");
        assert_eq!(found, Source::Remote(url.into()));
        assert_eq!(name_of(&found), "shop");
        assert!(find("ssh://git@example.org/x").expect_err("refused").to_string().contains("https://"));
        assert!(find("/no/such/folder").is_err());
        assert_eq!(object_name("--_"), "app");
    }
}
