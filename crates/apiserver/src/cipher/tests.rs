//! What is sealed, with what, and that nothing is lost when the key changes, wherever that is stopped.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use store::{Embedded, EmbeddedOptions, Op, RangeRequest, Store};

use super::*;

const PLAIN: &[u8] = b"{\"kind\":\"Secret\",\"data\":\"hidden\"}";

fn secrets() -> Arc<Kind> {
    kind("", "secrets")
}

fn kind(group: &str, plural: &str) -> Arc<Kind> {
    let kinds = crate::catalog::Catalog::default();
    kinds.rebuild(&[]);
    Arc::clone(kinds.snapshot().find(group, "v1", plural).expect("a kind"))
}

fn own(folder: &Path) -> Cipher {
    Cipher::open(&folder.join("encryption.key"), &Settings::default()).expect("a key")
}

fn hides(stored: &[u8]) -> bool {
    !stored.windows(6).any(|window| window == b"hidden")
}

#[test]
fn sealed_bytes_open_only_under_their_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let cipher = own(folder.path());
    let sealed = cipher.seal(&secrets(), "/registry/secrets/a/b", Bytes::from_static(PLAIN)).expect("seals");
    assert!(hides(&sealed) && sealed.starts_with(b"k8s:enc:aesgcm:v1:kedge:"));
    let again = own(folder.path());
    assert_eq!(again.open_sealed("/registry/secrets/a/b", &sealed).expect("opens"), PLAIN);
    assert!(again.open_sealed("/registry/secrets/a/c", &sealed).is_err(), "moved to another place");
    let other = tempfile::tempdir().expect("a folder");
    assert!(own(other.path()).open_sealed("/registry/secrets/a/b", &sealed).is_err(), "another key");
    assert!(!cipher.seals(&kind("", "configmaps")));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(folder.path().join("encryption.key")).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "its owner's alone");
}

/// Every provider, that one first; the keys are so many bytes of `a`.
fn configuration(first: &str) -> String {
    let key = |name: &str, length: usize| {
        use base64::Engine;
        let secret = base64::engine::general_purpose::STANDARD.encode("a".repeat(length));
        format!("{{keys: [{{name: {name}, secret: {secret}}}]}}")
    };
    let all = [
        format!("{{aesgcm: {}}}", key("g", 32)),
        format!("{{aescbc: {}}}", key("c", 16)),
        format!("{{secretbox: {}}}", key("s", 32)),
        "{identity: {}}".to_owned(),
    ];
    let at = all.iter().position(|one| one.starts_with(&format!("{{{first}:"))).expect("a provider");
    let mut all = all.to_vec();
    all.swap(0, at);
    format!(
        "{{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: [{{resources: [secrets, '*.apps'], providers: [{}]}}]}}",
        all.join(", ")
    )
}

#[test]
fn the_first_provider_writes_and_all_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("encryption.yaml");
    let cipher = || {
        let settings =
            Settings { configuration_file: Some(file.clone()), reload: false, ..Default::default() };
        Cipher::open(&folder.path().join("encryption.key"), &settings).expect("opens")
    };
    let place = "/registry/secrets/a/b";
    let mut written = Vec::new();
    written.push(own(folder.path()).seal(&secrets(), place, Bytes::from_static(PLAIN)).expect("seals"));
    for (first, prefix) in [
        ("aesgcm", "k8s:enc:aesgcm:v1:g:"),
        ("aescbc", "k8s:enc:aescbc:v1:c:"),
        ("secretbox", "k8s:enc:secretbox:v1:s:"),
        ("identity", "{"),
    ] {
        std::fs::write(&file, configuration(first)).expect("writes");
        let cipher = cipher();
        let sealed = cipher.seal(&secrets(), place, Bytes::from_static(PLAIN)).expect("seals");
        assert!(sealed.starts_with(prefix.as_bytes()), "{first}");
        assert_eq!(hides(&sealed), first != "identity", "{first}");
        assert!(!cipher.is_stale(&secrets(), place, &sealed), "{first}");
        for other in &written {
            assert!(cipher.is_stale(&secrets(), place, other), "{first}");
        }
        written.push(sealed);
        for stored in &written {
            assert_eq!(cipher.open_sealed(place, stored).expect("opens"), PLAIN, "{first}");
            if stored.starts_with(ENCRYPTED) {
                let mut damaged = stored.to_vec();
                let last = damaged.len() - 1;
                damaged.truncate(last);
                assert!(cipher.open_sealed(place, &Bytes::from(damaged)).is_err(), "{first}");
            }
        }
        assert_eq!(cipher.seals(&kind("apps", "deployments")), first != "identity");
        assert!(!cipher.seals(&kind("", "configmaps")));
    }
}

