//! What goes to the terminal while the work is on: text on stdout, status on stderr.
//!
//! Both often are the same terminal. So whatever writes to stdout first takes back a status line
//! that stands there, and no status is shown in the middle of a line of text.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::{AnsiColor, Style};

use terminal_size::{Width, terminal_size_of};
use textwrap::{Options, WordSplitter};

use super::DIM;
use super::wrap::Wrap;
use crate::text::{WIDTH, clip, harmless, message, one_line};

/// A status line stands on the terminal and has to go before anything else is written.
static STATUS_SHOWN: AtomicBool = AtomicBool::new(false);
/// Text on the terminal that stderr shares has not ended in a newline yet.
static MID_LINE: AtomicBool = AtomicBool::new(false);
/// Back to the first column, and the line made empty.
const CLEAR_LINE: &str = "\r\x1b[2K";

/// Standard output as this project writes to it: in step with the status line, and with an error of
/// its own when the reader has gone, so that [`stdout_closed`] cannot take a network's broken pipe
/// for `| head -1`.
#[derive(Debug)]
pub struct Stdout {
    inner: io::Stdout,
    shares_terminal: bool,
}

impl Stdout {
    /// The process's standard output.
    pub fn new() -> Self {
        let inner = io::stdout();
        let shares_terminal = inner.is_terminal() && io::stderr().is_terminal();
        Self {
            inner,
            shares_terminal,
        }
    }
}

impl Default for Stdout {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        clear_status();
        let written = self.inner.write(bytes).map_err(mark_closed)?;
        if let (true, Some(last)) = (self.shares_terminal, bytes[..written].last()) {
            MID_LINE.store(*last != b'\n', Ordering::Relaxed);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush().map_err(mark_closed)
    }
}

/// The reader of our stdout has gone.
#[derive(Debug, thiserror::Error)]
#[error("stdout was closed by its reader")]
struct Closed;

fn mark_closed(err: io::Error) -> io::Error {
    if err.kind() == ErrorKind::BrokenPipe {
        io::Error::new(err.kind(), Closed)
    } else {
        err
    }
}

/// Whether `err` means that nobody reads our stdout any more, which is no failure: `| head -1` has
/// what it wanted.
pub fn stdout_closed(err: &anyhow::Error) -> bool {
    let io_errors = err
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    io_errors
        .filter_map(io::Error::get_ref)
        .any(|inner| inner.is::<Closed>())
}

/// Generated text on its way to a reader, piece by piece, each one shown at once.
///
/// A piece is whole characters, as the streaming detokenizer gives them. Control characters that
/// could move the cursor or change the terminal are shown (`^[` for escape) instead of obeyed. On a
/// terminal the lines end between words; a file or another program gets the text as it is.
#[derive(Debug)]
pub struct TextStream<W: Write> {
    out: W,
    ends_in_newline: bool,
    wrap: Option<Wrap>,
}

impl TextStream<Stdout> {
    /// A stream onto standard output.
    pub fn stdout() -> Self {
        let mut stream = Self::new(Stdout::new());
        if obeys_escapes(&io::stdout()) {
            stream.wrap =
                terminal_size_of(io::stdout()).map(|(Width(columns), _)| Wrap::new(columns.into()));
        }
        stream
    }
}

