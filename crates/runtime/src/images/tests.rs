//! Layouts made here, imported there. They need root, as the runtime does: whiteouts are devices and trusted attributes.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::{Image, ImageError, ImageStore, Rootfs};

/// An entry of a layer: type, path, content or link target.
type Row<'a> = (EntryType, &'a str, &'a str);

const FILE: EntryType = EntryType::Regular;
const DIRECTORY: EntryType = EntryType::Directory;
const SYMLINK: EntryType = EntryType::Symlink;

fn layer(rows: &[Row]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (kind, path, text) in rows {
        let mut header = Header::new_gnu();
        // Written raw: the tar crate refuses to make the paths that these tests are about.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(if *kind == DIRECTORY { 0o755 } else { 0o4750 });
        header.set_uid(12);
        header.set_gid(34);
        header.set_mtime(1_700_000_000);
        let content = if *kind == FILE { text.as_bytes() } else { b"" };
        if *kind != FILE && !text.is_empty() {
            header.set_link_name_literal(text).unwrap();
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// An image layout that is being made.
struct Layout(tempfile::TempDir);

impl Layout {
    fn new() -> Layout {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("blobs/sha256")).unwrap();
        fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        self.path().join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        fs::write(self.blob_path(&digest), bytes).unwrap();
        json!({ "mediaType": format!("application/vnd.oci.image.{media_type}"), "digest": digest, "size": bytes.len() })
    }

    fn document(&self, media_type: &str, document: &Value) -> Value {
        self.blob(media_type, document.to_string().as_bytes())
    }

    /// An image of these layers for this architecture.
    fn image(&self, layers: &[Vec<u8>], architecture: &str) -> Value {
        let diff_ids: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
        let config = self.document(
            "config.v1+json",
            &json!({
                "os": "linux", "architecture": architecture,
                "config": { "Entrypoint": ["/bin/app"], "Cmd": ["run"], "Env": ["A=1=2", "B="], "WorkingDir": "/srv", "User": "12" },
                "rootfs": { "type": "layers", "diff_ids": diff_ids },
            }),
        );
        let layers: Vec<_> = layers.iter().map(|layer| self.blob("layer.v1.tar+gzip", &gzip(layer))).collect();
        let mut manifest = self.document("manifest.v1+json", &json!({ "config": config, "layers": layers }));
        manifest["platform"] = json!({ "os": "linux", "architecture": architecture });
        manifest
    }

    fn index(&self, manifests: &[Value]) {
        fs::write(self.path().join("index.json"), json!({ "manifests": manifests }).to_string()).unwrap();
    }

    /// A layout with one image of these layers.
    fn of(layers: &[Vec<u8>]) -> Layout {
        let layout = Layout::new();
        layout.index(&[layout.image(layers, "amd64")]);
        layout
    }
}

fn store() -> (tempfile::TempDir, ImageStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::open(directory.path()).unwrap();
    (directory, store)
}

fn layers(image: &Image) -> &[PathBuf] {
    match &image.rootfs {
        Rootfs::Layers(layers) => layers,
        Rootfs::Host => panic!("not an imported image"),
    }
}

/// How many entries a directory of the store has.
fn count(directory: &tempfile::TempDir, name: &str) -> usize {
    fs::read_dir(directory.path().join(name)).unwrap().count()
}

#[test]
fn an_imported_image_is_found_with_its_configuration_and_its_files() {
    let (directory, store) = store();
    let layout = Layout::of(&[layer(&[(DIRECTORY, "bin/", ""), (FILE, "bin/app", "#!"), (SYMLINK, "sbin", "bin")])]);
    let imported = store.import(layout.path(), "example.org/app:1").unwrap();
    assert_eq!(store.resolve("example.org/app:1").unwrap(), imported);
    assert_eq!(imported.config.entrypoint, ["/bin/app"]);
    assert_eq!(imported.config.env, [("A".into(), "1=2".into()), ("B".into(), String::new())]);
    assert_eq!(imported.config.working_dir.as_deref(), Some("/srv"));
    assert_eq!(imported.config.user.as_deref(), Some("12"));
    let app = layers(&imported)[0].join("bin/app");
    let metadata = fs::metadata(&app).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mtime()), (12, 34, 1_700_000_000));
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o4750);
    assert_eq!(fs::read_link(layers(&imported)[0].join("sbin")).unwrap(), Path::new("bin"));
    assert_eq!(count(&directory, "tmp"), 0);
    assert_eq!(count(&directory, "blobs/sha256"), 2);
}

