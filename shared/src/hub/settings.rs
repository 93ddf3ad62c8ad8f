//! What the environment says about the hub: every variable of it is read here and nowhere else.
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use console::files::read_text;

use super::longest;

/// Where the hub is, where its files are kept, and whether it may be asked at all.
#[derive(Clone)]
pub struct HubSettings {
    /// The hub's address, without a slash at the end. `HF_ENDPOINT`; a mirror can stand in.
    pub endpoint: String,
    /// The cache directory. `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `hub` in `HF_HOME`, else
    /// in `XDG_CACHE_HOME/huggingface`, else in `~/.cache/huggingface`. As in `huggingface_hub`,
    /// `~` and `$VARIABLES` in them are expanded: what a container or an editor sets saw no shell.
    pub cache: PathBuf,
    /// The access token. `HF_TOKEN`, else the file that `HF_TOKEN_PATH` names, else the one that
    /// `hf auth login` wrote into `HF_HOME`. With `HF_HUB_DISABLE_IMPLICIT_TOKEN` there is none.
    pub token: Option<String>,
    /// Make no request. `HF_HUB_OFFLINE`, or the older `TRANSFORMERS_OFFLINE`.
    pub offline: bool,
    /// Where an answer has its end.
    pub limits: HubLimits,
}

/// Where an answer of the hub has its end. A server that is silent, slow or endless must not look
/// like one that works.
#[derive(Debug, Clone)]
pub struct HubLimits {
    /// Longest silence: before an answer begins, and in the middle of one.
    pub silence: Duration,
    /// Time in which an answer about a model must be there, all pages of its list of files included.
    pub listing: Duration,
    /// Bytes of such an answer, again of all pages together.
    pub listing_bytes: u64,
    /// Pages of a list of files; the hub puts 1,000 names on one.
    pub pages: usize,
    /// Time over which the rate of a transfer is taken.
    pub window: Duration,
    /// Bytes that must come in every `window`, unless the file ends in it.
    pub window_bytes: u64,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(20),
            listing: Duration::from_mins(1),
            listing_bytes: 16 << 20,
            pages: 100,
            window: Duration::from_mins(1),
            window_bytes: 60_000,
        }
    }
}

impl HubSettings {
    /// Reads the variables that all Hugging Face tools share.
    pub fn from_env() -> Self {
        Self::from(|name| std::env::var_os(name))
    }

    fn from(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let env = Environment(&variable);
        let home = env.hf_home();
        let endpoint = env.text("HF_ENDPOINT");
        let endpoint = endpoint.unwrap_or_else(|| "https://huggingface.co".to_string());
        let cache = env.path("HF_HUB_CACHE");
        let cache = cache.or_else(|| env.path("HUGGINGFACE_HUB_CACHE"));
        Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            cache: cache.unwrap_or_else(|| home.join("hub")),
            token: env.token(&home),
            offline: env.is_on("HF_HUB_OFFLINE") || env.is_on("TRANSFORMERS_OFFLINE"),
            limits: HubLimits::default(),
        }
    }

    /// The endpoint as it may be printed: without a name and a password in it.
    pub(super) fn shown_endpoint(&self) -> String {
        let (scheme, rest) = match self.endpoint.split_once("://") {
            Some((scheme, rest)) => (format!("{scheme}://"), rest),
            None => (String::new(), self.endpoint.as_str()),
        };
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        scheme + host
    }
}

/// A token and a password are not for a log.
impl std::fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.shown_endpoint())
            .field("cache", &self.cache)
            .field("has_token", &self.token.is_some())
            .field("offline", &self.offline)
            .field("limits", &self.limits)
            .finish()
    }
}

/// A token as it may stand in a header.
///
/// # Errors
/// It has blanks, line breaks or other characters in it that no token has. Sent without it, the
/// request would be refused for another reason than the true one.
pub(super) fn check_token(token: &str) -> anyhow::Result<&str> {
    let token = token.trim();
    let visible = |c: char| c.is_ascii_graphic();
    let Some(odd) = token.chars().find(|c| !visible(*c)) else {
        return Ok(token);
    };
    anyhow::bail!(
        "the access token has the character {odd:?} in it, so it cannot be sent: set HF_TOKEN again, \
         or log in again with `hf auth login`"
    )
}

