//! Dockerfiles are built for real: commands run in namespaces on a root of busybox.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use image::builder::{BuildError, BuildEvent, BuildRequest, BuildTools, NamespaceRunner, build};
use image::{ImageError, ImageRecord, ImageStore};
use support::{Mounted, store};

struct Bench {
    directory: tempfile::TempDir,
    store: ImageStore,
}

/// What a build said of its steps: text and whether it came from the cache.
type Said = Vec<(String, bool)>;

impl Bench {
    fn new() -> Self {
        let (directory, store) = store();
        fs::create_dir_all(directory.path().join("context")).expect("context");
        let bench = Self { directory, store };
        fs::copy("/bin/busybox", bench.context().join("busybox")).expect("busybox-static is installed");
        bench
    }

    fn context(&self) -> PathBuf {
        self.directory.path().join("context")
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("directory");
        fs::write(path, content).expect("file");
    }

    fn request(&self, dockerfile: &str) -> BuildRequest {
        self.write("Dockerfile", dockerfile);
        BuildRequest { context: self.context(), tags: vec!["built:1".into()], ..BuildRequest::default() }
    }

    fn try_build(&self, request: &BuildRequest) -> Result<(ImageRecord, Said), BuildError> {
        let mut said = Vec::new();
        let mut progress = |event| {
            if let BuildEvent::Finished { text, cached, .. } = event {
                said.push((text, cached));
            }
        };
        let fetch =
            |reference: &image::Reference| Err(ImageError::NotFound { reference: reference.to_string() });
        let mut tools =
            BuildTools { runner: &NamespaceRunner::default(), fetch: &fetch, progress: &mut progress };
        let record = build(&self.store, request, &mut tools)?;
        Ok((record, said))
    }

    fn build(&self, dockerfile: &str) -> (ImageRecord, Said) {
        self.try_build(&self.request(dockerfile)).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    fn fails(&self, dockerfile: &str) -> String {
        chain(&self.try_build(&self.request(dockerfile)).expect_err("refused"))
    }

    fn mount(&self, record: &ImageRecord) -> Mounted {
        Mounted::new(&self.store, record)
    }

    fn is_tidy(&self) -> bool {
        let ingest = self.directory.path().join("images/ingest");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        fs::read_dir(ingest).expect("list").next().is_none()
            && !mounts.contains(&*self.directory.path().to_string_lossy())
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn cached(said: &Said) -> Vec<bool> {
    said.iter().map(|(_, cached)| *cached).collect()
}

const BASE: &str = "FROM scratch AS base\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";

#[test]
fn stages_commands_and_copies() {
    let bench = Bench::new();
    bench.write("src/main.c", "int main");
    bench.write("src/notes.md", "no");
    bench.write(".dockerignore", "**/*.md\nbusybox.old\n");
    let (record, said) = bench.build(&format!(
        "ARG WHO=world\n{BASE}\
         FROM base AS work\n\
         ARG WHO\nENV GREETING=\"hello $WHO\" TWO=${{NONE:-two}}\n\
         WORKDIR /src/app\nCOPY src .\n\
         RUN echo \"$GREETING $TWO $WHO\" > out && cat main.c >> out && pwd >> out && id -u >> out\n\
         RUN rm main.c && mkdir -p /gone && rmdir /gone && chmod 4755 out\n\
         FROM unneeded-and-missing AS unneeded\nRUN false\n\
         FROM base\n\
         COPY --from=work --chown=5:6 /src/app/out /data/\n\
         COPY --chmod=600 --from=1 /src/app/out /renamed\n\
         EXPOSE 80 53/udp\nUSER 5\nVOLUME /data\nLABEL a=\"b c\" d=e\nSTOPSIGNAL SIGQUIT\n\
         HEALTHCHECK --interval=5s CMD true\nENTRYPOINT [\"/bin/sh\"]\nCMD echo hi\n"
    ));
    let root = bench.mount(&record);
    assert_eq!(root.text("data/out"), "hello world two world\nint main/src/app\n0\n");
    let about = |path: &str| {
        let metadata = root.path(path).metadata().expect(path);
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
    };
    assert_eq!(about("data/out"), (0o4755, 5, 6));
    assert_eq!(about("renamed"), (0o600, 0, 0));
    assert_eq!(root.list("."), ["bin", "data", "renamed"], "mount points of RUN are not of the image");
    let config = &record.config;
    assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
    assert_eq!((config.user.as_str(), config.stop_signal.as_deref()), ("5", Some("SIGQUIT")));
    assert_eq!(
        (config.entrypoint.join(" "), config.cmd.join(" ")),
        ("/bin/sh".into(), "/bin/sh -c echo hi".into())
    );
    assert_eq!((config.labels["a"].as_str(), config.labels["d"].as_str()), ("b c", "e"));
    assert_eq!(config.healthcheck.as_ref().map(|check| check.interval), Some(5_000_000_000));
    assert!(!said.iter().any(|(text, _)| text.contains("unneeded")), "{said:?}");
    assert_eq!(record.tags, ["docker.io/library/built:1"]);
    drop(root);
    assert!(bench.is_tidy());
}

#[test]
fn nothing_unchanged_is_done_again() {
    let bench = Bench::new();
    bench.write("a", "1");
    bench.write("b", "1");
    let dockerfile = format!("{BASE}COPY a /a\nRUN cat /a > /c\nCOPY b /b\nRUN cat /b >> /c\n");
    let (first, said) = bench.build(&dockerfile);
    assert_eq!(cached(&said), [true, false, false, false, false, false, false]);
    let (second, said) = bench.build(&dockerfile);
    assert!(cached(&said).iter().all(|cached| *cached), "{said:?}");
    assert_eq!(second.id, first.id, "the same steps are the same image");
    fs::File::open(bench.context().join("a"))
        .and_then(|f| f.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH)))
        .expect("touch");
    assert!(cached(&bench.build(&dockerfile).1).iter().all(|cached| *cached), "a time is no change");
    bench.write("b", "2");
    let (third, said) = bench.build(&dockerfile);
    assert_eq!(cached(&said), [true, true, true, true, true, false, false]);
    assert_eq!(bench.mount(&third).text("c"), "12");
    let (_, said) = bench.build(&dockerfile.replace("cat /a > /c", "cat /a > /c; true"));
    assert_eq!(cached(&said), [true, true, true, true, false, false, false]);
    let request = BuildRequest { no_cache: true, ..bench.request(&dockerfile) };
    let (_, said) = bench.try_build(&request).expect("built");
    assert!(!cached(&said)[1..].iter().any(|cached| *cached), "{said:?}");
}

#[test]
fn copies_are_the_same_bytes_every_time() {
    let layers = |bench: &Bench| {
        bench.write("d/e/f", "x");
        fs::set_permissions(bench.context(), fs::Permissions::from_mode(0o700)).expect("mode");
        for path in ["d/e/f", "d/e", "d", "."] {
            let file = fs::File::open(bench.context().join(path)).expect("open");
            file.set_times(
                fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(9)),
            )
            .expect("time");
        }
        let request = BuildRequest {
            no_cache: true,
            ..bench.request("FROM scratch\nWORKDIR /w/x\nCOPY d /deep/er/\nCOPY d/e/f one\n")
        };
        let (record, _) = bench.try_build(&request).expect("built");
        assert_eq!(bench.mount(&record).path("deep/er").metadata().expect("dir").mode() & 0o777, 0o755);
        record.diff_ids
    };
    let (one, two) = (Bench::new(), Bench::new());
    let first = layers(&one);
    assert_eq!(first.len(), 3);
    assert_eq!(first, layers(&one));
    assert_eq!(first, layers(&two));
}

