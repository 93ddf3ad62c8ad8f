//! What went wrong on the way from the hub, in one line with what to try next.
use std::io::ErrorKind;

use anyhow::{Error, anyhow};
use console::numbers::decimal;
use console::text::{clip, one_line};

use super::http::Failure;
use super::settings::HubSettings;
use super::source::{RepoId, did_you_mean};

/// Of what a server says a message has so many columns.
const LONGEST: usize = 200;

/// Who was asked for what: the facts that every message needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) repo: &'a RepoId,
    pub(super) revision: &'a str,
    pub(super) settings: &'a HubSettings,
}

impl Request<'_> {
    /// Turns a failure into one line. `file` is the one that was asked for, if it was one.
    pub(super) fn explain(&self, failure: &Failure, file: Option<&str>) -> Error {
        let Self { repo, settings, .. } = self;
        let endpoint = settings.shown_endpoint();
        match failure {
            Failure::Refused(status, code) => self.refused(*status, code, file),
            Failure::Unreachable(why) => self.unreachable(why, file),
            Failure::Cut(why) | Failure::Slow(why) => self.cut(why),
            Failure::Differs(what) => anyhow!(
                "{endpoint} sent {} of {repo} with another {what} than it lists: try again later, or \
                 name another hub with HF_ENDPOINT",
                file.unwrap_or("a file")
            ),
            Failure::Senseless(what) => anyhow!(
                "{endpoint} does not answer as a hub does when asked for {repo}: {}; check HF_ENDPOINT, \
                 or try again later",
                clip(&one_line(what), LONGEST)
            ),
            Failure::Foreign(what) => anyhow!(
                "cannot complete {repo} in the cache: {what}, which is left as it is; move it away, \
                 then run again"
            ),
            Failure::Disk(error) => self.disk(error),
            Failure::Busy | Failure::Stopped => anyhow!(
                "cannot download {repo}: another program is downloading the same file into {}; \
                 wait for it, then run again",
                settings.cache.display()
            ),
        }
    }

    /// The hub answered, but with an error. Its `X-Error-Code` says more than the status: an unknown
    /// repository is a 401 for a visitor without a token.
    fn refused(&self, status: u16, code: &str, file: Option<&str>) -> Error {
        let Self { repo, settings, .. } = self;
        let endpoint = settings.shown_endpoint();
        match (status, code) {
            (_, "RepoNotFound") => self.no_such_model(),
            (_, "RevisionNotFound") => self.no_such_revision(),
            (_, "GatedRepo") => anyhow!(
                "{repo} is gated: accept its licence at {endpoint}/{repo}, then set HF_TOKEN to a \
                 token of that account ({endpoint}/settings/tokens) and run again"
            ),
            (401 | 403, _) => anyhow!(
                "{endpoint} refused access to {repo} ({status}): if it is private or gated, accept \
                 its licence at {endpoint}/{repo} and set HF_TOKEN to a token of that account; if \
                 HF_TOKEN is set, it may have expired"
            ),
            (404, _) => match file {
                Some(file) => anyhow!(
                    "{endpoint} lists {file} of {repo}, but has no such file: try again later, or name \
                     another hub with HF_ENDPOINT"
                ),
                None => self.no_such_model(),
            },
            (429, _) => anyhow!(
                "{endpoint} says that it was asked too often (429): wait some minutes, or set \
                 HF_TOKEN to be counted by account"
            ),
            _ => anyhow!(
                "{endpoint} answered {status} when asked for {repo}: the fault is on its side, try \
                 again later; finished files are kept"
            ),
        }
    }

    fn no_such_model(&self) -> Error {
        let Self { repo, settings, .. } = self;
        let near = did_you_mean(&repo.to_string());
        anyhow!(
            "there is no model {repo} at {}{near}: check the spelling on its page (capitals count), \
             or set HF_TOKEN if it is private",
            settings.shown_endpoint()
        )
    }

    fn no_such_revision(&self) -> Error {
        let Self {
            repo,
            revision,
            settings,
        } = self;
        anyhow!(
            "{repo} has no revision {revision}: leave --revision out for `main`, or take a branch, \
             tag or commit from {}/{repo}/commits/main",
            settings.shown_endpoint()
        )
    }

    /// The hub keeps large files at other hosts, and a firewall may know only the hub.
    fn unreachable(&self, why: &str, file: Option<&str>) -> Error {
        let Self { repo, settings, .. } = self;
        let other = file.map(|file| format!(", or the host that it sends to for {file},"));
        anyhow!(
            "cannot reach {}{} to download {repo} ({why}){}: check the network and HF_ENDPOINT, or \
             use a model on this disk, such as --model tiny",
            settings.shown_endpoint(),
            other.unwrap_or_default(),
            did_you_mean(&repo.to_string()),
        )
    }

    fn cut(&self, why: &str) -> Error {
        let Self { repo, settings, .. } = self;
        anyhow!(
            "the download of {repo} from {} broke off ({why}): run the same command again, what has \
             arrived is kept",
            settings.shown_endpoint()
        )
    }

    /// The cache directory is read-only, full, not a directory, …
    pub(super) fn disk(&self, error: &std::io::Error) -> Error {
        let Self { repo, settings, .. } = self;
        let advice = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space there",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "make that directory writable"
            }
            _ => "check that directory",
        };
        anyhow!(
            "cannot write {repo} to the cache {} ({error}): {advice}, or set HF_HOME to another \
             place",
            settings.cache.display()
        )
    }

    /// What is still to come is more than the disk has room for.
    pub(super) fn no_room(&self, needed: u64, free: u64) -> Error {
        let Self { repo, settings, .. } = self;
        anyhow!(
            "{repo} needs {} more on the disk, but the file system of the cache {} has {} free: free \
             some space there, or set HF_HOME to a place on another disk",
            decimal(needed),
            settings.cache.display(),
            decimal(free)
        )
    }

    /// The network is off by choice, and the cache does not have the model.
    pub(super) fn offline(&self, lacking: &str) -> Error {
        let Self { repo, settings, .. } = self;
        anyhow!(
            "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set and {repo} is not whole in the cache {} (it \
             lacks {lacking}){}: unset it to download the model, or set HF_HOME to a cache that has it",
            settings.cache.display(),
            did_you_mean(&repo.to_string()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_and_a_read_only_disk_are_told_apart() {
        let settings = HubSettings::from_env();
        let repo = RepoId {
            owner: "a".into(),
            name: "b".into(),
        };
        let request = Request {
            repo: &repo,
            revision: "main",
            settings: &settings,
        };
        for (kind, advice) in [
            (ErrorKind::StorageFull, "free some space"),
            (
                ErrorKind::ReadOnlyFilesystem,
                "make that directory writable",
            ),
        ] {
            let failure = Failure::Disk(kind.into());
            let message = request.explain(&failure, None).to_string();
            assert!(
                message.contains("cannot write a/b") && message.contains(advice),
                "{message}"
            );
        }
    }
}
