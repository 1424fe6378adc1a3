//! The files a build may take: a directory, without what `.dockerignore` leaves out.

use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::glob;

/// A directory to copy from, and the rules of what of it may be taken.
pub struct Context {
    root: PathBuf,
    rules: Vec<Rule>,
}

struct Rule {
    pattern: String,
    /// `!pattern`: taken after all.
    keep: bool,
}

/// A file below a source, and where it lies below the destination.
#[derive(Debug, Clone)]
pub struct SourceFile {
    pub path: PathBuf,
    pub below: PathBuf,
    pub metadata: Metadata,
}

impl Context {
    /// `<Dockerfile>.dockerignore` counts before `.dockerignore`.
    pub fn open(root: &Path, dockerfile: &Path) -> io::Result<Self> {
        let root = fs::canonicalize(root)?;
        let mut own = dockerfile.as_os_str().to_owned();
        own.push(".dockerignore");
        let mut rules = Vec::new();
        for candidate in [PathBuf::from(own), root.join(".dockerignore")] {
            match fs::read_to_string(&candidate) {
                Ok(text) => {
                    rules = parse_rules(&text);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { root, rules })
    }

    /// Another stage or image: nothing is left out.
    pub fn whole(root: &Path) -> Self {
        Self { root: root.to_owned(), rules: Vec::new() }
    }

    fn is_ignored(&self, path: &str) -> bool {
        let parts = glob::parts(path);
        let mut ignored = false;
        for rule in &self.rules {
            let pattern = glob::parts(&rule.pattern);
            // A pattern that fits a directory fits all that is in it.
            if (1..=parts.len()).any(|length| glob::matches(&pattern, &parts[..length])) {
                ignored = !rule.keep;
            }
        }
        ignored
    }

    /// Whether something below an ignored directory may be kept after all.
    fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.keep)
    }

    /// The paths a source names, links in the middle of it followed but never out of the context.
    pub fn find(&self, source: &str) -> io::Result<Vec<PathBuf>> {
        let parts: Vec<&str> = glob::parts(source).into_iter().filter(|part| *part != "..").collect();
        let mut found = vec![PathBuf::new()];
        for part in &parts {
            let mut next = Vec::new();
            for base in &found {
                if !glob::is_pattern(part) {
                    next.push(base.join(part));
                    continue;
                }
                let Ok(entries) = fs::read_dir(self.inside(base)?) else { continue };
                for entry in entries {
                    let name = entry?.file_name();
                    if glob::matches(&[part], &[&name.to_string_lossy()]) {
                        next.push(base.join(name));
                    }
                }
            }
            found = next;
        }
        found.sort();
        let mut existing = Vec::new();
        for path in found {
            let Ok(metadata) = self.inside(&path).and_then(fs::symlink_metadata) else { continue };
            let wanted =
                !self.is_ignored(&path.to_string_lossy()) || (metadata.is_dir() && self.has_exceptions());
            if wanted {
                existing.push(path);
            }
        }
        Ok(existing)
    }

