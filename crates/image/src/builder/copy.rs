//! `COPY` and `ADD`: from a context, another stage or here-documents into the mounted stack.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::context::{Context, SourceFile};
use super::error::StepError;
use crate::tree::{Owner, Place, Tree};
use crate::unpack::{Unpacker, decompress};

/// A copy with everything expanded and found.
pub struct Job {
    pub sources: Vec<Source>,
    /// Absolute, within the root.
    pub destination: PathBuf,
    /// It was written with a slash at its end, or there is more than one source.
    pub into_directory: bool,
    pub owner: Ownership,
    pub mode: Option<u32>,
    pub unpack_archives: bool,
}

pub enum Source {
    /// A found path's files: the first is the path itself.
    Files {
        name: PathBuf,
        files: Vec<SourceFile>,
    },
    Document {
        name: String,
        content: String,
    },
}

#[derive(Debug, Clone, Copy)]
pub enum Ownership {
    All(Owner),
    /// As the source has it.
    Kept,
}

/// Finds the sources of a copy.
pub fn find(context: &Context, patterns: &[String]) -> Result<Vec<Source>, StepError> {
    let mut sources = Vec::new();
    for pattern in patterns {
        let found = context.find(pattern).map_err(StepError::io(format!("find {pattern:?}")))?;
        if found.is_empty() {
            return Err(StepError::NoSource(pattern.clone()));
        }
        for name in found {
            let files = context.files(&name).map_err(StepError::io(format!("read {name:?}")))?;
            sources.push(Source::Files { name, files });
        }
    }
    Ok(sources)
}

/// Returns the directories whose times were set on purpose, relative to the root.
pub fn run(job: &Job, root: &Path) -> Result<BTreeSet<PathBuf>, StepError> {
    let tree = Tree::open(root).map_err(StepError::io("open root"))?;
    let mut copier = Copier { job, root, tree, timed: BTreeSet::new() };
    let is_dir = job.into_directory || copier.tree.is_dir(&job.destination);
    for source in &job.sources {
        copier.source(source, is_dir).map_err(StepError::io(format!("copy to {:?}", job.destination)))?;
    }
    Ok(copier.timed)
}

struct Copier<'a> {
    job: &'a Job,
    root: &'a Path,
    tree: Tree,
    timed: BTreeSet<PathBuf>,
}

impl Copier<'_> {
    fn source(&mut self, source: &Source, into_directory: bool) -> io::Result<()> {
        let destination = &self.job.destination;
        match source {
            Source::Document { name, content } => {
                let target = if into_directory { destination.join(name) } else { destination.clone() };
                let Some(place) = self.place(&target)? else { return Ok(()) };
                place.create_file(&mut content.as_bytes())?;
                self.own(&place, None)?;
                place.set_mode(self.job.mode.unwrap_or(0o644))?;
                place.set_modified(0, 0)
            }
            Source::Files { name, files } => {
                let Some(first) = files.first() else { return Ok(()) };
                if self.job.unpack_archives && first.metadata.is_file() && is_archive(&first.path)? {
                    return self.unpack(&first.path);
                }
                // A directory stands for what is in it; a file goes under its own name into a directory.
                let target = match (first.metadata.is_dir(), into_directory) {
                    (true, _) => destination.clone(),
                    (false, true) => destination.join(name.file_name().unwrap_or_default()),
                    (false, false) => destination.clone(),
                };
                files.iter().try_for_each(|file| self.file(file, &target.join(&file.below)))?;
                // What was put into a directory has changed its time.
                for file in files.iter().skip(1).rev().filter(|file| file.metadata.is_dir()) {
                    if let Some(place) = self.tree.place(&target.join(&file.below))? {
                        place.set_modified(file.metadata.mtime(), file.metadata.mtime_nsec())?;
                    }
                }
                Ok(())
            }
        }
    }

    fn place(&self, target: &Path) -> io::Result<Option<Place>> {
        // `join` of nothing leaves a slash at the end.
        self.tree.place(&target.components().collect::<PathBuf>())
    }

    fn own(&self, place: &Place, source: Option<&SourceFile>) -> io::Result<()> {
        let owner = match (self.job.owner, source) {
            (Ownership::All(owner), _) => owner,
            (Ownership::Kept, Some(file)) => Owner { uid: file.metadata.uid(), gid: file.metadata.gid() },
            (Ownership::Kept, None) => Owner { uid: 0, gid: 0 },
        };
        place.set_owner(owner)
    }

    fn file(&mut self, file: &SourceFile, target: &Path) -> io::Result<()> {
        let metadata = &file.metadata;
        let Some(place) = self.place(target)? else { return Ok(()) };
        if metadata.is_dir() && file.below.as_os_str().is_empty() {
            // What is copied is its content: the directory it goes into is an ordinary one.
            if self.tree.is_dir(target) {
                return Ok(());
            }
            place.make_directory(0o755)?;
            let Ownership::All(owner) = self.job.owner else { return Ok(()) };
            return place.set_owner(owner);
        }
        if metadata.is_dir() {
            // Through a link that leads to a directory, as programs would.
            if self.tree.is_dir(target) {
                return Ok(());
            }
            place.make_directory(0o755)?;
            self.timed.insert(target.components().skip(1).collect());
        } else if metadata.is_symlink() {
            place.create_symlink(&fs::read_link(&file.path)?)?;
        } else if metadata.is_file() {
            place.create_file(&mut File::open(&file.path)?)?;
        } else {
            // Sockets and pipes are not content.
            return Ok(());
        }
        self.own(&place, Some(file))?;
        if !metadata.is_symlink() {
            place.set_mode(self.job.mode.unwrap_or(metadata.mode()))?;
            self.keep_capabilities(file, &place)?;
        }
        place.set_modified(metadata.mtime(), metadata.mtime_nsec())
    }

    fn keep_capabilities(&self, file: &SourceFile, place: &Place) -> io::Result<()> {
        const NAME: &str = "security.capability";
        let mut value = [0u8; 64];
        match rustix::fs::lgetxattr(&file.path, NAME, &mut value[..]) {
            Ok(length) => place.set_xattr(NAME, &value[..length]),
            // It has none.
            Err(_) => Ok(()),
        }
    }

    fn unpack(&self, archive: &Path) -> io::Result<()> {
        let owner = match self.job.owner {
            Ownership::All(owner) if (owner.uid, owner.gid) != (0, 0) => Some(owner),
            _ => None,
        };
        self.tree.make_directories(&self.job.destination)?;
        let reader = decompress(File::open(archive)?)?;
        Unpacker::archive(self.root, owner)?.unpack(&self.job.destination, reader)
    }
}

/// A tar archive, compressed or not.
fn is_archive(path: &Path) -> io::Result<bool> {
    let mut block = [0; 512];
    let Ok(mut reader) = decompress(File::open(path)?) else {
        return Err(io::Error::other(format!("{}: this compression is not supported", path.display())));
    };
    // What only looks compressed is an ordinary file.
    Ok(reader.read_exact(&mut block).is_ok() && &block[257..262] == b"ustar")
}
