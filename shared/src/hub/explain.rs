//! What went wrong on the way from the hub, in one line with what to try next.
use std::io::ErrorKind;

use anyhow::{Error, anyhow};
use console::text::one_line;
use hf_hub::HFError;

use super::settings::HubSettings;
use super::source::{RepoId, did_you_mean};

/// Who was asked for what: the facts that every message needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) repo: &'a RepoId,
    pub(super) revision: &'a str,
    pub(super) settings: &'a HubSettings,
}

impl Request<'_> {
    /// Turns a failure of hf-hub into one line.
    pub(super) fn explain(&self, error: &HFError) -> Error {
        let Self { repo, settings, .. } = self;
        if let Some((status, code)) = answer(error) {
            return self.refused(status, code);
        }
        match error {
            HFError::Request { source, .. } if is_unreachable(source) => self.unreachable(source),
            HFError::Request { .. } => self.cut(&root_cause(error)),
            HFError::Io(error) => self.disk(error),
            HFError::CacheLockTimeout { .. } => anyhow!(
                "cannot download {repo}: another program is downloading the same file into {}; \
                 wait for it, then run again",
                settings.cache.display()
            ),
            HFError::Xet { .. } => self.cut(&root_cause(error)),
            HFError::RepoNotFound { .. } => self.no_such_model(),
            HFError::RevisionNotFound { .. } => self.no_such_revision(),
            other => anyhow!(
                "cannot download {repo} from {}: {}",
                settings.endpoint,
                one_line(&other.to_string())
            ),
        }
    }

    /// The hub answered, but with an error. Its `X-Error-Code` says more than the status: an unknown
    /// repository is a 401 for a visitor without a token.
    fn refused(&self, status: u16, code: Option<&str>) -> Error {
        let Self { repo, settings, .. } = self;
        let endpoint = &settings.endpoint;
        match (status, code) {
            (_, Some("RepoNotFound")) => self.no_such_model(),
            (_, Some("RevisionNotFound")) => self.no_such_revision(),
            (_, Some("GatedRepo")) => anyhow!(
                "{repo} is gated: accept its licence at {endpoint}/{repo}, then set HF_TOKEN to a \
                 token of that account ({endpoint}/settings/tokens) and run again"
            ),
            (401 | 403, _) => anyhow!(
                "{endpoint} refused access to {repo} ({status}): if it is private or gated, accept \
                 its licence at {endpoint}/{repo} and set HF_TOKEN to a token of that account; if \
                 HF_TOKEN is set, it may have expired"
            ),
            (404, _) => self.no_such_model(),
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
            settings.endpoint
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
            settings.endpoint
        )
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        let Self { repo, settings, .. } = self;
        let why = if error.is_timeout() {
            "no answer in time".into()
        } else {
            root_cause(error)
        };
        anyhow!(
            "cannot reach {} to download {repo} ({why}){}: check the network and HF_ENDPOINT, or \
             use a model on this disk, such as --model tiny",
            settings.endpoint,
            did_you_mean(&repo.to_string()),
        )
    }

    fn cut(&self, why: &str) -> Error {
        let Self { repo, settings, .. } = self;
        anyhow!(
            "the download of {repo} from {} broke off ({why}): run the same command again, what has \
             arrived is kept",
            settings.endpoint
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

    /// The network is off by choice, and the cache does not have the model.
    pub(super) fn offline(&self, lacking: &str) -> Error {
        let Self { repo, settings, .. } = self;
        anyhow!(
            "HF_HUB_OFFLINE is set and {repo} is not whole in the cache {} (it lacks {lacking}){}: \
             unset HF_HUB_OFFLINE to download it, or set HF_HOME to a cache that has it",
            settings.cache.display(),
            did_you_mean(&repo.to_string()),
        )
    }
}

/// The connection broke, not the request: worth another try.
pub(super) fn is_cut(error: &HFError) -> bool {
    match error {
        HFError::Request { source, .. } => !source.is_request() && !source.is_builder(),
        HFError::Xet { .. } => true,
        _ => false,
    }
}

/// No answer began: not reached, or gone before it said anything.
fn is_unreachable(error: &reqwest::Error) -> bool {
    error.is_request()
}

/// Status and error code of the hub's answer, wherever hf-hub put them.
fn answer(error: &HFError) -> Option<(u16, Option<&str>)> {
    let context = match error {
        HFError::Http { context }
        | HFError::AuthRequired { context }
        | HFError::Forbidden { context }
        | HFError::RateLimited { context, .. } => Some(context),
        HFError::RepoNotFound { context, .. }
        | HFError::RevisionNotFound { context, .. }
        | HFError::EntryNotFound { context, .. } => context.as_ref(),
        _ => None,
    }?;
    Some((context.status.as_u16(), context.error_code.as_deref()))
}

/// The innermost cause: the outer ones repeat the address.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    one_line(&cause.to_string())
}
