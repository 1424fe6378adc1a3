//! A Git repository of a test, with commits made by the real `git`.

use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Repository {
    folder: PathBuf,
}

impl Repository {
    /// An empty repository with the branch `main`, at a folder that must not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let this = Self { folder: folder.into() };
        std::fs::create_dir_all(&this.folder).expect("a folder");
        this.git(&["init", "--quiet", "--initial-branch", "main"]);
        this
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }

    pub fn write(&self, file: &str, text: &str) -> &Self {
        let path = self.folder.join(file);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, text).expect("written");
        self
    }

    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.join(file)).expect("the file")
    }

    pub fn remove(&self, file: &str) -> &Self {
        std::fs::remove_file(self.folder.join(file)).expect("removed");
        self
    }

    /// Copies a folder's files in.
    pub fn copy(&self, from: &Path, to: &str) -> &Self {
        let target = self.folder.join(to);
        std::fs::create_dir_all(target.parent().expect("a parent")).expect("folders");
        let status = Command::new("cp").arg("-r").arg(from).arg(&target).status().expect("cp runs");
        assert!(status.success());
        self
    }

    /// Commits all changes; the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    pub fn git(&self, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.current_dir(&self.folder).args(args);
        for (name, value) in [("NAME", "test"), ("EMAIL", "test@localhost")] {
            command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
        }
        let output = command.output().expect("git runs");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
