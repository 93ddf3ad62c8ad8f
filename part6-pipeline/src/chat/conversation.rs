//! What was said, and where it is kept.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use console::files;
use console::text::one_line;
use serde::{Deserialize, Serialize};
use shared::tokenizer::{Message, Tokenizer};

/// Bytes of a file that is loaded at most.
const MOST: u64 = 16 << 20;

/// Time between two copies of an answer that is still being written.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// A conversation, as a file in the form of OpenAI's `messages`.
#[derive(Debug)]
pub(super) struct Conversation {
    path: PathBuf,
    messages: Vec<Turn>,
    kept: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    role: String,
    content: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    messages: Vec<Turn>,
}

impl Conversation {
    /// One in which nothing was said yet. It becomes a file of this folder with its first word.
    pub(super) fn new(folder: &Path, system: Option<String>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let name = since.map_or(0, |since| since.as_millis());
        let mut new = Self {
            path: folder.join(format!("{name}-{}.json", std::process::id())),
            messages: Vec::new(),
            kept: Instant::now(),
        };
        new.set_system(system);
        new
    }

    /// What the model is told first.
    pub(super) fn system(&self) -> Option<&str> {
        let first = self.messages.first().filter(|first| first.role == "system");
        first.map(|first| first.content.as_str())
    }

    pub(super) fn set_system(&mut self, text: Option<String>) {
        self.messages.retain(|turn| turn.role != "system");
        let turn = text.map(|content| Turn {
            role: "system".to_owned(),
            content,
        });
        self.messages.splice(0..0, turn);
    }

    pub(super) fn say(&mut self, role: &str, content: String) {
        self.messages.push(Turn {
            role: role.to_owned(),
            content,
        });
    }

    /// What of an answer is there. Copied to the disk now and then, so that a crash does not take it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn answered(&mut self, text: &str) -> Result<()> {
        match self.messages.last_mut() {
            Some(last) if last.role == "assistant" => text.clone_into(&mut last.content),
            _ => self.say("assistant", text.to_owned()),
        }
        if self.kept.elapsed() < PAUSE {
            return Ok(());
        }
        self.keep()
    }

    /// Forgets the last answer, and says whether there was one. A question without an answer can be tried again, too.
    pub(super) fn take_back(&mut self) -> bool {
        let last = self.messages.last().map(|last| last.role.as_str());
        if last == Some("assistant") {
            self.messages.pop();
        }
        self.messages.last().is_some_and(|last| last.role == "user")
    }

    /// Through the chat template; as one text where there is none.
    pub(super) fn encode(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        if !tokenizer.has_chat_template() {
            let said: Vec<&str> = self.messages.iter().map(|turn| &*turn.content).collect();
            return tokenizer.encode_raw(&said.join("\n"));
        }
        tokenizer.encode_chat(&self.turns())
    }

    /// Who speaks twice in a row has said one thing, for templates that want turns: a question whose answer was stopped
    /// stands before the next one.
    fn turns(&self) -> Vec<Message> {
        let mut turns: Vec<Message> = Vec::new();
        for turn in &self.messages {
            match turns.last_mut() {
                Some(last) if last.role == turn.role => {
                    last.content.push_str("\n\n");
                    last.content.push_str(&turn.content);
                }
                _ => turns.push(turn.message()),
            }
        }
        turns
    }

    /// Writes it to its own file.
    pub(super) fn keep(&mut self) -> Result<()> {
        self.kept = Instant::now();
        write(&self.path, &self.messages)
    }

    /// Writes it under a name; what is said later goes there.
    pub(super) fn save(&mut self, folder: &Path, name: &str) -> Result<&Path> {
        let path = place(folder, name);
        ensure!(
            path == self.path || !path.exists(),
            "{} is there already: take another name",
            path.display()
        );
        write(&path, &self.messages)?;
        self.path = path;
        Ok(&self.path)
    }

    /// Goes on with one that was kept.
    pub(super) fn load(folder: &Path, name: &str) -> Result<Self> {
        let path = place(folder, name);
        let text = files::read_text(&path, MOST)?;
        let File { messages } = serde_json::from_str(&text)
            .with_context(|| format!("{} is no conversation of this program", path.display()))?;
        let known = |turn: &Turn| ["system", "user", "assistant"].contains(&&*turn.role);
        let foreign = messages.iter().find(|turn| !known(turn));
        ensure!(
            foreign.is_none(),
            "{}: nobody here is called {:?}",
            path.display(),
            foreign.map(|turn| &turn.role)
        );
        Ok(Self {
            path,
            messages,
            kept: Instant::now(),
        })
    }

    /// Names of those that were kept.
    pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
        let reading = || format!("reading {}", folder.display());
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).with_context(reading)? {
            let path = entry.with_context(reading)?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let name = path.file_stem().unwrap_or_default();
                names.push(one_line(&name.to_string_lossy()));
            }
        }
        names.sort();
        Ok(names)
    }

    /// All that was said, to be read.
    pub(super) fn told(&self) -> String {
        let turns = self.messages.iter().map(|turn| match &*turn.role {
            "user" => format!("> {}\n", turn.content),
            "system" => format!("({})\n", turn.content),
            _ => format!("{}\n", turn.content),
        });
        turns.collect()
    }
}

