//! Part 5: batching, throughput and latency.
//!
//! The one idea: a step reads every weight once, whether it runs one row or thirty. So many requests share
//! each step, and a scheduler decides at every step which tokens of which requests it runs.
//!
//! In reading order:
//!
//! - [`model`]: as in part 3
//! - [`scheduler`]: which tokens of which requests a step runs
//! - [`generate`]: one step for many requests
//! - [`batch`]: the rows that decode together, as a kind of cache
//! - [`cache`]: as in part 3
//! - [`prealloc`]: as in part 3
//! - [`keys_values`]: as in part 3
//! - [`ahead`]: as in part 3
//! - [`quantized_cache`]: as in part 4
//!
//! Beside it:
//!
//! - [`sequence`]: one request, with all that is its own
//! - [`books`]: the scheduler's books: who waits, who runs, how far each has come
//! - [`limits`]: what the steps may use, checked
//! - [`plan`]: one step as it was planned, with its reasons
//! - [`stepped`]: what a step says of itself
//! - [`together`]: the loop for requests that are all there from the start
//! - [`answer`]: one prompt in several rows
//! - [`invariant`]: when no schedule changes a bit
//! - [`prompts`]: one run of the model for several prompts
//! - [`slots`]: a batch as the layers see it
//! - [`store`]: the arrays of a batch
//! - [`load`]: which requests come, and when
//! - [`step_times`]: how long a step takes, learnt from measured ones
//! - [`machines`]: step times from data sheets
//! - [`simulator`]: a run without the model, on the same scheduler
//! - [`gantt`]: what happened to each request, and why
//! - [`kinds`]: the kinds of caches, by name
//! - [`rotating`]: a window that forgets, as in part 3
//! - [`experiment`]: what the video shows, as numbers
//! - [`tour`]: its four tables
//! - [`roofline`]: what a machine can do at most, and where its steps lie
//! - [`charts`]: both as pictures
//! - [`flags`]: the scheduler's flags as limits
//! - [`serve`]: a load through the generator, measured
//! - [`simulate`]: a prediction, and the run beside it
//! - [`capacity`]: the rate that a machine can hold
//! - [`report`]: the numbers in cells and sentences

pub mod ahead;
pub mod answer;
pub mod batch;
pub mod books;
pub mod cache;
pub mod capacity;
pub mod charts;
pub mod experiment;
pub mod flags;
pub mod gantt;
pub mod generate;
pub mod invariant;
pub mod keys_values;
pub mod kinds;
pub mod limits;
pub mod load;
pub mod machines;
pub mod model;
pub mod plan;
pub mod prealloc;
pub mod prompts;
pub mod quantized_cache;
pub mod report;
pub mod roofline;
pub mod rotating;
pub mod scheduler;
pub mod sequence;
pub mod serve;
pub mod simulate;
pub mod simulator;
pub mod slots;
pub mod step_times;
pub mod stepped;
pub mod store;
pub mod together;
pub mod tour;
