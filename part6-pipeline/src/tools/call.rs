//! One call, `{"name": …, "arguments": {…}}`, character by character.

use std::mem;

/// What a character brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    /// The name is known.
    Name(String),
    /// There is more of the arguments.
    Arguments,
    /// The object is complete.
    End,
    /// It cannot be a call.
    NoCall,
}

/// How far a call was read.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// All of it, until its name is known.
    raw: String,
    decided: bool,
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The text or value that is being read at the first level.
    part: String,
    /// Whose value comes.
    key: Option<String>,
    arguments: String,
}

/// Characters before a name: whoever writes more of them does not call.
const LONGEST: usize = 4096;

impl Call {
    pub(super) fn push(&mut self, c: char) -> Said {
        if !self.decided {
            self.raw.push(c);
            if self.raw.len() > LONGEST {
                return Said::NoCall;
            }
        }
        if self.in_text {
            return self.push_text(c);
        }
        match c {
            '{' | '[' if self.depth > 0 || c == '{' => {
                self.depth += 1;
                if self.depth == 1 {
                    Said::Nothing
                } else {
                    self.value(c)
                }
            }
            '}' | ']' if self.depth == 1 => self.end_of_value(true),
            '}' | ']' if self.depth > 1 => {
                self.depth -= 1;
                self.value(c)
            }
            '"' if self.depth > 0 => {
                self.in_text = true;
                self.value(c)
            }
            ':' if self.depth == 1 && self.key.is_none() => {
                let key = mem::take(&mut self.part);
                self.key = Some(serde_json::from_str(&key).unwrap_or_default());
                Said::Nothing
            }
            ',' if self.depth == 1 => self.end_of_value(false),
            _ if self.depth == 0 => Said::Nothing, // the mark before it
            _ if c.is_whitespace() && self.depth == 1 => Said::Nothing,
            _ => self.value(c),
        }
    }

    fn push_text(&mut self, c: char) -> Said {
        let escaped = mem::take(&mut self.escaped);
        self.escaped = c == '\\' && !escaped;
        self.in_text = c != '"' || escaped;
        self.value(c)
    }

    fn value(&mut self, c: char) -> Said {
        if self.are_arguments() {
            self.arguments.push(c);
            return if self.decided {
                Said::Arguments
            } else {
                Said::Nothing
            };
        }
        self.part.push(c);
        Said::Nothing
    }

    fn are_arguments(&self) -> bool {
        matches!(self.key.as_deref(), Some("arguments" | "parameters"))
    }

    fn end_of_value(&mut self, last: bool) -> Said {
        let part = mem::take(&mut self.part);
        let key = self.key.take();
        if key.as_deref() == Some("name") && !self.decided {
            let Ok(name) = serde_json::from_str(&part) else {
                return Said::NoCall;
            };
            self.depth -= usize::from(last);
            return Said::Name(name);
        }
        if last { Said::End } else { Said::Nothing }
    }

    /// From now on it is a call.
    pub(super) fn decide(&mut self) {
        self.decided = true;
        self.raw.clear();
    }

    pub(super) fn is_decided(&self) -> bool {
        self.decided
    }

    /// Whether the object is complete, its name having come last.
    pub(super) fn is_over(&self) -> bool {
        self.depth == 0
    }

    /// What of the arguments was not taken yet.
    pub(super) fn arguments(&mut self) -> String {
        mem::take(&mut self.arguments)
    }

    /// All that was read, if it has not become a call.
    pub(super) fn undecided(&self) -> String {
        self.raw.clone()
    }
}
