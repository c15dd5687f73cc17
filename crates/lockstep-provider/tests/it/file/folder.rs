//! Tests what a folder of files returns and what it rejects.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, time::Duration};

use lockstep_provider::{
    Context, ErrorKind, FileFactory, FindQuery, Pattern, ProviderFactory as _, RemoteRef, Scope,
    call::{Check, Direct, Service as _},
    layers::Timeout,
};
use lockstep_provider_testkit::at;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::setup::{Files, Store, config};

/// Writes a volume like kubelet and CSI drivers do: files are links through `..data` to a folder
/// with the time in its name.
fn volume(files: &Files, store: &str, time: &str, password: &str) {
    files.write(&format!("{store}/..{time}/password"), password);
    files.write(&format!("{store}/..{time}/tls/key"), password);
    files.link(&format!("{store}/..data_tmp"), format!("..{time}"));
    fs::rename(
        files.at(&format!("{store}/..data_tmp")),
        files.at(&format!("{store}/..data")),
    )
    .unwrap();
}

#[tokio::test]
async fn mounted_volume_is_read_through_its_links() {
    let files = Files::new();
    volume(&files, "csi", "2026_11_24_03_00_00.1", "first");
    files.link("csi/password", "..data/password");
    files.link("csi/tls", "..data/tls");
    let store = files.store("csi").await;
    assert_eq!(store.all_keys().await, ["password", "tls/key"]);
    assert_eq!(store.text("password").await, "first");
    let before = store.get("tls/key").await.unwrap().version;
    volume(&files, "csi", "2026_11_24_04_00_00.2", "second");
    fs::remove_dir_all(files.at("csi/..2026_11_24_03_00_00.1")).unwrap();
    assert_eq!(store.text("password").await, "second");
    assert_eq!(store.text("tls/key").await, "second");
    assert_ne!(store.get("tls/key").await.unwrap().version, before);
    for key in ["..data/password", "..2026_11_24_04_00_00.2/password", "..data"] {
        store.refuse(key, ErrorKind::ConfigInvalid).await;
    }
}

#[tokio::test]
async fn swapping_a_volume_never_makes_a_key_not_found() {
    let files = Files::new();
    volume(&files, "csi", "0", "value");
    files.link("csi/password", "..data/password");
    files.link("csi/tls", "..data/tls");
    let store = files.store("csi").await;
    let swapped = std::thread::spawn(move || {
        for time in 1..400 {
            volume(&files, "csi", &time.to_string(), "value");
            fs::remove_dir_all(files.at(&format!("csi/..{}", time - 1))).unwrap();
        }
        files
    });
    let mut reads = 0;
    while !swapped.is_finished() {
        // a volume that is swapped all the time may be unavailable
        match store.get("tls/key").await {
            Ok(secret) => assert_eq!(secret.value.expose_str(), Some("value")),
            Err(error) => assert_eq!(error.kind, ErrorKind::Unavailable, "{error}"),
        }
        match store.0.find(&Context::default(), &FindQuery::default()).await {
            Ok(found) => assert_eq!(found.len(), 2),
            Err(error) => assert_eq!(error.kind, ErrorKind::Unavailable, "{error}"),
        }
        reads += 1;
    }
    assert!(reads > 0);
    drop(swapped.join().unwrap());
}

#[tokio::test]
async fn values_of_one_read_come_from_one_state_of_a_volume() {
    let files = Files::new();
    let write = |files: &Files, time: usize| {
        let time = time.to_string();
        for name in ["username", "password"] {
            files.write(&format!("csi/..{time}/{name}"), &time);
        }
        volume(files, "csi", &time, &time);
    };
    write(&files, 0);
    for name in ["username", "password"] {
        files.link(&format!("csi/{name}"), format!("..data/{name}"));
    }
    let Store(provider) = files.store("csi").await;
    let swapped = std::thread::spawn(move || {
        for time in 1..400 {
            write(&files, time);
            fs::remove_dir_all(files.at(&format!("csi/..{}", time - 1))).unwrap();
        }
        files
    });
    let refs = ["username", "password"].map(|key| RemoteRef::current(at(key)));
    let mut pairs = 0;
    while !swapped.is_finished() {
        let mut values = provider.fetch(&Context::default(), &refs).await.into_iter();
        // a volume that is swapped all the time may be unavailable, but values are never mixed
        if let (Some(Ok(username)), Some(Ok(password))) = (values.next(), values.next()) {
            assert_eq!(username.value.expose_str(), password.value.expose_str());
            pairs += 1;
        }
    }
    assert!(pairs > 0);
    drop(swapped.join().unwrap());
}