/// What kube-apiserver v1.36.2 had in its etcd, under the keys of `configuration`.
const SEALED_BY_THE_ORIGINAL: &[(&str, &str, &str)] = &[
    (
        "secrets",
        "Secret",
        "azhzOmVuYzphZXNnY206djE6ZzqxsLuXmCPPZrY6LBG1+kvUOrGWE7xg9s3FYF/8WnmSKKZrPAB2QoHxfR63jEicZu7c/EAq4TPypXYX7RaCttlyxEATkJdiqfq0igsBZoG1PISzh/+b7QAfoyzeJHjSgv02tJ/Zf5ICHO738jy57oYPNYWydHxnpyZuhzHz90+qLKGSGxe6+VlghfVDzRVwI9JKXlYgdfgIg2OZ3RSUTui4zda46wuhQhanDyURfw5rHNAS75LO0iBCV2LrDnbIQkbBrmf8ozMrnEiae9O0Wmws+IrmNGOh60Ta/3ImanIqmdqwblk=",
    ),
    (
        "configmaps",
        "ConfigMap",
        "azhzOmVuYzphZXNjYmM6djE6YzrofKXworq2tZPJXeeVp3GWz6Oiw5mesRdI5np7ZbWAETCk2oJyUNQIpzNcauhS3PUJrBZWcFFlqHOopshyKsUWWNojHVBR9EQC0KOOQpVG67RDIbBTLMqx9wg4zxIeJTSfM/rjwmEL7gG/g6w1dHXG7xS6hgMAsAU/S2HuOxEBsU5Cm9s1hY7gKN5r+zbA6py32w4AyCNyEXLqSasFNHphbq22tkYOu7S9IeJsjdUFzXGgy8tnfq56iVYPQQ2ALSonIrIztBE8lK8O0e11ebb3",
    ),
    (
        "serviceaccounts",
        "ServiceAccount",
        "azhzOmVuYzpzZWNyZXRib3g6djE6czq3WfbgqPf8pxJ727FOlsACL1wudmpDc8gxOSo3tAtEs8PtUap3JdbNsvxraJoxtFaJ7f9T8oTX6olV3egrpJwKr1J9r3/neQt7esW8RXFdM6fIapP/VsvK24KZ/vgttlJkqpgARoSBVhLacvs97dQT6j3AP7ceTNlJPMVxKSPgU+JAguS9Yce0QD0=",
    ),
];

#[test]
fn what_the_original_has_sealed_is_opened() {
    use base64::Engine;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("encryption.yaml");
    std::fs::write(&file, configuration("aesgcm")).expect("writes");
    let settings = Settings { configuration_file: Some(file), reload: false, ..Default::default() };
    let cipher = Cipher::open(&folder.path().join("encryption.key"), &settings).expect("opens");
    for (resource, kind, sealed) in SEALED_BY_THE_ORIGINAL {
        let sealed = base64::engine::general_purpose::STANDARD.decode(sealed).expect("base64");
        let place = format!("/registry/{resource}/enc/x");
        let plain =
            cipher.open_sealed(&place, &Bytes::from(sealed)).unwrap_or_else(|e| panic!("{resource}: {e}"));
        let object: serde_json::Value =
            serde_json::from_slice(&api::stored::ours(&plain).expect("an object")).expect("JSON");
        assert_eq!(
            (&object["kind"], &object["metadata"]["name"]),
            (&(*kind).into(), &"x".into()),
            "{object}"
        );
    }
}

#[test]
fn what_is_cut_short_is_refused_by_every_provider() {
    for (scheme, length) in [(Scheme::AesGcm, 16), (Scheme::AesCbc, 24), (Scheme::Secretbox, 32)] {
        let provider = Provider::new(scheme, "k", &vec![7; length]).expect("a key");
        let sealed = provider.seal("p", PLAIN).expect("seals");
        let opened = |stored: &[u8]| provider.open("p", stored).expect("nobody else is asked");
        assert_eq!(opened(&sealed).as_deref(), Some(PLAIN), "{scheme:?}");
        for end in 0..sealed.len() {
            // Whole blocks of CBC open to something else, or not; nothing panics, and never is it the whole.
            assert_ne!(opened(&sealed[..end]).as_deref(), Some(PLAIN), "{scheme:?} {end}");
        }
        assert!(Provider::new(scheme, "k", &[7; 5]).is_none());
    }
}

