//! Which Corefile it is.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha512};

use crate::corefile::{Block, Directive};

/// What stands before a word, so that words that stand elsewhere are another Corefile.
#[derive(Clone, Copy)]
enum Role {
    Key,
    Directive,
    Argument,
    End,
}

/// The SHA-512 of a Corefile's words, in hex: another one where it says something else, be it in what it imports, and the same where
/// only comments, spaces and line ends differ.
pub(super) fn of(blocks: &[Block]) -> String {
    let mut hash = Sha512::new();
    for block in blocks {
        for key in &block.keys {
            word(&mut hash, Role::Key, &key.to_string());
        }
        block.directives.iter().for_each(|one| directive(&mut hash, one));
        word(&mut hash, Role::End, "");
    }
    HEXLOWER.encode(&hash.finalize())
}

fn directive(hash: &mut Sha512, line: &Directive) {
    word(hash, Role::Directive, &line.name.text);
    line.arguments.iter().for_each(|argument| word(hash, Role::Argument, &argument.text));
    line.options.iter().for_each(|option| directive(hash, option));
    word(hash, Role::End, "");
}

fn word(hash: &mut Sha512, role: Role, text: &str) {
    hash.update([role as u8]);
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text);
}

#[cfg(test)]
mod tests {
    use crate::{Config, Environment};

    fn version(text: &str) -> String {
        Config::load("Corefile", text, &Environment::EMPTY).unwrap().version
    }

    #[test]
    fn a_version_is_of_what_a_corefile_says_and_not_of_how_it_is_written() {
        let one = version(". {\n whoami\n cache 30 {\n  keepttl\n }\n}\n");
        assert_eq!(one.len(), 128);
        assert_eq!(version("# A comment.\n.:53   {\n  whoami\n\n cache \"30\" {\n keepttl\n }\n}\n"), one);
        assert_eq!(version("(kept) {\n cache 30 {\n keepttl\n }\n}\n. {\n whoami\n import kept\n}\n"), one);
        for other in [
            ". {\n whoami\n cache 31 {\n  keepttl\n }\n}\n",
            ". {\n whoami\n cache 30\n}\n",
            "example.org {\n whoami\n cache 30 {\n  keepttl\n }\n}\n",
            ". {\n whoami\n}\n.:54 {\n cache 30 {\n  keepttl\n }\n}\n",
        ] {
            assert_ne!(version(other), one, "{other}");
        }
    }
}