#[tokio::test]
async fn links_out_of_the_stores_folder_are_denied() {
    let files = Files::new();
    fs::write(files.outside().join("secret"), "CANARY").unwrap();
    files.write("other/secret", "CANARY");
    files.write("shop/fine", "fine");
    files.link("shop/neighbour", "../other/secret");
    files.link("shop/out", "../../secret");
    files.link("shop/absolute", files.outside().join("secret"));
    files.link("shop/folder", "../other");
    files.link("shop/twice", "out");
    files.link("shop/circle", "circle");
    files.link("shop/proc", "/proc/self/environ");
    let store = files.store("shop").await;
    for key in [
        "neighbour",
        "out",
        "absolute",
        "folder/secret",
        "twice",
        "circle",
        "proc",
    ] {
        store.refuse(key, ErrorKind::PermissionDenied).await;
    }
    assert_eq!(store.all_keys().await, ["fine"]);
    files.link("shop/dangling", "nowhere");
    store.refuse("dangling", ErrorKind::PermissionDenied).await;
}

#[tokio::test]
async fn link_to_a_neighbours_folder_does_not_defeat_a_grant() {
    let files = Files::new();
    files.write("team-a/db", "CANARY");
    files.write("team-a/..data/db", "CANARY");
    files.write("team-b/own", "fine");
    for (name, target) in [
        ("mine", "../team-a/db"),
        ("hidden", "..x/db"),
        ("..x", "../team-a"),
        ("deep", "..y/../../team-a/db"),
        ("folder", "../team-a"),
        ("plain", "own"),
    ] {
        files.link(&format!("team-b/{name}"), target);
    }
    fs::create_dir(files.at("team-b/..y")).unwrap();
    files.link("team-b/..y/db", "../../team-a/db");
    files.link("team-b/nested", "..y/db");
    let store = files.store("").await;
    for key in ["mine", "hidden", "deep", "folder/db", "plain", "nested"] {
        store
            .refuse(&format!("team-b/{key}"), ErrorKind::PermissionDenied)
            .await;
    }
    let granted = |path: Option<&str>| FindQuery {
        scope: Scope::patterns(Pattern::new("team-b/**")),
        path: path.map(at),
        ..FindQuery::default()
    };
    assert_eq!(store.keys(&granted(None)).await, ["team-b/own"]);
    let below = granted(Some("team-b/folder"));
    let error = store.0.find(&Context::default(), &below).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    assert!(error.message.contains("\"team-b/folder\""), "{error}");
}

