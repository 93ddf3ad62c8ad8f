//! What others may ask of an engine beside its answers. Here nobody does: who only listens changes nothing.

/// How likely tokens are.
pub mod likely {
    use std::ops::Range;

    use anyhow::Result;

    use crate::array::Array;
    use crate::model::Model;
    use crate::sampling::{Choice, Likelihood};
    use crate::sequence::Sequence;

    /// Nobody asks.
    #[derive(Debug, Default)]
    pub struct Likely;

    /// Nothing is told.
    #[derive(Debug, Default)]
    pub struct Told {
        pub(crate) prompt: Option<Vec<Likelihood>>,
        pub(crate) token: Option<Likelihood>,
    }

    /// None were computed.
    pub(crate) struct Likelihoods;

    impl Likelihoods {
        pub(crate) fn arrays(&self) -> std::slice::Iter<'_, Array> {
            [].iter()
        }
    }

    impl Likely {
        pub(crate) fn new(_answer: Option<usize>, _prompt: Option<usize>, _tokens: usize) -> Self {
            Self
        }

        pub(crate) fn of_answer(&self) -> bool {
            false
        }

        pub(crate) fn of_prompt(&self) -> bool {
            false
        }

        pub(crate) fn start(&mut self, _logits: &Array, _next: &Choice) -> Result<()> {
            Ok(())
        }

        pub(crate) fn read(&mut self) -> Result<Option<Likelihood>> {
            Ok(None)
        }

        pub(crate) fn forget(&mut self) {}

        pub(crate) fn take_prompt(&mut self) -> Option<Vec<Likelihood>> {
            None
        }

        pub(crate) fn see(
            &mut self,
            _model: &Model,
            _hidden: &Array,
            _piece: Range<usize>,
            _ids: &[u32],
        ) -> Result<()> {
            Ok(())
        }
    }

    pub(crate) fn start(
        _rows: &mut [&mut Sequence],
        _logits: &Array,
        _next: &[Choice],
    ) -> Result<Option<Likelihoods>> {
        Ok(None)
    }

    /// What the head makes of some positions: nothing.
    pub(crate) fn start_several(
        _rows: &mut [&mut Sequence],
        _counts: &[usize],
        _logits: &Array,
        _next: &[Choice],
    ) -> Result<()> {
        Ok(())
    }
}

/// A report of each step.
pub mod live {
    use std::time::Duration;

    use crate::ask::Event;
    use crate::generate::Generator;
    use crate::handle::AskId;
    use crate::scheduler::SequenceId;
    use crate::stepped::Stepped;

    /// Nobody watches.
    #[derive(Debug, Default)]
    pub struct Live;

    /// Nothing is noted.
    #[derive(Debug)]
    pub struct Watch;

    impl Watch {
        pub(crate) fn new(_: Live) -> Self {
            Self
        }

        pub(crate) fn arrived(&mut self, _: SequenceId, _: (AskId, usize), _: usize, _: Duration) {}

        pub(crate) fn began(&mut self, _: SequenceId, _: &Event) {}

        pub(crate) fn stepped(&mut self, _: &Stepped, _: Duration) {}

        pub(crate) fn stopped(&mut self, _: SequenceId) {}

        pub(crate) fn tell(&mut self, _: &Generator<'_>, _: impl Fn(&SequenceId) -> bool) {}
    }
}

/// What was asked and answered, for another day.
pub mod replay {
    use crate::ask::{Ask, Event};
    use crate::handle::AskId;

    /// Nobody has one.
    #[derive(Debug)]
    pub struct Recorder;

    impl Recorder {
        pub(crate) fn asked(&mut self, _: AskId, _: &Ask) {}

        pub(crate) fn told(&mut self, _: AskId, _: &Event) {}

        pub(crate) fn gone(&mut self, _: AskId) {}
    }
}