/// The variables, by a function so that a test can have its own.
struct Environment<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    /// A variable without blanks and line breaks at its ends; `None` if nothing else is in it.
    fn text(&self, name: &str) -> Option<String> {
        let value = (self.0)(name)?.to_string_lossy().trim().to_string();
        (!value.is_empty()).then_some(value)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        match (self.0)(name)?.into_string() {
            Ok(_) => self.text(name).map(|value| self.expand(&value)),
            // A name that is not text has no blanks to lose.
            Err(raw) => Some(raw.into()),
        }
    }

    /// The values are those of `huggingface_hub`.
    fn is_on(&self, name: &str) -> bool {
        let value = self.text(name).unwrap_or_default().to_ascii_uppercase();
        matches!(value.as_str(), "1" | "ON" | "YES" | "TRUE")
    }

    fn home(&self) -> PathBuf {
        let named = (self.0)("HOME").filter(|home| !home.is_empty());
        let home = named.map(PathBuf::from).or_else(std::env::home_dir);
        home.unwrap_or_else(std::env::temp_dir)
    }

    fn hf_home(&self) -> PathBuf {
        let cache = || {
            self.path("XDG_CACHE_HOME")
                .unwrap_or_else(|| self.home().join(".cache"))
        };
        self.path("HF_HOME")
            .unwrap_or_else(|| cache().join("huggingface"))
    }

    fn token(&self, hf_home: &Path) -> Option<String> {
        if self.is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return None;
        }
        let file = || {
            self.path("HF_TOKEN_PATH")
                .unwrap_or_else(|| hf_home.join("token"))
        };
        let stored = || read_text(&file(), longest("token")).ok();
        let token = self.text("HF_TOKEN").or_else(stored)?.trim().to_string();
        (!token.is_empty()).then_some(token)
    }

    /// `~` at the start, `$NAME` and `${NAME}`, as Python's `os.path` expands them: what is not set
    /// stays as it is written.
    fn expand(&self, value: &str) -> PathBuf {
        let home = self.home().to_string_lossy().into_owned();
        let value = match value.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => home + rest,
            _ => value.to_string(),
        };
        let mut parts = value.split('$');
        let mut expanded = parts.next().unwrap_or_default().to_string();
        for part in parts {
            let (name, rest) = variable_name(part);
            match (self.0)(name).filter(|_| !name.is_empty()) {
                Some(value) => expanded = expanded + &value.to_string_lossy() + rest,
                None => expanded = expanded + "$" + part,
            }
        }
        expanded.into()
    }
}

/// What follows a `$`: the name of a variable, with or without braces, and the rest.
fn variable_name(text: &str) -> (&str, &str) {
    if let Some((name, rest)) = text.strip_prefix('{').and_then(|t| t.split_once('}')) {
        return (name, rest);
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    text.split_at(end.unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> HubSettings {
        let home = [("HOME", "/home/me")];
        HubSettings::from(|name| {
            let found = variables.iter().chain(&home).find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_cache_is_where_the_first_variable_says_that_is_set() {
        for (variables, cache) in [
            (&[][..], "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub"),
            (&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/g")], "/g"),
            (
                &[("HUGGINGFACE_HUB_CACHE", "/g"), ("HF_HUB_CACHE", "/c")],
                "/c",
            ),
            (
                &[("HF_HUB_CACHE", ""), ("HF_HOME", " \n")],
                "/home/me/.cache/huggingface/hub",
            ),
        ] {
            assert_eq!(settings(variables).cache, Path::new(cache), "{variables:?}");
        }
    }

    #[test]
    fn a_tilde_and_variables_are_expanded_and_blanks_at_the_ends_are_not_part_of_a_path() {
        for (value, cache) in [
            ("~/hf", "/home/me/hf/hub"),
            ("$HOME/hf\n", "/home/me/hf/hub"),
            ("${HOME}/hf", "/home/me/hf/hub"),
            (" /a/$DISK-1/${DISK}x", "/a/big-1/bigx/hub"),
            ("~", "/home/me/hub"),
            (
                "~other/$UNKNOWN/${UNKNOWN}/$",
                "~other/$UNKNOWN/${UNKNOWN}/$/hub",
            ),
        ] {
            let found = settings(&[("HF_HOME", value), ("DISK", "big")]).cache;
            assert_eq!(found, Path::new(cache), "{value:?}");
        }
    }

    #[test]
    fn either_of_two_variables_says_that_there_is_no_network() {
        for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
            for (value, offline) in [("1", true), (" yes\n", true), ("0", false), ("", false)] {
                assert_eq!(
                    settings(&[(name, value)]).offline,
                    offline,
                    "{name}={value:?}"
                );
            }
        }
    }

    #[test]
    fn a_token_is_trimmed_wherever_it_comes_from() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("token");
        std::fs::write(&path, "hf_file\r\n").unwrap();
        let hf_home = ("HF_HOME", home.path().to_str().unwrap());
        for (more, token) in [
            (("HF_TOKEN", " hf_abc\n"), Some("hf_abc")),
            (("HF_TOKEN", "hf_abc\r\n"), Some("hf_abc")),
            (("HF_TOKEN", "\n"), Some("hf_file")),
            (("HF_TOKEN_PATH", "/no/such/file"), None),
            (("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"), None),
        ] {
            assert_eq!(
                settings(&[hf_home, more]).token.as_deref(),
                token,
                "{more:?}"
            );
        }
        let other = [("HF_TOKEN_PATH", path.to_str().unwrap())];
        assert_eq!(settings(&other).token.as_deref(), Some("hf_file"));
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_an_error() {
        assert_eq!(check_token(" hf_abc\n").unwrap(), "hf_abc");
        for token in ["hf_a\nbc", "hf_a\u{7}", "hf a", "hf_ä"] {
            let message = check_token(token).unwrap_err().to_string();
            assert!(
                message.contains("HF_TOKEN") && !message.contains("hf_"),
                "{message}"
            );
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        for (endpoint, shown) in [
            ("https://huggingface.co", "https://huggingface.co"),
            ("http://me:secret@mirror:8080/hf", "http://mirror:8080/hf"),
            ("http://me:p@ss@mirror", "http://mirror"),
            ("me:secret@mirror", "mirror"),
        ] {
            let settings = settings(&[("HF_ENDPOINT", endpoint), ("HF_TOKEN", "hf_abc")]);
            assert_eq!(settings.shown_endpoint(), shown);
            let debug = format!("{settings:?}");
            assert!(
                !debug.contains("secret") && !debug.contains("hf_abc"),
                "{debug}"
            );
        }
    }
}
