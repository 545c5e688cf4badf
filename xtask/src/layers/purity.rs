//! What a pure crate must not do: no runtime, sockets, files, threads, clock, environment, and no `unsafe`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::Package;

/// The pure crates.
const PURE: [&str; 4] = ["podnet-model", "podnet-planner", "podnet-dns", "podnet-flow"];
/// Crates whose only use is an effect.
const EFFECTS: [&str; 9] = ["tokio", "rustix", "libc", "nix", "kube", "kube-client", "hyper", "axum", "netlink-sys"];
/// Modules of the standard library that are nothing but effects.
const MODULES: [&str; 4] = ["fs", "process", "thread", "env"];
/// Further names that are effects wherever they stand.
const NAMES: [&str; 10] = [
    "SystemTime::now",
    "Instant::now",
    "Utc::now",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "unsafe {",
];

/// The effects of a crate that has to be pure; none of any other crate.
pub(super) fn faults(name: &str, package: &Package) -> Vec<String> {
    if !PURE.contains(&name) {
        return Vec::new();
    }
    let effects = package.dependencies.iter().filter(|dependency| EFFECTS.contains(&dependency.as_str()));
    let mut faults: Vec<String> =
        effects.map(|dependency| format!("pure crate {name} depends on {dependency}")).collect();
    let texts: Vec<(PathBuf, String)> = sources(&package.directory.join("src"))
        .into_iter()
        .map(|file| (file.clone(), code(&fs::read_to_string(&file).unwrap_or_default())))
        .collect();
    let own: BTreeSet<&str> = texts.iter().flat_map(|(_, text)| modules(text)).collect();
    for (file, text) in &texts {
        let at = file.display();
        faults.extend(
            effects_in(text, &own)
                .into_iter()
                .map(|(line, what)| format!("pure crate {name} uses {what} at {at}:{line}")),
        );
    }
    faults
}

/// A file without its comment lines and without its tests, which may measure and read files: they stand at the end of a file or in
/// a file of their own. Lines keep their numbers.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod").next().unwrap_or_default();
    let lines = code.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules that a file declares.
fn modules(code: &str) -> Vec<&str> {
    let declared = code.lines().filter_map(|line| line.trim().split_once("mod ")?.1.strip_suffix(';'));
    declared.collect()
}

/// Where code has an effect, by its line (from 1), and which; `own` are the crate's own modules, which may be called like one of
/// the standard library (`process`, say).
fn effects_in(code: &str, own: &BTreeSet<&str>) -> BTreeSet<(usize, String)> {
    let mut found = imported(code);
    for (index, line) in code.lines().enumerate() {
        let mut add = |what: String| found.insert((index + 1, what));
        for name in NAMES.into_iter().filter(|name| line.contains(name)) {
            add(name.to_owned());
        }
        for module in MODULES {
            let called = !own.contains(module) && word_at(line, &format!("{module}::")).is_some();
            if called || word_at(line, &format!("std::{module}")).is_some() {
                add(format!("std::{module}"));
            }
        }
    }
    found
}

/// The modules that stand in the outermost braces of a `std::{…}`, however many lines it has.
fn imported(code: &str) -> BTreeSet<(usize, String)> {
    const GROUP: &str = "std::{";
    let mut found = BTreeSet::new();
    let mut from = 0;
    while let Some(start) = word_at(&code[from..], GROUP).map(|at| from + at + GROUP.len()) {
        let (mut depth, mut item) = (1, start);
        for (at, character) in code[start..].char_indices().map(|(at, character)| (start + at, character)) {
            if depth == 1 && matches!(character, ',' | '}') {
                let name = code[item..at].trim_start();
                let line = code[..at - name.len()].matches('\n').count() + 1;
                let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                if MODULES.contains(&name) {
                    found.insert((line, format!("std::{name}")));
                }
                item = at + 1;
            }
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        from = start;
    }
    found
}

/// Where `text` has `word` and not as the end of a longer name.
fn word_at(text: &str, word: &str) -> Option<usize> {
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(word).map(|(at, _)| at).find(|at| !text[..*at].ends_with(is_name))
}

/// The crate's source files, less those of modules that only tests compile.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    walk(directory, &mut files);
    let tests: Vec<PathBuf> = files.iter().flat_map(|file| test_modules(file)).collect();
    files.retain(|file| !tests.iter().any(|test| file.starts_with(test) || file.with_extension("") == *test));
    files
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Where the modules lie that a file declares under `#[cfg(test)]`, each as its path without the ending.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let directory = if file.ends_with("lib.rs") { file.with_file_name("") } else { file.with_extension("") };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter(|pair| pair[0].starts_with("#[cfg(") && pair[0].contains("test"));
    declared.filter_map(|pair| Some(directory.join(pair[1].split_once("mod ")?.1.strip_suffix(';')?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, String)> {
        effects_in(&code(text), &BTreeSet::new()).into_iter().collect()
    }

    fn std_at(line: usize, module: &str) -> (usize, String) {
        (line, format!("std::{module}"))
    }

    #[test]
    fn an_effect_is_found_however_it_is_imported_and_called() {
        assert_eq!(found("use std::fs;"), [std_at(1, "fs")]);
        assert_eq!(found("use std::fs as files;"), [std_at(1, "fs")]);
        assert_eq!(found("let home = std::env::var(name);"), [std_at(1, "env")]);
        assert_eq!(found("use std::{fmt, fs};\nlet text = fs::read(path);"), [std_at(1, "fs"), std_at(2, "fs")]);
        assert_eq!(
            found("use std::{\n    collections::{BTreeMap, BTreeSet},\n    thread as t,\n};"),
            [std_at(3, "thread")]
        );
        assert_eq!(found("use std::{env::args};"), [std_at(1, "env")]);
        assert_eq!(found("use std::{fmt};\nuse std::{process, time::Duration};"), [std_at(2, "process")]);
        assert_eq!(found("\nlet now = Instant::now();"), [(2, "Instant::now".to_owned())]);
        assert_eq!(found("let socket = net::UdpSocket::bind(address);"), [(1, "UdpSocket".to_owned())]);
        assert_eq!(found("(thread::sleep)(pause)"), [std_at(1, "thread")]);
    }

    #[test]
    fn what_only_looks_like_an_effect_is_none() {
        for innocent in [
            "use std::{collections::BTreeMap, fmt, sync::Arc};",
            "let table = my_fs::table();",
            "// std::fs would be an effect",
            "    /// Reads nothing: fs::read is for others.",
            "use crate::environment::{env, fs};",
            "let fs = thread;",
        ] {
            assert_eq!(found(innocent), [], "{innocent}");
        }
    }

    #[test]
    fn a_module_of_the_crate_may_be_called_like_one_of_the_standard_library() {
        let own: BTreeSet<&str> = modules("pub(crate) mod process;\nmod read;").into_iter().collect();
        assert_eq!(own, BTreeSet::from(["process", "read"]));
        assert!(effects_in("let reload = process::reload(directive)?;", &own).is_empty());
        assert_eq!(effects_in("std::process::exit(1)", &own).len(), 1);
        assert_eq!(effects_in("use std::{process};", &own).len(), 1);
    }

    #[test]
    fn tests_at_the_end_of_a_file_may_have_effects() {
        assert_eq!(found("fn pure() {}\n\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n"), []);
    }

    #[test]
    fn an_impure_dependency_is_a_fault_of_pure_crates_only() {
        let package = Package { directory: PathBuf::from("nowhere"), dependencies: vec!["tokio".to_owned()] };
        assert_eq!(faults("podnet-planner", &package).len(), 1);
        assert!(faults("podnet-agent", &package).is_empty());
    }
}