impl<W: Write> TextStream<W> {
    /// A stream onto `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            ends_in_newline: true,
            wrap: None,
        }
    }

    /// Writes one piece and flushes: on a line of its own buffer, text would come in bursts.
    ///
    /// # Errors
    ///
    /// If it cannot be written; of kind `BrokenPipe` when the reader has gone, which is the caller's
    /// sign to stop generating.
    pub fn push(&mut self, piece: &str) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        let text = harmless(piece);
        match &mut self.wrap {
            Some(wrap) => self.out.write_all(wrap.push(&text).as_bytes())?,
            None => self.out.write_all(text.as_bytes())?,
        }
        self.ends_in_newline = piece.ends_with('\n');
        self.out.flush()
    }

    /// Shows the end of a text that the answer continues, dimmed. On a terminal only: a file or another
    /// program gets the answer alone.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn continued(&mut self, text: &str) -> io::Result<()> {
        if self.wrap.is_none() {
            return Ok(());
        }
        let choice = anstream::AutoStream::choice(&io::stdout());
        let dim = if choice == anstream::ColorChoice::Never {
            Style::new()
        } else {
            DIM
        };
        write!(self.out, "{dim}")?;
        self.push(&tail(text))?;
        write!(self.out, "{dim:#}")?;
        self.out.flush()
    }

    /// Whether the next character starts a line; true before anything was written.
    pub fn ends_in_newline(&self) -> bool {
        self.ends_in_newline
    }

    /// Ends the last line if the text did not.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn finish(&mut self) -> io::Result<()> {
        if self.ends_in_newline {
            Ok(())
        } else {
            self.push("\n")
        }
    }
}

/// Characters of a text that an answer continues, as many as a reader needs to read on.
const TAIL: usize = 240;

/// The last words of a text.
fn tail(text: &str) -> Cow<'_, str> {
    let Some((from, _)) = text.char_indices().rev().nth(TAIL) else {
        return Cow::Borrowed(text);
    };
    let words = text[from..].split_once(char::is_whitespace);
    Cow::Owned(format!(
        "… {}",
        words.map_or(&text[from..], |(_, rest)| rest)
    ))
}

/// Says on stderr what is being done now. On a terminal the line gives way to whatever comes next,
/// and none is shown while a line of text is unfinished there; elsewhere each status is a line.
pub fn status(text: &str) {
    if MID_LINE.load(Ordering::Relaxed) {
        return;
    }
    let text = one_line(text);
    if !transient() {
        to_stderr(&format!("{text}\n"));
    } else {
        to_stderr(&format!("{CLEAR_LINE}{}", clip(&text, WIDTH - 1)));
        STATUS_SHOWN.store(true, Ordering::Relaxed);
    }
}

/// Takes the status line back, if one stands on the terminal.
pub fn clear_status() {
    if STATUS_SHOWN.swap(false, Ordering::Relaxed) {
        to_stderr(CLEAR_LINE);
    }
}

/// A line on stderr that stays: what was done, between two steps.
pub fn tell(text: &str) {
    clear_status();
    to_stderr(&format!("{}\n", at_words(&message(text), 0)));
}

/// A line on stderr that stays: something the reader should know, with what helps against it.
pub fn warn(text: &str) {
    labelled("warning", AnsiColor::Yellow, text);
}

/// The last line of a run that failed: the error and its causes, on one line of stderr.
pub fn error(err: &anyhow::Error) {
    labelled("error", AnsiColor::Red, &format!("{err:#}"));
}

fn labelled(label: &str, colour: AnsiColor, text: &str) {
    clear_status();
    let start = if MID_LINE.swap(false, Ordering::Relaxed) {
        "\n"
    } else {
        ""
    };
    let choice = anstream::AutoStream::choice(&io::stderr());
    let plain = choice == anstream::ColorChoice::Never;
    let style = if plain {
        Style::new()
    } else {
        colour.on_default().bold()
    };
    to_stderr(&format!(
        "{start}{style}{label}:{style:#} {}\n",
        at_words(&message(text), label.len() + 2)
    ));
}

/// A line for stderr, `taken` columns of which are written already: on a terminal it goes on below
/// between two words, and never within one, which may be an address or a path.
fn at_words(line: &str, taken: usize) -> String {
    match terminal_size_of(io::stderr()) {
        Some((Width(columns), _)) => broken(line, taken, columns.into()),
        None => line.to_owned(),
    }
}

fn broken(line: &str, taken: usize, columns: usize) -> String {
    let blank = " ".repeat(taken);
    let options = Options::new(columns.saturating_sub(1).max(taken + 10))
        .initial_indent(&blank)
        .word_splitter(WordSplitter::NoHyphenation)
        .break_words(false);
    let lines = textwrap::fill(line, options);
    lines.get(taken..).unwrap_or_default().to_owned()
}

