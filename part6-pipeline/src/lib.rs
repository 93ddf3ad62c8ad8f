//! Part 6: a full inference pipeline.
//!
//! The one idea: one thread owns the model, and everybody else sends it messages. A step of it is schedule, run,
//! sample, deliver.
//!
//! In reading order:
//!
//! - [`engine`]: the thread that owns the model, and its step
//! - [`prefix`]: beginnings of prompts that ran before
//! - [`model`]: as in part 3
//! - [`scheduler`]: as in part 5
//! - [`generate`]: part 5's, with beginnings that are known and answers that must match something
//! - [`batch`]: part 5's, whose rows can leave with what they store
//! - [`cache`]: as in part 3
//! - [`prealloc`]: as in part 3
//! - [`keys_values`]: as in part 3
//! - [`ahead`]: as in part 3
//! - [`quantized_cache`]: as in part 4
//!
//! Beside it:
//!
//! - [`ask`]: what is asked of the engine, and what comes back
//! - [`handle`]: the engine as its clients see it
//! - [`desk`]: the clients as the engine sees them
//! - [`answer`]: an ask on its way: what its rows bring becomes events
//! - [`likely`]: how likely its tokens are, and those of the prompt
//! - [`text`]: whole characters, and stop texts
//! - [`thread`]: how the engine begins and ends
//! - [`constraint`]: what an answer must match
//! - [`nodes`]: the nodes of the tree of prefixes: when they were used, and who may go
//! - [`kept`]: what is known of prompts in a folder, for the next run
//! - [`reuse`]: out of caches into the tree of prefixes, and back
//! - [`tools`]: tools that it may call
//! - [`sequence`]: part 5's, and what its answer must match
//! - [`speculate`]: what comes next is guessed, as long as that pays
//! - [`trial`]: a step runs what was guessed, and keeps what is right
//! - [`api`]: the JSON of OpenAI: what clients ask, and what they get
//! - [`server`]: the engine on the network
//! - [`chat`]: a conversation in the terminal
//! - [`crowd`]: several clients who ask the same at the same time
//! - [`bench`]: one load, for the engine and for a server
//! - [`conformance`]: what a server does as it should, seen from outside
//! - [`replay`]: answers that were served, run again
//! - [`explain`]: why an answer has this token and no other
//! - [`live`]: what the engine does, for whoever watches
//! - [`what_if`]: what was seen of a server, simulated with other users and other limits
//! - [`flags`]: what a server is told, and what it means
//! - [`books`]: as in part 5
//! - [`limits`]: as in part 5
//! - [`plan`]: as in part 5
//! - [`stepped`]: part 5's, which also counts tokens
//! - [`prompts`]: one run of the model for several prompts
//! - [`slots`]: part 5's, from which a row can be copied
//! - [`store`]: part 5's, with the same
//! - [`kinds`]: as in part 5
//! - [`rotating`]: as in part 3
//! - [`experiment`]: what the video shows
//!
//! [`bench`]: mod@bench

pub mod ahead;
pub mod answer;
pub mod api;
pub mod ask;
pub mod batch;
pub mod bench;
pub mod books;
pub mod cache;
pub mod chat;
pub mod conformance;
pub mod constraint;
pub mod crowd;
pub mod desk;
pub mod engine;
pub mod experiment;
pub mod explain;
pub mod flags;
pub mod generate;
pub mod handle;
pub mod kept;
pub mod keys_values;
pub mod kinds;
pub mod likely;
pub mod limits;
pub mod live;
pub mod model;
pub mod nodes;
pub mod plan;
pub mod prealloc;
pub mod prefix;
pub mod prompts;
pub mod quantized_cache;
pub mod replay;
pub mod reuse;
pub mod rotating;
pub mod scheduler;
pub mod sequence;
pub mod server;
pub mod slots;
pub mod speculate;
pub mod stepped;
pub mod store;
pub mod text;
pub mod thread;
pub mod tools;
pub mod trial;
pub mod what_if;
