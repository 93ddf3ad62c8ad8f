//! A hub model that is not whole in the cache: fetch what it lacks, and only that.
//!
//! What a long download over a real network needs: one process at a time, every length compared with
//! the hub's listing, a cut connection taken up again (see [`transfer`](super::transfer)), and an end to
//! every wait, since a silent server must not look like a slow one.
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use console::files::read_text;
use console::interrupt::{check_interrupted, interrupted};
use console::report::tell;
use console::text::{clip, one_line};

use super::cache::{Cached, RepoCache, SMALL_FILES, TOKENIZER_FILES, absent};
use super::explain::Request;
use super::http::{Failure, Hub};
use super::ids::Etag;
use super::listing::Listing;
use super::progress::Transfer;
use super::settings::HubSettings;
use super::source::RepoId;
use super::space::check_room;
use super::store::Place;
use super::transfer::Wanted;
use super::{INDEX, longest, shard_names};

/// How often a cut download is taken up within one run; after that it is the next run's turn.
const ATTEMPTS: usize = 3;
/// Files at a time: enough to fill a line, few enough to have little half-done when it is cut.
const WORKERS: usize = 4;

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
                check_interrupted()?;
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
    let explain = |failure| request.explain(&failure, None);
    let lock = cache.lock(wait);
    check_interrupted()?;
    let _lock = lock.map_err(explain)?;
    if let Cached::Whole(path) = cache.look_up(revision) {
        return Ok(path);
    }
    let hub = Hub::new(request.settings)?;
    let listing = Listing::fetch(&hub, repo, revision).map_err(explain)?;
    cache.make().map_err(|error| explain(error.into()))?;
    let remote = Remote {
        hub,
        cache,
        request,
        listing,
    };
    fetch(&remote)?;
    let commit = &remote.listing.commit;
    cache.set_ref(revision, commit).map_err(explain)?;
    Ok(cache.snapshot(commit))
}

/// A revision as the hub lists it.
struct Remote<'a> {
    hub: Hub,
    cache: &'a RepoCache,
    request: Request<'a>,
    listing: Listing,
}