impl Turn {
    fn message(&self) -> Message {
        Message {
            role: self.role.clone(),
            content: self.content.clone(),
        }
    }
}

/// A name is one of the folder's; what has a slash or ends in `.json` is a path.
fn place(folder: &Path, name: &str) -> PathBuf {
    if name.contains('/') || name.ends_with(".json") {
        PathBuf::from(name)
    } else {
        folder.join(format!("{name}.json"))
    }
}

fn write(path: &Path, messages: &[Turn]) -> Result<()> {
    let file = File {
        messages: messages.to_vec(),
    };
    let text = serde_json::to_string_pretty(&file).context("writing the conversation as JSON")?;
    files::replace_private(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_on_the_disk_before_the_answer_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let mut conversation = Conversation::new(folder.path(), Some("Be brief.".to_owned()));
        conversation.say("user", "Hello".to_owned());
        conversation.answered("Hi").unwrap();
        conversation.kept -= PAUSE;
        conversation.answered("Hi there").unwrap();
        let names = Conversation::names(folder.path()).unwrap();
        let again = Conversation::load(folder.path(), &names[0]).unwrap();
        assert_eq!(again.told(), "(Be brief.)\n> Hello\nHi there\n");
        assert_eq!(again.system(), Some("Be brief."));
    }

    #[test]
    fn an_answer_is_taken_back_once() {
        let mut conversation = Conversation::new(Path::new("nowhere"), None);
        assert!(!conversation.take_back());
        conversation.say("user", "Hello".to_owned());
        conversation.say("assistant", "Hi".to_owned());
        assert!(conversation.take_back());
        assert!(conversation.take_back(), "the question is still there");
        assert_eq!(conversation.told(), "> Hello\n");
    }

    #[test]
    fn a_question_without_an_answer_is_one_with_the_next() {
        let mut conversation = Conversation::new(Path::new("nowhere"), None);
        for (role, content) in [
            ("user", "a"),
            ("user", "b"),
            ("assistant", "c"),
            ("user", "d"),
        ] {
            conversation.say(role, content.to_owned());
        }
        let turns = conversation.turns();
        let said: Vec<&str> = turns.iter().map(|turn| &*turn.content).collect();
        assert_eq!(said, ["a\n\nb", "c", "d"]);
    }

    #[test]
    fn a_name_that_is_taken_is_not_taken_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Conversation::new(folder.path(), Some("first".to_owned()));
        first.save(folder.path(), "story").unwrap();
        first.save(folder.path(), "story").unwrap(); // its own
        let mut second = Conversation::new(folder.path(), Some("second".to_owned()));
        let taken = second.save(folder.path(), "story").unwrap_err();
        assert!(taken.to_string().contains("is there already"), "{taken}");
        let again = Conversation::load(folder.path(), "story").unwrap();
        assert_eq!(again.system(), Some("first"));
    }

    #[test]
    fn another_file_is_no_conversation() {
        let folder = tempfile::tempdir().unwrap();
        let load = |text: &str| {
            std::fs::write(folder.path().join("x.json"), text).unwrap();
            Conversation::load(folder.path(), "x")
                .unwrap_err()
                .to_string()
        };
        assert!(load("{}").contains("is no conversation"));
        let foreign = load(r#"{"messages": [{"role": "root", "content": "hi"}]}"#);
        assert!(foreign.contains("root"), "{foreign}");
        let missing = Conversation::load(folder.path(), "y").unwrap_err();
        assert!(missing.to_string().contains("y.json"), "{missing}");
    }
}