#[test]
fn a_layout_may_be_an_archive_compressed_or_not() {
    let layout = Layout::of(&[layer(&[(FILE, "a", "content")])]);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", layout.path()).unwrap();
    let plain = archive.into_inner().unwrap();
    for bytes in [plain.clone(), gzip(&plain)] {
        let (directory, store) = store();
        let path = directory.path().join("image.tar");
        fs::write(&path, bytes).unwrap();
        let image = store.import(&path, "app").unwrap();
        assert_eq!(fs::read(layers(&image)[0].join("a")).unwrap(), b"content");
        assert_eq!(count(&directory, "tmp"), 0);
    }
}

#[test]
fn an_imported_image_comes_before_its_stand_in() {
    let (_directory, store) = store();
    assert!(store.resolve("nginx").unwrap().stand_in_for.is_some());
    store.import(Layout::of(&[layer(&[])]).path(), "nginx").unwrap();
    let image = store.resolve("docker.io/library/nginx:latest").unwrap();
    assert_eq!(image.stand_in_for, None);
    assert!(store.resolve("nginx:1.27").unwrap().stand_in_for.is_some(), "another tag is another image");
}

#[test]
fn built_in_images_are_there_under_any_tag() {
    let (_directory, store) = store();
    for (reference, entrypoint) in [
        ("podnet.local/tools:v3", &[][..]),
        ("podnet.local/demoapp", &["/opt/podnet/bin/podnet", "demoapp"]),
        ("podnet.local/podnet", &["/opt/podnet/bin/podnet"]),
        ("podnet.local/dns:1", &["/opt/podnet/bin/podnet", "dns"]),
    ] {
        let image = store.resolve(reference).unwrap();
        assert_eq!((&image.rootfs, image.stand_in_for), (&Rootfs::Host, None));
        assert_eq!(image.config.entrypoint, entrypoint);
    }
    assert!(matches!(store.resolve("podnet.local/other"), Err(ImageError::Unknown { .. })));
}

#[test]
fn layers_that_images_share_are_unpacked_once() {
    let (directory, store) = store();
    let base = layer(&[(FILE, "base", "")]);
    let one = store.import(Layout::of(&[base.clone(), layer(&[(FILE, "one", "")])]).path(), "one").unwrap();
    let two = store.import(Layout::of(&[base, layer(&[(FILE, "two", "")])]).path(), "two").unwrap();
    assert_eq!(layers(&one)[0], layers(&two)[0]);
    assert_eq!(count(&directory, "layers"), 3);
}

#[test]
fn whiteouts_become_what_overlayfs_understands() {
    let (_directory, store) = store();
    let rows = [
        (FILE, "etc/.wh.gone", ""),
        (DIRECTORY, "var/", ""),
        (FILE, "var/.wh..wh..opq", ""),
        (FILE, ".wh..wh.plnk", ""),
    ];
    let image = store.import(Layout::of(&[layer(&rows)]).path(), "app").unwrap();
    let root = &layers(&image)[0];
    let gone = fs::symlink_metadata(root.join("etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(root.join("var"), "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..length], b"y");
    assert!(
        !root.join("etc/.wh.gone").exists()
            && !root.join("var/.wh..wh..opq").exists()
            && !root.join(".wh..wh.plnk").exists()
    );
}

