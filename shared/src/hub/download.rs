//! A hub model that is not whole in the cache: fetch what it lacks, and only that.
//!
//! hf-hub does the transfer. Around it stands what a long download over a real network needs: one
//! process at a time, every length compared with the hub's listing, a cut connection taken up again
//! (see [`resume`](super::resume)), and time limits, since a silent server must not look like a
//! slow one.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use console::report::tell;
use hf_hub::repository::{RepoTreeEntry, RepoTypeModel};
use hf_hub::{HFClient, HFClientSync, HFRepositorySync, HFResult};

use super::cache::{Cached, RepoCache, SMALL_FILES, TOKENIZER_FILES, absent};
use super::explain::{Request, is_cut};
use super::progress::Transfer;
use super::settings::HubSettings;
use super::source::RepoId;
use super::{INDEX, resume, shard_names};

/// How often a cut download is taken up within one run; after that it is the next run's turn.
const ATTEMPTS: usize = 3;
/// Files at a time: enough to fill a line, few enough to have little half-done when it is cut.
const WORKERS: usize = 4;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest silence in the middle of a transfer.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// The directory of a revision's files: the cached one, completed over the network if need be.
pub(super) fn snapshot(
    repo: &RepoId,
    revision: Option<&str>,
    settings: &HubSettings,
) -> Result<PathBuf> {
    let revision = revision.unwrap_or("main");
    check_revision(revision)?;
    let request = Request {
        repo,
        revision,
        settings,
    };
    let cache = RepoCache::new(&settings.cache, repo);
    match (cache.look_up(revision), settings.offline) {
        (Cached::Whole(path), _) | (Cached::Usable(path), true) => Ok(path),
        (Cached::Lacks(what), true) => Err(request.offline(&what)),
        (Cached::Lacks(_), false) => complete(&cache, request, Remote::fetch_all),
        // All that is unsure is whether the hub has an optional file more: not worth failing for.
        (Cached::Usable(path), false) => {
            complete(&cache, request, Remote::fetch_all).or_else(|error| {
                tell(&format!("Using the cached copy of {repo}: {error:#}"));
                Ok(path)
            })
        }
    }
}

/// The directory of a model's tokenizer: the cached one, or one that gets only the tokenizer's files.
pub(super) fn tokenizer(repo: &RepoId, settings: &HubSettings) -> Result<PathBuf> {
    let request = Request {
        repo,
        revision: "main",
        settings,
    };
    let cache = RepoCache::new(&settings.cache, repo);
    match cache.look_up_tokenizer(request.revision) {
        Some(path) => Ok(path),
        None if settings.offline => Err(request.offline(TOKENIZER_FILES[0])),
        None => complete(&cache, request, Remote::fetch_tokenizer),
    }
}

/// A revision becomes part of a path in the cache.
fn check_revision(revision: &str) -> Result<()> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if revision.split('/').all(plain) && !revision.contains(['\\', '\0']) {
        return Ok(());
    }
    bail!("--revision {revision:?} is no branch, tag or commit of a hub model")
}

fn complete<'a>(
    cache: &'a RepoCache,
    request: Request<'a>,
    fetch: fn(&Remote<'a>) -> Result<()>,
) -> Result<PathBuf> {
    let Request { repo, revision, .. } = request;
    let wait = || {
        tell(&format!(
            "Waiting for another process that downloads {repo}"
        ))
    };
    let _lock = cache.lock(wait).map_err(|error| request.disk(&error))?;
    if let Cached::Whole(path) = cache.look_up(revision) {
        return Ok(path);
    }
    let client = client(request.settings)
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| {
            format!(
                "cannot talk to {}: check HF_ENDPOINT",
                request.settings.endpoint
            )
        })?;
    let model = client.model(&repo.owner, &repo.name);
    let remote = Remote::open(model, cache, request).map_err(|error| request.explain(&error))?;
    fetch(&remote)?;
    cache
        .set_ref(revision, &remote.commit)
        .map_err(|error| request.disk(&error))?;
    Ok(cache.snapshot(&remote.commit))
}