#[test]
fn here_documents_arguments_and_targets() {
    let bench = Bench::new();
    let dockerfile = format!(
        "{BASE}ARG V=default\nENV E=env\nRUN <<EOF\nset -e\necho first $V > /out\necho second $E >> /out\nEOF\n\
         RUN cat <<MORE >> /out\nthird $E\nMORE\n\
         COPY <<A <<'B' /docs/\nis $V\nA\nis $V\nB\n\
         SHELL [\"/bin/sh\", \"-ec\"]\nRUN echo ${{0}} >> /out\n\
         FROM base AS last\nRUN exit 9\n"
    );
    let mut request = bench.request(&dockerfile);
    request.target = Some("0".into());
    request.arguments = [("V".to_owned(), "given".to_owned())].into();
    request.labels = [("built-by".to_owned(), "test".to_owned())].into();
    let (record, _) = bench.try_build(&request).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let root = bench.mount(&record);
    assert_eq!(root.text("out"), "first given\nsecond env\nthird env\n/bin/sh\n");
    assert_eq!((root.text("docs/A").as_str(), root.text("docs/B").as_str()), ("is given\n", "is $V\n"));
    assert_eq!(record.config.labels["built-by"], "test");
    assert_eq!(record.config.shell, ["/bin/sh", "-ec"]);
    request.target = Some("nowhere".into());
    let refused = |request: &BuildRequest| chain(&bench.try_build(request).expect_err("refused"));
    assert_eq!(refused(&request), "target stage \"nowhere\" could not be found");
    request.target = Some("lats".into());
    assert_eq!(refused(&request), "target stage \"lats\" could not be found (did you mean last?)");
    let told = refused(&bench.request("FROM scratch AS build\nFROM scratch\nCOPY --from=biuld a /\n"));
    assert!(
        told.contains("no stage is called \"biuld\" (did you mean build?), and as an image it cannot be had"),
        "{told}"
    );
}