#[test]
fn nothing_is_written_outside_a_layer() {
    let outside = tempfile::tempdir().unwrap();
    let absolute = outside.path().to_str().unwrap();
    let attempts: [&[Row]; 6] = [
        &[(FILE, "../escape", "x")],
        &[(FILE, "a/../../escape", "x")],
        &[(SYMLINK, "out", absolute), (FILE, "out/escape", "x")],
        &[(SYMLINK, "up", "../../../.."), (FILE, "up/escape", "x")],
        &[(SYMLINK, "out", absolute), (FILE, "out/.wh.escape", "")],
        &[(EntryType::Link, "stolen", "../../../../../../etc/passwd")],
    ];
    for rows in attempts {
        let (directory, store) = store();
        let result = store.import(Layout::of(&[layer(rows)]).path(), "app");
        assert!(matches!(result, Err(ImageError::Entry { .. })), "{rows:?}: {result:?}");
        assert_eq!((count(&directory, "layers"), count(&directory, "images"), count(&directory, "tmp")), (0, 0, 0));
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_link_within_the_layer_is_followed_and_a_later_entry_replaces_an_earlier() {
    let (_directory, store) = store();
    let rows = [
        (DIRECTORY, "usr/bin/", ""),
        (SYMLINK, "bin", "usr/bin"),
        (FILE, "bin/sh", "first"),
        (FILE, "/usr/bin/sh", "second"),
        (EntryType::Link, "usr/bin/dash", "usr/bin/sh"),
        (SYMLINK, "etc/mtab", "/proc/mounts"),
        (FILE, "etc/mtab", "a file, not what the link led to"),
    ];
    let image = store.import(Layout::of(&[layer(&rows)]).path(), "app").unwrap();
    let root = &layers(&image)[0];
    assert_eq!(fs::read(root.join("usr/bin/dash")).unwrap(), b"second");
    assert!(fs::symlink_metadata(root.join("bin")).unwrap().is_symlink());
    assert!(fs::symlink_metadata(root.join("etc/mtab")).unwrap().is_file());
}

#[test]
fn what_is_not_what_its_digest_says_is_refused_whole() {
    let content = layer(&[(FILE, "a", "content")]);
    let other = gzip(&layer(&[(FILE, "a", "changed")]));
    let layout = Layout::of(std::slice::from_ref(&content));
    fs::write(layout.blob_path(&digest(&gzip(&content))), other).unwrap();
    let (directory, store) = store();
    assert!(matches!(store.import(layout.path(), "app"), Err(ImageError::Digest { .. })));
    let manifest = Layout::of(&[content]);
    for entry in fs::read_dir(manifest.path().join("blobs/sha256")).unwrap() {
        fs::write(entry.unwrap().path(), "{}").unwrap();
    }
    assert!(matches!(store.import(manifest.path(), "app"), Err(ImageError::Digest { .. })));
    assert_eq!((count(&directory, "layers"), count(&directory, "images"), count(&directory, "tmp")), (0, 0, 0));
}

#[test]
fn of_several_images_the_one_for_this_platform_and_name_is_taken() {
    let layout = Layout::new();
    let ours = layout.image(&[layer(&[(FILE, "ours", "")])], "amd64");
    let theirs = layout.image(&[layer(&[(FILE, "theirs", "")])], "arm64");
    let mut named = layout.image(&[layer(&[(FILE, "named", "")])], "amd64");
    named["annotations"] = json!({ "org.opencontainers.image.ref.name": "named" });
    let nested = layout.document("index.v1+json", &json!({ "manifests": [theirs, ours] }));
    layout.index(&[nested, named]);
    let (_directory, store) = store();
    assert!(layers(&store.import(layout.path(), "app").unwrap())[0].join("ours").exists());
    assert!(layers(&store.import(layout.path(), "app:named").unwrap())[0].join("named").exists());
    let foreign = Layout::new();
    foreign.index(&[foreign.image(&[], "arm64")]);
    assert!(matches!(store.import(foreign.path(), "app"), Err(ImageError::Layout { .. })));
}

#[test]
fn what_an_interrupted_import_left_is_cleared_away_when_no_other_runs() {
    let (directory, store) = store();
    let left = directory.path().join("tmp/left/layer");
    fs::create_dir_all(&left).unwrap();
    let import = store.directories.lock().unwrap();
    ImageStore::open(directory.path()).unwrap();
    assert!(left.exists(), "another process imports");
    drop(import);
    ImageStore::open(directory.path()).unwrap();
    assert_eq!(count(&directory, "tmp"), 0);
}