#[tokio::test]
async fn unmounted_volume_is_never_an_empty_result() {
    let files = Files::new();
    fs::create_dir_all(files.at("volume")).unwrap();
    let store = files.store("volume").await;
    let find = |path: Option<&str>| FindQuery {
        path: path.map(at),
        ..FindQuery::default()
    };
    let cx = Context::default();
    for error in [
        store.check().await.unwrap_err(),
        store.get("password").await.unwrap_err(),
        store.0.find(&cx, &find(None)).await.unwrap_err(),
        store.0.find(&cx, &find(Some("shop"))).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    }
    files.write("volume/password", "value");
    store.check().await.unwrap();
    store.refuse("other", ErrorKind::NotFound).await;
    let error = store.0.find(&cx, &find(Some("shop"))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert_eq!(error.message, "folder \"shop\" does not exist");
    fs::create_dir(files.at("volume/shop")).unwrap();
    let error = store.0.find(&cx, &find(Some("shop"))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert_eq!(store.keys(&find(None)).await, ["password"]);
    fs::remove_dir_all(files.at("volume")).unwrap();
    let error = store.0.find(&cx, &find(None)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn dangling_link_of_a_volume_is_unavailable() {
    let files = Files::new();
    volume(&files, "csi", "1", "value");
    files.link("csi/password", "..data/password");
    files.link("csi/gone", "..data/gone");
    let store = files.store("csi").await;
    assert_eq!(store.text("password").await, "value");
    store.refuse("gone", ErrorKind::Unavailable).await;
    files.link("csi/tls", "..data/tls");
    assert_eq!(store.text("tls/key").await, "value");
    store.refuse("tls/other", ErrorKind::NotFound).await;
    let query = FindQuery::default();
    let error = store.0.find(&Context::default(), &query).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    let others = FindQuery {
        scope: Scope::patterns(Pattern::new("password")),
        ..query
    };
    assert_eq!(store.keys(&others).await, ["password"]);
}

#[tokio::test]
async fn search_during_swaps_of_a_volume_is_complete() {
    const KEYS: usize = 20;
    // Like kubelet: swap the volume, then add the links of new keys, then remove those of old keys.
    let swap = |files: &Files, time: usize| {
        let name = |time: usize, key: usize| format!("{}{key}", ["a", "b"][time % 2]);
        for key in 0..KEYS {
            files.write(&format!("csi/..{time}/{}", name(time, key)), "value");
        }
        volume(files, "csi", &time.to_string(), "value");
        for key in 0..KEYS {
            let name = name(time, key);
            files.link(&format!("csi/{name}"), format!("..data/{name}"));
        }
        if let Some(before) = time.checked_sub(1) {
            for key in 0..KEYS {
                fs::remove_file(files.at(&format!("csi/{}", name(before, key)))).unwrap();
            }
            fs::remove_dir_all(files.at(&format!("csi/..{before}"))).unwrap();
        }
    };
    let files = Files::new();
    swap(&files, 0);
    let store = files.store("csi").await;
    let swapped = std::thread::spawn(move || {
        for time in 1..200 {
            swap(&files, time);
            std::thread::sleep(Duration::from_millis(3));
        }
        files
    });
    while !swapped.is_finished() {
        match store.0.find(&Context::default(), &FindQuery::default()).await {
            Ok(found) => {
                assert_eq!(found.len(), KEYS, "{found:?}");
                let first = found[0].key.as_str().chars().next().unwrap();
                assert!(
                    found.iter().all(|meta| meta.key.as_str().starts_with(first)),
                    "{found:?}"
                );
            }
            Err(error) => assert_eq!(error.kind, ErrorKind::Unavailable, "{error}"),
        }
    }
    let files = swapped.join().unwrap();
    assert_eq!(store.all_keys().await.len(), KEYS);
    drop(files);
}

#[tokio::test]
async fn keys_outside_the_folder_are_rejected() {
    let files = Files::new();
    files.write("other", "CANARY");
    files.write("shop/database", "CANARY");
    let store = files.store("shop").await;
    let absolute = files.at("shop/database");
    for key in [
        "../other",
        "a/../../other",
        absolute.to_str().unwrap(),
        "/database",
        "database/",
        "./database",
        "a//b",
        "",
    ] {
        store.refuse(key, ErrorKind::ConfigInvalid).await;
    }
    let long = "x/".repeat(1000) + "x";
    let error = store.get(&long).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.len() < 1024);
}

#[tokio::test]
async fn folder_is_not_a_value() {
    let files = Files::new();
    files.write("shop/database/password", "CANARY");
    let store = files.store("shop").await;
    let error = store.refuse("database", ErrorKind::NotFound).await;
    assert_eq!(error.message, "key \"database\" is a folder, not a file");
}

#[tokio::test]
async fn pipes_sockets_and_devices_are_rejected_immediately() {
    let files = Files::new();
    files.write("shop/fine", "fine");
    mknodat(CWD, files.at("shop/pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(files.at("shop/socket")).unwrap();
    let mut special = vec!["pipe", "socket"];
    // only root may create a device
    let device = rustix::fs::makedev(1, 5);
    if mknodat(
        CWD,
        files.at("shop/device"),
        FileType::CharacterDevice,
        Mode::RWXU,
        device,
    )
    .is_ok()
    {
        special.push("device");
    }
    let store = files.store("shop").await;
    for key in special {
        let refused = store.refuse(key, ErrorKind::PermissionDenied);
        let error = tokio::time::timeout(Duration::from_secs(5), refused)
            .await
            .unwrap();
        assert!(
            error.message.ends_with("is a device, pipe or socket, not a file"),
            "{error}"
        );
    }
    assert_eq!(store.all_keys().await, ["fine"]);
    let error = files.store("shop/pipe").await.check().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
}

#[tokio::test]
async fn file_above_the_size_limit_is_rejected() {
    let files = Files::new();
    files.write("largest", vec![b'x'; 4 << 20]);
    files.write("huge", vec![b'x'; (4 << 20) + 1]);
    let store = files.store("").await;
    assert_eq!(store.get("largest").await.unwrap().value.len(), 4 << 20);
    let error = store.refuse("huge", ErrorKind::Malformed).await;
    assert_eq!(error.message, "key \"huge\" is larger than 4 MiB");
}

#[tokio::test]
async fn unreadable_files_are_permission_denied() {
    use std::os::unix::fs::PermissionsExt as _;
    let files = Files::new();
    files.write("shop/denied", "CANARY");
    files.write("shop/folder/password", "CANARY");
    files.write("shop/fine", "fine");
    for path in ["shop/denied", "shop/folder"] {
        fs::set_permissions(files.at(path), fs::Permissions::from_mode(0o0)).unwrap();
    }
    let store = files.store("shop").await;
    if rustix::process::geteuid().is_root() {
        // permissions do not apply to root; a unit test covers the mapping of the kernel's error
        assert_eq!(store.text("denied").await, "CANARY");
        return;
    }
    store.refuse("denied", ErrorKind::PermissionDenied).await;
    store.refuse("folder/password", ErrorKind::PermissionDenied).await;
    assert_eq!(store.text("fine").await, "fine");
    let error = store
        .0
        .find(&Context::default(), &FindQuery::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "half a list is none");
    fs::set_permissions(files.at("shop/folder"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn unicode_names_are_keys_and_invalid_utf8_is_skipped() {
    let files = Files::new();
    files.write("größe-鍵/🔑", "unicode");
    files.write("e\u{301}", "decomposed");
    fs::write(files.root().join(OsStr::from_bytes(b"\xff\xfe")), "CANARY").unwrap();
    files.write(".hidden", "hidden");
    let store = files.store("").await;
    assert_eq!(store.all_keys().await, [".hidden", "e\u{301}", "größe-鍵/🔑"]);
    assert_eq!(store.text("größe-鍵/🔑").await, "unicode");
    store.refuse("é", ErrorKind::NotFound).await;
    store.refuse("line\nbreak", ErrorKind::ConfigInvalid).await;
    store.refuse("with blank", ErrorKind::ConfigInvalid).await;
    files.write("with blank", "CANARY");
    let query = FindQuery::default();
    let error = store.0.find(&Context::default(), &query).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    let named = FindQuery {
        name: Some("hidden".into()),
        ..FindQuery::default()
    };
    assert_eq!(
        store.keys(&named).await,
        [".hidden"],
        "what does not match breaks nothing"
    );
}

#[tokio::test]
async fn search_lists_only_folders_with_granted_keys() {
    let files = Files::new();
    files.write("shop/db", "value");
    files.write("shop/eu/db", "value");
    files.write("blog/my key", "CANARY");
    let granted = |globs: &[&str]| FindQuery {
        scope: Scope::patterns(globs.iter().filter_map(|glob| Pattern::new(glob))),
        ..FindQuery::default()
    };
    let store = files.store("").await;
    assert_eq!(store.keys(&granted(&["shop/*"])).await, ["shop/db"]);
    assert_eq!(
        store.keys(&granted(&["shop/**", "shop/eu/*"])).await,
        ["shop/db", "shop/eu/db"]
    );
    assert!(
        store
            .keys(&granted(&["../**", "/etc/**", "..data/*"]))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn search_ends_despite_circular_links() {
    let files = Files::new();
    files.write("shop/eu/password", "value");
    files.link("shop/eu/again", "..");
    files.link("shop/self", ".");
    let store = files.store("shop").await;
    assert_eq!(store.all_keys().await, ["eu/password"]);
    let below = |path: &str| FindQuery {
        path: Some(at(path)),
        ..FindQuery::default()
    };
    assert_eq!(store.keys(&below("eu")).await, ["eu/password"]);
}

#[tokio::test]
async fn search_with_too_many_results_is_rejected() {
    let files = Files::new();
    for index in 0..10_001 {
        files.write(&format!("shop/{index}"), "");
    }
    let store = files.store("shop").await;
    let error = store
        .0
        .find(&Context::default(), &FindQuery::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Malformed);
    assert_eq!(error.message, "there are more than 10000 files");
    let narrow = FindQuery {
        name: Some("^99".into()),
        ..FindQuery::default()
    };
    assert_eq!(store.keys(&narrow).await.len(), 111);
}

#[tokio::test]
async fn search_path_outside_the_store_is_rejected() {
    let locator = FileFactory::without_root()
        .locator(&config("shop").provider)
        .unwrap();
    assert_eq!(locator.folder("shop/").unwrap().unwrap().as_str(), "shop");
    for path in ["..", "../other", "a/../b", "./a", "..data", "a//b", "shop "] {
        assert!(locator.folder(path).is_err(), "{path}");
    }
}

#[tokio::test]
async fn version_and_time_change_but_do_not_reveal_content() {
    let files = Files::new();
    files.write("password", "first");
    let store = files.store("").await;
    let first = store.get("password").await.unwrap();
    let again = store.get("password").await.unwrap();
    assert_eq!((&first.version, first.created), (&again.version, again.created));
    files.write("new", "other");
    fs::rename(files.at("new"), files.at("password")).unwrap();
    let replaced = store.get("password").await.unwrap();
    assert_ne!(first.version, replaced.version);
    assert!(replaced.created >= first.created);
    let metadata = fs::metadata(files.at("password")).unwrap();
    let modified = jiff::Timestamp::try_from(metadata.modified().unwrap()).unwrap();
    assert_eq!(replaced.created, Some(modified));
}

#[tokio::test]
async fn request_past_its_deadline_is_cancelled() {
    let files = Files::new();
    files.write("password", "CANARY");
    let Store(provider) = files.store("").await;
    let cx = Context {
        deadline: Some(std::time::Instant::now()),
        ..Context::default()
    };
    let error = provider.find(&cx, &FindQuery::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    let limited = Timeout::new(Direct(provider), Duration::from_secs(10));
    let checked = limited.call(&Context::default(), &[Check]).await;
    assert_eq!(checked, [Ok(())]);
}