/// A terminal that can erase a line.
fn transient() -> bool {
    obeys_escapes(&io::stderr())
}

fn obeys_escapes(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Nothing can be done about a stderr that fails, and `eprintln!` would panic.
fn to_stderr(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    /// Counts flushes, and fails like a pipe whose reader has gone after `room` bytes.
    struct Pipe {
        text: Vec<u8>,
        flushes: usize,
        room: usize,
    }

    impl Pipe {
        fn with_room(room: usize) -> Self {
            Self {
                text: Vec::new(),
                flushes: 0,
                room,
            }
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.text.len() + bytes.len() > self.room {
                return Err(ErrorKind::BrokenPipe.into());
            }
            self.text.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.flushes += 1;
            Ok(())
        }
    }

    #[test]
    fn every_piece_is_shown_at_once_and_the_last_line_is_ended_once() {
        let mut stream = TextStream::new(Pipe::with_room(100));
        assert!(stream.ends_in_newline());
        for piece in ["Schwarze ", "Löcher", "", " 🕳️"] {
            stream.push(piece).unwrap();
        }
        assert!(!stream.ends_in_newline());
        assert_eq!(stream.out.flushes, 3);
        stream.finish().unwrap();
        stream.finish().unwrap();
        assert_eq!(
            String::from_utf8(stream.out.text).unwrap(),
            "Schwarze Löcher 🕳️\n"
        );
    }

    #[test]
    fn an_error_on_a_terminal_breaks_between_words_and_never_in_an_address() {
        let text =
            "cannot reach https://huggingface.co/api/models/some-owner/some-model: try again";
        let lines =
            "cannot reach\nhttps://huggingface.co/api/models/some-owner/some-model:\ntry again";
        assert_eq!(broken(text, "error: ".len(), 40), lines);
        assert_eq!(broken("", 7, 80), "");
        assert_eq!(broken("one two", 7, 3), "one two");
    }

    #[test]
    fn a_terminal_shows_what_is_continued_and_a_pipe_gets_the_answer_alone() {
        let shown = |wrap: Option<Wrap>, prompt: &str| {
            let mut stream = TextStream::new(Pipe::with_room(1000));
            stream.wrap = wrap;
            stream.continued(prompt).unwrap();
            stream.push(" mole").unwrap();
            String::from_utf8(stream.out.text).unwrap()
        };
        assert_eq!(shown(None, "Once upon a"), " mole");
        let text = shown(Some(Wrap::new(80)), "Once upon a");
        assert!(
            text.starts_with("Once upon a") || text.contains("mOnce upon a"),
            "{text:?}"
        );
        assert!(text.ends_with(" mole"), "{text:?}");
        let long = "word ".repeat(100) + "end";
        let text = tail(&long);
        assert!(
            text.starts_with("… word ") && text.ends_with(" end"),
            "{text}"
        );
        assert!(text.chars().count() <= TAIL + 3, "{text}");
    }

    #[test]
    fn an_empty_text_leaves_no_empty_line() {
        let mut stream = TextStream::new(Pipe::with_room(100));
        stream.finish().unwrap();
        assert!(stream.out.text.is_empty());
    }

    #[test]
    fn a_reader_that_has_gone_is_reported_to_the_caller() {
        let mut stream = TextStream::new(Pipe::with_room(4));
        stream.push("four").unwrap();
        assert_eq!(
            stream.push("five").unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn a_closed_stdout_is_told_from_any_other_broken_pipe() {
        let broken = || io::Error::from(ErrorKind::BrokenPipe);
        let ours = Err::<(), _>(mark_closed(broken()))
            .context("writing the table")
            .unwrap_err();
        assert!(stdout_closed(&ours));
        let network = Err::<(), _>(broken())
            .context("downloading the model")
            .unwrap_err();
        assert!(!stdout_closed(&network));
        let full = mark_closed(io::Error::from(ErrorKind::StorageFull));
        assert!(!stdout_closed(&full.into()));
    }
}