impl Remote<'_> {
    fn lists(&self, name: &str) -> bool {
        self.listing.files.contains_key(name)
    }

    fn fetch_all(&self) -> Result<()> {
        let listed: BTreeSet<String> = self.listing.files.keys().cloned().collect();
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
                "{}: {INDEX} names {}, which the model does not have",
                self.request.repo,
                clip(&one_line(shard), 100)
            );
        }
        for name in &absent {
            let regular = self.cache.check_regular(&self.listing.commit, name);
            regular.map_err(|failure| self.request.explain(&failure, None))?;
        }
        let small = SMALL_FILES.iter().filter(|name| !absent.contains(name));
        let wanted: Vec<String> = small.map(ToString::to_string).chain(shards).collect();
        self.cache.mark_absent(&self.listing.commit, &absent);
        self.fetch(&wanted, true)
    }

    fn fetch_tokenizer(&self) -> Result<()> {
        let wanted: Vec<String> = TOKENIZER_FILES
            .iter()
            .filter(|name| self.lists(name))
            .map(ToString::to_string)
            .collect();
        if wanted.first().is_none_or(|name| name != TOKENIZER_FILES[0]) {
            bail!("{} has no tokenizer.json", self.request.repo);
        }
        self.fetch(&wanted, true)
    }

    /// The index comes first, because it says what else to fetch.
    fn fetch_index(&self) -> Result<Option<String>> {
        if !self.lists(INDEX) {
            return Ok(None);
        }
        self.fetch(&[INDEX.to_string()], false)?;
        let path = self.cache.snapshot(&self.listing.commit).join(INDEX);
        read_text(&path, longest(INDEX)).map(Some)
    }

    /// Brings the named files into the snapshot, each with the length that the hub lists.
    fn fetch(&self, names: &[String], visible: bool) -> Result<()> {
        let missing = self.missing(names)?;
        if missing.is_empty() {
            return Ok(());
        }
        let wanted = self.wanted(&missing)?;
        check_room(&self.request, self.cache, &wanted)?;
        let what = self.request.repo.to_string();
        let transfer = if visible {
            let total = wanted.iter().map(|wanted| wanted.size);
            Transfer::start(&what, missing.len(), total.fold(0, u64::saturating_add))
        } else {
            Transfer::hidden()
        };
        self.fetch_blobs(&wanted, &transfer)?;
        for name in &missing {
            let shown = self
                .cache
                .show(&self.listing.commit, name, self.etag(name)?);
            shown.map_err(|failure| self.request.explain(&failure, None))?;
        }
        if let Some(name) = self.missing(&missing)?.first() {
            return Err(self
                .request
                .explain(&Failure::Differs("length"), Some(name)));
        }
        transfer.finish();
        Ok(())
    }

    fn etag(&self, name: &str) -> Result<&Etag> {
        let listed = self.listing.files.get(name);
        listed.and_then(|file| file.etag.as_ref()).with_context(|| {
            let Request { repo, settings, .. } = self.request;
            let endpoint = settings.shown_endpoint();
            format!("{endpoint} lists {name} of {repo} without the hash of its content: it is not downloaded")
        })
    }

    /// The contents to fetch, each once, even if two files have the same.
    fn wanted<'n>(&'n self, names: &'n [String]) -> Result<Vec<Wanted<'n>>> {
        let RepoId { owner, name: repo } = self.request.repo;
        let commit = self.listing.commit.as_str();
        let mut wanted = BTreeMap::new();
        for name in names {
            let (etag, size) = (self.etag(name)?, self.listing.files[name].size);
            let url = self.hub.address(&[owner, repo, "resolve", commit, name]);
            wanted.insert(
                etag,
                Wanted {
                    name,
                    etag,
                    size,
                    url,
                },
            );
        }
        Ok(wanted.into_values().collect())
    }

    /// Some files at a time. The first failure ends all, and is the one that is told.
    fn fetch_blobs(&self, wanted: &[Wanted<'_>], transfer: &Transfer) -> Result<()> {
        let queue = Mutex::new(wanted.iter());
        let (stopped, failed) = (AtomicBool::new(false), Mutex::new(None));
        let next = || queue.lock().ok()?.next();
        let over = || stopped.load(Ordering::Relaxed) || interrupted();
        let work = || {
            while let Some(wanted) = next().filter(|_| !over()) {
                let Err(failure) = self.fetch_blob(wanted, transfer, &stopped) else {
                    continue;
                };
                if !stopped.swap(true, Ordering::Relaxed)
                    && let Ok(mut failed) = failed.lock()
                {
                    *failed = Some(self.request.explain(&failure, Some(wanted.name)));
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..WORKERS.min(wanted.len()) {
                scope.spawn(work);
            }
        });
        check_interrupted()?;
        failed.into_inner().ok().flatten().map_or(Ok(()), Err)
    }

    /// One content, taken up again if the connection breaks.
    fn fetch_blob(
        &self,
        wanted: &Wanted<'_>,
        transfer: &Transfer,
        stopped: &AtomicBool,
    ) -> Result<(), Failure> {
        let at = |bytes| transfer.file_at(wanted.name, bytes);
        for attempt in 1..ATTEMPTS {
            match wanted.fetch(&self.hub, self.cache, at, stopped) {
                Err(Failure::Cut(_)) => transfer.cut(attempt),
                Err(Failure::Differs(_)) => {}
                done => return done,
            }
        }
        wanted.fetch(&self.hub, self.cache, at, stopped)
    }

    /// The files that are not there in full length. Those of a wrong length are removed, but not a
    /// file of the user's own to which a link of theirs leads: that one is used.
    fn missing(&self, names: &[String]) -> Result<Vec<String>> {
        let commit = &self.listing.commit;
        let mut missing = Vec::new();
        for name in names {
            let size = self.listing.files[name].size;
            let place = self.cache.place(commit, name, size);
            match place.map_err(|failure| self.request.explain(&failure, None))? {
                Place::Whole => {}
                Place::Empty => missing.push(name.clone()),
                Place::Own(target) => tell(&format!(
                    "Using {} for {name}: it is linked in the cache, and not the file that {} lists",
                    target.display(),
                    self.request.settings.shown_endpoint()
                )),
            }
        }
        Ok(missing)
    }
}
