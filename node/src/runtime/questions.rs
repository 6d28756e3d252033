//! What one core of a node asks the others on behalf of an operator.
//!
//! The rule: a question waits in a slot of the core that is asked, which looks there with each of its ticks; nobody waits for
//! a core that does not answer longer than it wants. Not for requests, which go over the mesh.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use glommio::timer::Timer;
use quorate_net::id::CoreId;
use serde_json::Value;

use crate::gateway::Inquiry;

/// Between two looks whether a question was answered.
const LOOK: Duration = Duration::from_millis(1);

type Answer = Result<Value, String>;

/// The slots of all cores of a node. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Questions(Arc<[Mutex<Vec<Question>>]>);

/// One question, and a place for its answer.
#[derive(Clone)]
pub(super) struct Question {
    inquiry: Inquiry,
    answer: Arc<Mutex<Option<Answer>>>,
}

impl Questions {
    pub(super) fn new(cores: u16) -> Self {
        Self((0..cores).map(|_| Mutex::default()).collect())
    }

    /// Asks all cores but `me`, in order.
    pub(super) fn ask_others(&self, me: CoreId, inquiry: Inquiry) -> Vec<Question> {
        let others = self.0.iter().enumerate().filter(|(core, _)| *core != usize::from(me.0));
        let ask = |(_, slot): (usize, &Mutex<Vec<Question>>)| {
            let question = Question { inquiry, answer: Arc::default() };
            slot.lock().unwrap_or_else(PoisonError::into_inner).push(question.clone());
            question
        };
        others.map(ask).collect()
    }

    /// Answers what `me` was asked.
    pub(super) fn answer(&self, me: CoreId, answer: impl Fn(Inquiry) -> Answer) {
        let asked = std::mem::take(&mut *self.0[usize::from(me.0)].lock().unwrap_or_else(PoisonError::into_inner));
        // Who asked may have stopped waiting.
        for question in asked.into_iter().filter(|question| Arc::strong_count(&question.answer) > 1) {
            let told = answer(question.inquiry);
            *question.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        }
    }
}

impl Question {
    /// Waits for the answer, for `most`.
    pub(super) async fn answer(self, most: Duration) -> Answer {
        let until = Instant::now() + most;
        loop {
            if let Some(answer) = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return answer;
            }
            if Instant::now() > until {
                return Err("no answer in time".to_owned());
            }
            Timer::new(LOOK).await;
        }
    }
}