    /// The real place of a path, every link followed as if the context were the root.
    fn inside(&self, path: &Path) -> io::Result<PathBuf> {
        let mut real = self.root.clone();
        let mut pending: Vec<std::ffi::OsString> = path.iter().rev().map(ToOwned::to_owned).collect();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                if real != self.root {
                    real.pop();
                }
                continue;
            }
            if name == "/" || name == "." {
                continue;
            }
            let next = real.join(&name);
            match fs::symlink_metadata(&next) {
                Ok(metadata) if metadata.is_symlink() && !pending.is_empty() => {
                    links += 1;
                    if links > 40 {
                        return Err(io::Error::other("too many links"));
                    }
                    let target = fs::read_link(&next)?;
                    if target.is_absolute() {
                        real.clone_from(&self.root);
                    }
                    pending.extend(target.iter().rev().map(ToOwned::to_owned));
                }
                _ => real = next,
            }
        }
        Ok(real)
    }

    /// Everything a found path stands for: a file, or what is in a directory. Sorted, parents first.
    pub fn files(&self, found: &Path) -> io::Result<Vec<SourceFile>> {
        let mut path = self.inside(found)?;
        let mut metadata = fs::symlink_metadata(&path)?;
        // A source that is itself a link means what it leads to.
        let mut links = 0;
        while metadata.is_symlink() && links < 40 {
            let target = fs::read_link(&path)?;
            let base = path.parent().unwrap_or(&self.root).to_owned();
            let relative = base.strip_prefix(&self.root).unwrap_or(Path::new(""));
            path = self.inside(&if target.is_absolute() { target } else { relative.join(target) })?;
            metadata = fs::symlink_metadata(&path)?;
            links += 1;
        }
        let mut files = Vec::new();
        if metadata.is_dir() {
            let relative = path.strip_prefix(&self.root).unwrap_or(Path::new("")).to_owned();
            files.push(SourceFile { path: path.clone(), below: PathBuf::new(), metadata });
            self.collect(&path, &relative, Path::new(""), &mut files)?;
        } else {
            files.push(SourceFile { path, below: PathBuf::new(), metadata });
        }
        Ok(files)
    }

    fn collect(
        &self,
        directory: &Path,
        relative: &Path,
        below: &Path,
        files: &mut Vec<SourceFile>,
    ) -> io::Result<()> {
        let mut names: Vec<_> =
            fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        names.sort_unstable();
        for name in names {
            let (path, relative, below) = (directory.join(&name), relative.join(&name), below.join(&name));
            let metadata = fs::symlink_metadata(&path)?;
            let ignored = self.is_ignored(&relative.to_string_lossy());
            if ignored && !(metadata.is_dir() && self.has_exceptions()) {
                continue;
            }
            let is_dir = metadata.is_dir();
            let own = files.len();
            files.push(SourceFile { path: path.clone(), below: below.clone(), metadata });
            if is_dir {
                self.collect(&path, &relative, &below, files)?;
            }
            if ignored && files.len() == own + 1 {
                files.pop();
            }
        }
        Ok(())
    }
}

fn parse_rules(text: &str) -> Vec<Rule> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.strip_prefix('!') {
            Some(pattern) => Rule { pattern: pattern.trim().to_owned(), keep: true },
            None => Rule { pattern: line.to_owned(), keep: false },
        })
        .collect()
}

/// What a set of files is, for the cache: names, kinds, modes and contents. Times do not count, or every checkout would
/// be different; owners do not either, because a copy has its own.
pub fn hash(files: &[SourceFile]) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for file in files {
        add(file.below.as_os_str().as_bytes());
        add(&file.metadata.mode().to_le_bytes());
        if file.metadata.is_symlink() {
            add(fs::read_link(&file.path)?.as_os_str().as_bytes());
        } else if file.metadata.is_file() {
            add(&content_hash(&file.path)?);
        }
    }
    Ok(base::id::hex(&hash.finalize()))
}

fn content_hash(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().to_vec()),
            count => hash.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(context: &Context, source: &str) -> Vec<String> {
        let mut all = Vec::new();
        for found in context.find(source).expect("find") {
            for file in context.files(&found).expect("files") {
                all.push(found.join(file.below).to_string_lossy().trim_end_matches('/').to_owned());
            }
        }
        all
    }

    #[test]
    fn ignored_files_are_not_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        for path in ["a.txt", "b.log", "d/c.log", "d/keep.log", "node_modules/x/y"] {
            fs::create_dir_all(root.join(path).parent().expect("parent")).expect("directory");
            fs::write(root.join(path), path).expect("file");
        }
        fs::write(root.join(".dockerignore"), "# rules\n**/*.log\n!d/keep.log\nnode_modules\n")
            .expect("rules");
        let context = Context::open(root, &root.join("Dockerfile")).expect("context");
        assert_eq!(names(&context, "."), ["", ".dockerignore", "a.txt", "d", "d/keep.log"]);
        assert_eq!(names(&context, "*.txt"), ["a.txt"]);
        assert_eq!(names(&context, "d/*.log"), ["d/c.log", "d/keep.log"][1..].to_vec());
        assert_eq!(names(&context, "none"), [""; 0]);
        std::os::unix::fs::symlink("/etc", root.join("out")).expect("link");
        assert_eq!(names(&context, "out/passwd"), [""; 0], "links do not lead out");
        assert_eq!(names(&context, "../../../etc/passwd"), [""; 0]);
    }
}
