//! Which Linux is running.

use rustix::system::uname;

/// Its version, as far as two numbers tell it; 0 where it tells none.
pub(crate) fn linux() -> (u32, u32) {
    version(&uname().release().to_string_lossy())
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_two_numbers_whatever_stands_behind() {
        let told = ["6.1.0-32-cloud-amd64", "5.11-rc3", "4.18", "7", ""].map(version);
        assert_eq!(told, [(6, 1), (5, 11), (4, 18), (7, 0), (0, 0)]);
        assert!(linux() >= (4, 0));
    }
}