#[test]
fn a_configuration_that_changes_is_taken_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("encryption.yaml");
    let write = |text: &str, seconds: u64| {
        std::fs::write(&file, text).expect("writes");
        let open = std::fs::File::options().write(true).open(&file).expect("opens");
        open.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).expect("dated");
    };
    write(&configuration("aescbc"), 1);
    let settings = Settings { configuration_file: Some(file.clone()), reload: true, ..Default::default() };
    let cipher = Cipher::open(&folder.path().join("encryption.key"), &settings).expect("opens");
    let prefix = |cipher: &Cipher| {
        let configured = cipher.configured.as_ref().expect("configured");
        let earlier = Instant::now().checked_sub(reload::LOOK_EVERY).expect("a clock that has run");
        configured.looked.lock().at = earlier;
        let sealed = cipher.seal(&secrets(), "p", Bytes::from_static(PLAIN)).expect("seals");
        String::from_utf8_lossy(&sealed[..14]).into_owned()
    };
    assert_eq!(prefix(&cipher), "k8s:enc:aescbc");
    write("kind: nonsense", 2);
    assert_eq!(prefix(&cipher), "k8s:enc:aescbc");
    write(&configuration("secretbox"), 3);
    assert_eq!(prefix(&cipher), "k8s:enc:secret");
}

/// Wherever a rotation is stopped: a server that starts then reads everything, and brings it to its end.
#[tokio::test]
async fn a_rotation_that_is_stopped_anywhere_loses_nothing() {
    const SECRETS: usize = 5;
    for stopped_after in 0..SECRETS + 4 {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Embedded::open(&folder.path().join("state"), EmbeddedOptions::default()).expect("opens");
        let cipher = own(folder.path());
        let place = |n: usize| format!("/registry/secrets/a/{n}");
        for n in 0..SECRETS {
            let sealed = cipher.seal(&secrets(), &place(n), Bytes::from_static(PLAIN)).expect("seals");
            store.txn(vec![Op::create(place(n), sealed)]).await.expect("stores");
        }
        let first = std::fs::read(folder.path().join("encryption.key")).expect("a key");
        let mut step = 0;
        let mut stops = || {
            step += 1;
            step > stopped_after
        };
        'rotation: {
            if stops() {
                break 'rotation;
            }
            cipher.begin().await.expect("begins");
            for _ in 0..SECRETS {
                if stops() {
                    break 'rotation;
                }
                assert_eq!(cipher.reseal(&store, 1).await.expect("seals"), 1);
            }
            if stops() {
                break 'rotation;
            }
            cipher.retire().expect("lets go");
        }
        drop(cipher);
        let cipher = own(folder.path());
        let all = async |cipher: &Cipher| {
            let request = RangeRequest { prefix: "/registry/secrets/".into(), ..Default::default() };
            let entries = store.range(request).await.expect("reads").entries;
            for entry in &entries {
                assert_eq!(cipher.open_sealed(&entry.key, &entry.value).expect("opens"), PLAIN);
            }
            entries
        };
        assert_eq!(all(&cipher).await.len(), SECRETS, "stopped after {stopped_after}");
        let unfinished = (1..=SECRETS + 1).contains(&stopped_after);
        assert_eq!(cipher.is_unfinished().expect("keys"), unfinished, "stopped after {stopped_after}");
        if unfinished {
            cipher.finish(&store).await.expect("finishes");
        }
        let keys = std::fs::read(folder.path().join("encryption.key")).expect("keys");
        assert_eq!(keys.len(), KEY_LENGTH, "stopped after {stopped_after}");
        assert_eq!(keys == first, stopped_after == 0, "the old key is gone");
        // Nothing but the newest key is needed any more.
        all(&own(folder.path())).await;
    }
}

#[tokio::test]
async fn a_rotation_meets_those_who_write_and_keeps_history_readable() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Embedded::open(&folder.path().join("state"), EmbeddedOptions::default()).expect("opens");
    let cipher = own(folder.path());
    let sealed = cipher.seal(&secrets(), "/registry/secrets/a/b", Bytes::from_static(PLAIN)).expect("seals");
    store.txn(vec![Op::create("/registry/secrets/a/b", sealed.clone())]).await.expect("stores");
    let old = store.revision();
    assert_eq!(cipher.rotate(&store).await.expect("rotates"), Rotated { entries: 1, keys: 1 });
    // Whoever has read it before may still look at it; nobody gets it from the store.
    assert_eq!(cipher.open_sealed("/registry/secrets/a/b", &sealed).expect("opens"), PLAIN);
    assert!(own(folder.path()).open_sealed("/registry/secrets/a/b", &sealed).is_err());
    let request = RangeRequest { prefix: "/registry/".into(), revision: Some(old), ..Default::default() };
    assert!(store.range(request).await.is_err(), "what was is compacted");
    // One that writes holds the rotation up until it has written.
    let writing = cipher.writing.read().await;
    let begin = cipher.begin();
    tokio::pin!(begin);
    assert!(futures::poll!(&mut begin).is_pending());
    drop(writing);
    begin.await.expect("begins");
}
