//! What a line of the chat means.

use anyhow::{Result, bail};

/// What there is.
pub(super) const HELP: &str = " /new            begins another conversation
 /retry          takes the last answer back and asks again
 /system [TEXT]  what the model is told before the conversation
 /save NAME      keeps the conversation under a name, or as a file
 /load [NAME]    goes on with one that was kept; alone, it lists them
 /stats          what the last answer has cost
 /explain [N]    why the last answer has its first token, or its Nth
 /model MODEL    changes the model; the conversation goes on
 /help           this
 /quit           ends, as Ctrl-D does

 Ctrl-C stops an answer. A line that ends in \\ goes on in the next one.
";

/// A line, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// An empty line.
    Nothing,
    Say(String),
    System(Option<String>),
    New,
    Save(String),
    Load(Option<String>),
    Retry,
    Stats,
    /// Which token, from 1.
    Explain(u32),
    Model(String),
    Help,
    Quit,
}

impl Command {
    /// # Errors
    /// If it begins like a command and is none: a slip of the hand is not for the model.
    pub(super) fn read(line: &str) -> Result<Self> {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            let nothing = line.is_empty();
            return Ok(if nothing {
                Self::Nothing
            } else {
                Self::Say(line.to_owned())
            });
        };
        let (name, rest) = command
            .split_once(char::is_whitespace)
            .unwrap_or((command, ""));
        let rest = Some(rest.trim().to_owned()).filter(|rest| !rest.is_empty());
        Ok(match (name, rest) {
            ("system", text) => Self::System(text),
            ("load", name) => Self::Load(name),
            ("save", Some(name)) => Self::Save(name),
            ("save", None) => bail!("/save needs a name"),
            ("model", Some(name)) => Self::Model(name),
            ("model", None) => {
                bail!("/model needs a model: a directory, a .gguf file or owner/name")
            }
            ("explain", None) => Self::Explain(1),
            ("explain", Some(number)) => match number.parse() {
                Ok(number @ 1..) => Self::Explain(number),
                _ => bail!("/explain takes the number of a token, from 1: what is '{number}'?"),
            },
            ("new", None) => Self::New,
            ("retry", None) => Self::Retry,
            ("stats", None) => Self::Stats,
            ("help", None) => Self::Help,
            ("quit" | "exit", None) => Self::Quit,
            ("new" | "retry" | "stats" | "help" | "quit" | "exit", Some(rest)) => {
                bail!("/{name} stands alone: what is '{rest}'?")
            }
            // The path of a file, say.
            _ => bail!("there is no /{name}: /help says what there is"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_a_terminal_of_80_columns() {
        for line in HELP.lines() {
            assert!(line.chars().count() <= 80, "{line}");
            assert!(line.is_empty() || line.starts_with(' '), "{line}");
        }
    }

    #[test]
    fn what_is_no_command_is_said() {
        let said = Command::read("  What is 1/2?\nAnd 1/3? ").unwrap();
        assert_eq!(said, Command::Say("What is 1/2?\nAnd 1/3?".to_owned()));
        assert_eq!(Command::read(" \t").unwrap(), Command::Nothing);
    }

    #[test]
    fn commands_take_the_rest_of_the_line() {
        let system = Command::read("/system  You are a bird. ").unwrap();
        assert_eq!(system, Command::System(Some("You are a bird.".to_owned())));
        assert_eq!(Command::read("/load").unwrap(), Command::Load(None));
        assert_eq!(Command::read("/quit").unwrap(), Command::Quit);
        assert_eq!(Command::read("/explain").unwrap(), Command::Explain(1));
        assert_eq!(Command::read("/explain 5").unwrap(), Command::Explain(5));
    }

    #[test]
    fn a_slip_of_the_hand_is_not_for_the_model() {
        let slips = [
            "/stat",
            "/",
            "/usr/bin",
            "/save",
            "/model ",
            "/quit now",
            "/explain 0",
            "/explain it",
        ];
        for line in slips {
            assert!(Command::read(line).is_err(), "{line}");
        }
    }
}
