//! The cluster's state: opening it as the options say, and `kedge store`, which takes and gives back all of it.

mod open;
pub mod socket;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use apiserver::values::{Unreadable, Values};
use base::layout::Layout;
use base::say::{AnswerError, answer};
use front::{StoreOptions, StoreRequest, StoreVerb};
use store::RangeRequest;
use store::backup::{self, Reader, Summary};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncWriteExt, BufReader, BufWriter};

pub use open::open;

/// Damaged entries that are told one by one.
const TOLD_LIMIT: usize = 20;
const PAGE: usize = 500;
/// The name of the data directory's own file, where an address is asked for.
const FILE: &str = "file";

pub async fn main(request: StoreRequest) -> ExitCode {
    let place = match &request.verb {
        StoreVerb::Backup { file, .. } => file.clone(),
        _ => request.layout.data_dir().to_owned(),
    };
    match run(request).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if matches!(error.downcast_ref(), Some(AnswerError::Unread)) => ExitCode::FAILURE,
        Err(error) => {
            base::tell!("error: {error:#}");
            if base::disk::is_full(error.as_ref()) {
                base::tell!("{}", base::disk::remedy(&place));
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
async fn run(request: StoreRequest) -> anyhow::Result<bool> {
    let StoreRequest { verb, layout, store: options } = request;
    match verb {
        StoreVerb::Backup { file, force: false } if file.exists() => {
            bail!(
                "{} is there already; name another file, or --force to put the backup in its place",
                file.display()
            )
        }
        StoreVerb::Backup { file, .. } => {
            may_be_replaced(&file, layout.data_dir())?;
            backup_to(&layout, &options, &file).await?;
        }
        StoreVerb::Restore { file, replace } => {
            let summary = restore_from(&layout, &options, &file, Into::Empty { replace }).await?;
            answer(format_args!("{} restored, at revision {}", counted(summary.entries), summary.revision))?;
        }
        StoreVerb::Check { file: Some(file) } => return check_file(&layout, &file).await,
        StoreVerb::Check { file: None } => return check(&layout, &options).await,
        StoreVerb::RotateKey => answer(format_args!("{}", socket::rotate_key(&layout).await?))?,
        StoreVerb::Migrate { from, to, replace, update } => {
            let how = if update { Into::Updated } else { Into::Empty { replace } };
            migrate(&layout, &options, (&from, &to), how).await?;
        }
    }
    Ok(true)
}

/// A backup takes the place of another, and of nothing that the cluster lives on.
fn may_be_replaced(file: &Path, data_dir: &Path) -> anyhow::Result<()> {
    let Ok(there) = file.canonicalize() else { return Ok(()) };
    if !there.is_file() {
        bail!("{} is no ordinary file; name another one", file.display());
    }
    if data_dir.canonicalize().is_ok_and(|data_dir| there.starts_with(data_dir)) {
        bail!(
            "{} is one of the cluster's own files, which a backup does not replace; name a file outside of {}",
            file.display(),
            data_dir.display()
        );
    }
    Ok(())
}

fn counted(entries: u64) -> String {
    match entries {
        1 => "1 entry".to_owned(),
        many => format!("{many} entries"),
    }
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

async fn backup_to(layout: &Layout, options: &StoreOptions, file: &Path) -> anyhow::Result<()> {
    let partial = beside(file);
    let writing = async {
        let mut open = File::options();
        open.write(true).create(true).truncate(true).mode(0o600);
        let out = open.open(&partial).await.with_context(|| format!("cannot write {}", partial.display()))?;
        let mut out = BufWriter::with_capacity(1 << 20, out);
        take(layout, options, &mut out).await?;
        out.flush().await?;
        out.get_ref().sync_all().await?;
        // What was written is read again: a backup that cannot be is none.
        let summary = read_through(&partial).await?;
        tokio::fs::rename(&partial, file)
            .await
            .with_context(|| format!("cannot write {}", file.display()))?;
        anyhow::Ok(summary)
    };
    match writing.await {
        Ok(summary) => {
            let Summary { revision, entries, bytes } = summary;
            let (entries, file) = (counted(entries), file.display());
            Ok(answer(format_args!("{entries} ({bytes} bytes) of revision {revision} in {file}"))?)
        }
        Err(error) => {
            drop(tokio::fs::remove_file(&partial).await);
            Err(error)
        }
    }
}

/// Writes a backup of the store that the options name: a running server gives it out itself.
async fn take(
    layout: &Layout,
    options: &StoreOptions,
    out: &mut (dyn tokio::io::AsyncWrite + Unpin + Send),
) -> anyhow::Result<()> {
    if options.address.is_none()
        && let Some(mut stream) = socket::backup(layout).await?
    {
        tokio::io::copy(&mut stream, out).await.context("the server did not come to the end")?;
        return Ok(());
    }
    let opened = open(layout, options, false).await?;
    opened.verify().await?;
    backup::write(&*opened.store, out).await?;
    Ok(())
}

async fn reader(file: &Path) -> anyhow::Result<Reader<BufReader<File>>> {
    let input = File::open(file).await.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Reader::open(BufReader::with_capacity(1 << 20, input)).await?)
}

async fn read_through(file: &Path) -> anyhow::Result<Summary> {
    let mut reader = reader(file).await?;
    let mut summary = Summary { revision: reader.header.revision, entries: 0, bytes: 0 };
    while reader.next().await?.is_some() {
        summary.entries += 1;
    }
    summary.bytes = tokio::fs::metadata(file).await?.len();
    Ok(summary)
}

async fn restore_from(
    layout: &Layout,
    options: &StoreOptions,
    file: &Path,
    how: Into,
) -> anyhow::Result<Summary> {
    // All of it, before anything is touched.
    read_through(file).await?;
    put(layout, options, &mut reader(file).await?, how).await
}

/// What the target may hold before.
#[derive(Clone, Copy)]
enum Into {
    /// Nothing; or what is set aside or deleted.
    Empty { replace: bool },
    /// Much of the same: only what differs is written.
    Updated,
}

/// Puts a backup into the store that the options name.
async fn put<R: AsyncRead + Unpin>(
    layout: &Layout,
    options: &StoreOptions,
    reader: &mut Reader<R>,
    how: Into,
) -> anyhow::Result<Summary> {
    let Into::Empty { replace } = how else {
        let opened = open(layout, options, false).await?;
        return Ok(backup::update(reader, &*opened.store).await?);
    };
    if options.address.is_some() {
        let opened = open(layout, options, false).await?;
        if replace {
            backup::clear(&*opened.store).await?;
        }
        return Ok(backup::restore(reader, &*opened.store).await?);
    }
    std::fs::create_dir_all(layout.data_dir())?;
    let _lock = crate::server::run_file::lock(layout).await?;
    let path = layout.state();
    match replace && path.exists() {
        true => replaced(reader, &path).await,
        false => Ok(backup::restore_file(reader, &path).await?),
    }
}

/// Puts a backup in the place of a store, all of it or nothing: until the new one is whole the old one stays where it is, and
/// then they change places in one step.
async fn replaced<R: AsyncRead + Unpin>(reader: &mut Reader<R>, path: &Path) -> anyhow::Result<Summary> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let aside = path.with_extension(format!("redb.before-{now}"));
    let summary = backup::restore_file(reader, &aside)
        .await
        .with_context(|| format!("nothing was replaced: {} is as it was", path.display()))?;
    let (here, exchange) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
    rustix::fs::renameat_with(here, &aside, here, path, exchange).with_context(|| {
        format!("cannot put {} in the place of {}: rename it yourself", aside.display(), path.display())
    })?;
    File::open(path.parent().unwrap_or(path)).await?.sync_all().await?;
    // It is done, whether that is read or not.
    drop(answer(format_args!("what was there is in {}", aside.display())));
    Ok(summary)
}

/// Takes from one and gives to the other by way of a pipe; nothing is kept between them.
async fn migrate(
    layout: &Layout,
    options: &StoreOptions,
    (from, to): (&str, &str),
    how: Into,
) -> anyhow::Result<()> {
    if from == to {
        bail!("--from and --to are both {from}: name two stores");
    }
    let of = |address: &str| match address {
        // Certificates and passwords are etcd's.
        FILE => StoreOptions::default(),
        other => StoreOptions { address: Some(other.to_owned()), ..options.clone() },
    };
    let (source, target) = (of(from), of(to));
    let (mut sink, stream) = tokio::io::duplex(1 << 20);
    let taking = async {
        let taken = take(layout, &source, &mut sink).await;
        drop(sink);
        taken
    };
    let giving = async {
        let mut reader = Reader::open(stream).await?;
        put(layout, &target, &mut reader, how).await
    };
    let (taken, given) = tokio::join!(taking, giving);
    // Where nobody takes what is given, why nobody does is what matters.
    let summary = match (taken, given) {
        (Err(taken), Err(given)) if is_broken_pipe(&taken) => return Err(given),
        (taken, given) => {
            taken?;
            given?
        }
    };
    let Summary { revision, entries, .. } = summary;
    answer(format_args!("{} written to {to}, which is at revision {revision} now", counted(entries)))?;
    if matches!(how, Into::Empty { .. }) {
        answer(format_args!(
            "what is written to {from} from now on is not in {to}: stop the servers on {from}, then run this again with --update"
        ))?;
    }
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind =
        |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<std::io::Error>().map(|e| e.kind());
    error.chain().any(|cause| kind(cause) == Some(std::io::ErrorKind::BrokenPipe))
}

/// Counts entries and tells what cannot be read.
struct Checked {
    values: Values,
    entries: u64,
    bad: usize,
    /// Of those, what is sealed with a key that is not here.
    locked: usize,
}

impl Checked {
    fn new(layout: &Layout) -> anyhow::Result<Self> {
        Ok(Self { values: Values::open(&layout.pki())?, entries: 0, bad: 0, locked: 0 })
    }

    fn look(&mut self, entry: &store::Entry) {
        self.entries += 1;
        if let Err(why) = self.values.check(entry) {
            self.bad += 1;
            self.locked += usize::from(!matches!(why, Unreadable::Damaged(_)));
            if self.bad <= TOLD_LIMIT {
                base::tell!("{}: {why}", entry.key);
            }
        }
    }

    fn told(self) -> anyhow::Result<bool> {
        answer(format_args!("{}, {} of them unreadable", counted(self.entries), self.bad))?;
        if self.locked > 0 {
            let (file, locked) = (self.values.key_file().display(), self.locked);
            // Whoever has a backup elsewhere, or the wrong directory, has lost nothing.
            match self.values.key_file().exists() {
                true => answer(format_args!(
                    "remedy: {locked} of them do not open with {file}; if that is another cluster's key, name the data directory that has theirs with --data-dir"
                ))?,
                false => answer(format_args!(
                    "remedy: {locked} of them are encrypted, and {file} is not there: name the data directory that has pki/encryption.key with --data-dir, or put the file there"
                ))?,
            }
        }
        if self.bad > self.locked || self.locked > 0 && self.values.key_file().exists() {
            answer(format_args!(
                "remedy: restore a backup with `kedge store restore`, or delete the objects that are named"
            ))?;
        }
        Ok(self.bad == 0)
    }
}

async fn check_file(layout: &Layout, file: &Path) -> anyhow::Result<bool> {
    let mut checked = Checked::new(layout)?;
    let mut reader = reader(file).await?;
    while let Some(entry) = reader.next().await? {
        checked.look(&entry);
    }
    checked.told()
}

async fn check(layout: &Layout, options: &StoreOptions) -> anyhow::Result<bool> {
    let mut checked = Checked::new(layout)?;
    if options.address.is_none()
        && let Some(stream) = socket::backup(layout).await?
    {
        // The server has verified its file before it answers.
        let mut reader = Reader::open(stream).await?;
        while let Some(entry) = reader.next().await? {
            checked.look(&entry);
        }
        return checked.told();
    }
    let opened = open(layout, options, false).await?;
    opened.verify().await?;
    let mut request = RangeRequest { limit: PAGE, ..Default::default() };
    loop {
        let page = opened.store.range(request.clone()).await?;
        page.entries.iter().for_each(|entry| checked.look(entry));
        request.revision = Some(page.revision);
        request.after = page.entries.last().map(|entry| entry.key.to_string());
        if page.remaining == 0 {
            return checked.told();
        }
    }
}
