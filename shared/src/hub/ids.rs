//! What a server says is no path: the words of an answer that become part of one are checked here,
//! and the types let nothing else through.

/// A commit: the 40 hex digits of a git object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit(String);

/// The name of a file's content in the cache: its SHA-256 if the file is large, else the 40 hex
/// digits that git has for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Etag(String);

impl Commit {
    pub(super) fn parse(text: &str) -> Option<Self> {
        is_hex(text, 40).then(|| Self(text.to_string()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Etag {
    pub(super) fn parse(text: &str) -> Option<Self> {
        (is_hex(text, 40) || is_hex(text, 64)).then(|| Self(text.to_string()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The SHA-256 of the content, if that is what the etag is.
    pub(super) fn sha256(&self) -> Option<&str> {
        (self.0.len() == 64).then_some(self.as_str())
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == digits && text.bytes().all(lower)
}

/// Whether a listed name is that of a file at the top of the repository, on every file system.
pub(super) fn is_plain_name(name: &str) -> bool {
    let odd = |c: char| c.is_control() || matches!(c, '/' | '\\' | ':');
    !name.is_empty() && name.len() <= 255 && !matches!(name, "." | "..") && !name.contains(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hex_digits_of_the_right_number_become_a_path() {
        let (git, sha) = ("0123456789".repeat(4), "abcdef01".repeat(8));
        assert!(Commit::parse(&git).is_some() && Commit::parse(&sha).is_none());
        assert_eq!(Etag::parse(&git).unwrap().sha256(), None);
        assert_eq!(Etag::parse(&sha).unwrap().sha256(), Some(sha.as_str()));
        let outside = format!("../../../../{}", &git[..28]);
        for wrong in [
            "",
            "main",
            "/etc/passwd",
            &git[1..],
            &git.replace('0', "g"),
            &outside,
        ] {
            assert!(
                Commit::parse(wrong).is_none() && Etag::parse(wrong).is_none(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_listed_name_is_one_component() {
        for name in [
            "config.json",
            "model-00001-of-00002.safetensors",
            "[a",
            "{a,b}",
            "..a",
            "é",
        ] {
            assert!(is_plain_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "/a",
            "a\\b",
            "a\0",
            "a\nb",
            "C:a",
            &"a".repeat(256),
        ] {
            assert!(!is_plain_name(name), "{name:?}");
        }
    }
}