#[test]
fn archives_are_added_unpacked_and_bases_inherited() {
    let bench = Bench::new();
    let archive = support::Layer::new()
        .dir("in/", 0o750, (7, 7))
        .file("in/side", "x")
        .file(".wh.plain", "kept")
        .bytes();
    fs::write(bench.context().join("a.tar"), archive).expect("archive");
    let (base, _) =
        bench.build("FROM scratch\nADD a.tar /un/\nCOPY a.tar /packed/\nENV A=1\nCMD [\"x\"]\nUSER 3:4\n");
    let root = bench.mount(&base);
    assert_eq!(
        (root.list("un"), root.list("packed")),
        (vec![".wh.plain".to_owned(), "in".into()], vec!["a.tar".to_owned()])
    );
    assert_eq!(root.path("un/in").metadata().expect("in").uid(), 7);
    bench.store.tag("built:1", "base:1").expect("tag");
    let (record, _) = bench.build("FROM base:1\nENV A=2 B=$A\nENTRYPOINT [\"y\"]\n");
    assert_eq!(record.config.env, ["A=2", "B=1"], "all of one ENV see what was before it");
    assert_eq!(
        (record.config.cmd.len(), record.config.user.as_str()),
        (0, "3:4"),
        "a new entrypoint drops the inherited command"
    );
    assert_eq!(record.diff_ids, base.diff_ids);
}

#[test]
fn users_signals_and_isolation_of_commands() {
    let bench = Bench::new();
    bench.write("passwd", "root:x:0:0::/root:/bin/sh\napp:x:50:60::/home:/bin/sh\n");
    let (record, _) = bench.build(&format!(
        "{BASE}COPY passwd /etc/passwd\nRUN mkdir -m 777 /t\nUSER app\n\
         RUN id -u > /t/o; id -g >> /t/o; echo $$ >> /t/o; ls /proc | grep -c '^[0-9]' >> /t/o; ls /sys/class/net >> /t/o; \
         grep CapBnd /proc/self/status | cut -f2 >> /t/o; echo x > /dev/null && [ -c /dev/urandom ] && echo dev >> /t/o\n"
    ));
    let text = bench.mount(&record).text("t/o");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        (&lines[..3], &lines[4..]),
        (&["50", "60", "1"][..], &["lo", "00000000a80425fb", "dev"][..]),
        "{text}"
    );
    assert!(
        bench.fails(&format!("{BASE}USER nobody\nRUN true\n")).contains("no user \"nobody\" in /etc/passwd")
    );
}

#[test]
fn mistakes_name_line_and_instruction() {
    let bench = Bench::new();
    let check = |dockerfile: &str, expect: &str| {
        let message = bench.fails(dockerfile);
        assert!(message.contains(expect), "{message}\n does not contain\n{expect}");
        assert!(bench.is_tidy(), "after {dockerfile}");
    };
    check(
        "FROM scratch\nCOPY none /x\n",
        "dockerfile line 2: COPY none /x: \"none\": not found in the build context",
    );
    check("FROM scratch\nCOPY ../../etc/passwd /x\n", "not found in the build context");
    check(
        "FROM missing:1\n",
        "dockerfile line 1: FROM missing:1: failed to resolve reference \"docker.io/library/missing:1\": not found",
    );
    check("FROM Bad\n", "invalid reference format");
    check("ENV A=1\nFROM scratch\n", "only ARG may come before the first FROM");
    check("# nothing\n", "has no FROM");
    check("FROM scratch\nBAD x\n", "dockerfile parse error on line 2: unknown instruction: BAD");
    check("FROM scratch\nADD https://example.com/x /x\n", "ADD of remote sources is not supported");
    check("FROM scratch\nEXPOSE http\n", "invalid containerPort: http");
    check("FROM scratch\nCOPY --chmod=rwx Dockerfile /\n", "should be octal");
    check(&format!("{BASE}\nRUN echo oops && exit 3\n"), "exit code: 3");
    check(&format!("{BASE}\nRUN [\"/nope\"]\n"), "No such file or directory");
    check("FROM scratch\nLABEL ${none:?unset}=x\n", "none: unset");
    let BuildError::Step { source: image::builder::StepError::Command { output, .. }, .. } =
        bench.try_build(&bench.request(&format!("{BASE}RUN echo oops; exit 3\n"))).expect_err("fails")
    else {
        panic!("a failed command")
    };
    assert_eq!(output, "oops\n");
    let path: &Path = &bench.context().join("Dockerfile");
    fs::remove_file(path).expect("remove");
    let request = BuildRequest { context: bench.context(), ..BuildRequest::default() };
    assert!(chain(&bench.try_build(&request).expect_err("no file")).starts_with("failed to read"));
}