fn client(settings: &HubSettings) -> HFResult<HFClientSync> {
    let http = reqwest::Client::builder()
        .user_agent(concat!("llm-inference-mlx/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_LIMIT)
        .read_timeout(SILENCE_LIMIT)
        .build()?;
    let mut builder = HFClient::builder()
        .client(http)
        .endpoint(&settings.endpoint)
        .cache_dir(&settings.cache)
        .retry_max_attempts(1);
    if let Some(token) = &settings.token {
        builder = builder.token(token);
    }
    builder.build_sync()
}

/// A revision as the hub lists it, pinned to a commit so that all files belong together.
struct Remote<'a> {
    model: HFRepositorySync<RepoTypeModel>,
    cache: &'a RepoCache,
    request: Request<'a>,
    commit: String,
    /// Name → bytes, of the files at the top of the repository.
    listing: BTreeMap<String, u64>,
}

impl<'a> Remote<'a> {
    fn open(
        model: HFRepositorySync<RepoTypeModel>,
        cache: &'a RepoCache,
        request: Request<'a>,
    ) -> HFResult<Self> {
        let info = model.info().revision(request.revision).send()?;
        let commit = info.sha.unwrap_or_else(|| request.revision.to_string());
        let entries = model.list_tree().revision(&commit).send()?;
        let files = entries.into_iter().filter_map(|entry| match entry {
            RepoTreeEntry::File { path, size, .. } => Some((path, size)),
            RepoTreeEntry::Directory { .. } => None,
        });
        Ok(Self {
            model,
            cache,
            request,
            commit,
            listing: files.collect(),
        })
    }

    fn fetch_all(&self) -> Result<()> {
        let listed = self.listing.keys().cloned().collect();
        let absent = absent(&SMALL_FILES, &listed);
        let shards = shard_names(self.fetch_index()?.as_deref(), &listed)
            .with_context(|| format!("cannot use {}", self.request.repo))?;
        if absent.contains(&"config.json") {
            bail!(
                "{} has no config.json: it is not a language model",
                self.request.repo
            );
        }
        if let Some(shard) = shards.iter().find(|shard| !listed.contains(*shard)) {
            bail!(
                "{}: {INDEX} names {shard}, which the model does not have",
                self.request.repo
            );
        }
        let small = SMALL_FILES.iter().filter(|name| !absent.contains(name));
        let wanted: Vec<String> = small.map(ToString::to_string).chain(shards).collect();
        self.cache.mark_absent(&self.commit, &absent);
        self.fetch(&wanted, true)
    }

    fn fetch_tokenizer(&self) -> Result<()> {
        let listed = |name: &&&str| self.listing.contains_key(**name);
        let wanted: Vec<String> = TOKENIZER_FILES
            .iter()
            .filter(listed)
            .map(ToString::to_string)
            .collect();
        if wanted.first().is_none_or(|name| name != TOKENIZER_FILES[0]) {
            bail!("{} has no tokenizer.json", self.request.repo);
        }
        self.fetch(&wanted, true)
    }

    /// The index comes first, because it says what else to fetch.
    fn fetch_index(&self) -> Result<Option<String>> {
        if !self.listing.contains_key(INDEX) {
            return Ok(None);
        }
        self.fetch(&[INDEX.to_string()], false)?;
        let path = self.cache.snapshot(&self.commit).join(INDEX);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(text))
    }

    /// Brings the named files into the snapshot, each with the length that the hub lists.
    fn fetch(&self, names: &[String], visible: bool) -> Result<()> {
        let mut missing = self.missing(names)?;
        if missing.is_empty() {
            return Ok(());
        }
        let total = missing.iter().map(|name| self.listing[name]).sum();
        let what = self.request.repo.to_string();
        let transfer = Arc::new(if visible {
            Transfer::start(&what, missing.len(), total)
        } else {
            Transfer::hidden()
        });
        for attempt in 1..=ATTEMPTS {
            let last = attempt == ATTEMPTS;
            match self.transfer(&missing, &transfer) {
                Err(error) if last || !is_cut(&error) => return Err(self.request.explain(&error)),
                Err(_) => transfer.say("The connection was cut: going on"),
                Ok(()) => {}
            }
            missing = self.missing(names)?;
            if missing.is_empty() {
                transfer.finish();
                return Ok(());
            }
        }
        bail!(
            "{} sent {} of {what} with another length than it lists: try again later, or name \
             another hub with HF_ENDPOINT",
            self.request.settings.endpoint,
            missing.join(", "),
        )
    }

    fn transfer(&self, missing: &[String], transfer: &Arc<Transfer>) -> HFResult<()> {
        let files: Vec<_> = missing
            .iter()
            .map(|name| (name.as_str(), self.listing[name]))
            .collect();
        resume::finish_partials(&self.model, &self.commit, self.cache, &files, transfer)?;
        let download = self.model.snapshot_download().revision(&self.commit);
        download
            .allow_patterns(missing.to_vec())
            .max_workers(WORKERS)
            .progress(Arc::clone(transfer))
            .send()
            .map(drop)
    }

    /// The files that are not there in full length. Those of a wrong length are removed.
    fn missing(&self, names: &[String]) -> Result<Vec<String>> {
        let snapshot = self.cache.snapshot(&self.commit);
        let mut missing = Vec::new();
        for name in names {
            let length = std::fs::metadata(snapshot.join(name))
                .ok()
                .map(|found| found.len());
            if length != Some(self.listing[name]) {
                let removed = self.cache.discard(&self.commit, name);
                removed.map_err(|error| self.request.disk(&error))?;
                missing.push(name.clone());
            }
        }
        Ok(missing)
    }
}
