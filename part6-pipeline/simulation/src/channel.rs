//! Channels of a world with one thread: whoever would wait gets nothing.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll};

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

type Shared<T> = Rc<RefCell<Queue<T>>>;

/// Puts in.
#[derive(Debug)]
pub struct UnboundedSender<T>(Shared<T>);

/// Takes out.
#[derive(Debug)]
pub struct UnboundedReceiver<T>(Shared<T>);

/// Nobody takes out any more.
#[derive(Debug)]
pub struct Closed;

/// A channel.
pub fn unbounded_channel<T>() -> (UnboundedSender<T>, UnboundedReceiver<T>) {
    let queue = Rc::new(RefCell::new(Queue {
        waiting: VecDeque::new(),
        closed: false,
    }));
    (UnboundedSender(Rc::clone(&queue)), UnboundedReceiver(queue))
}

impl<T> UnboundedSender<T> {
    pub(crate) fn send(&self, message: T) -> Result<(), Closed> {
        let mut queue = self.0.borrow_mut();
        if queue.closed {
            return Err(Closed);
        }
        queue.waiting.push_back(message);
        Ok(())
    }
}

impl<T> Clone for UnboundedSender<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> UnboundedReceiver<T> {
    /// What has been sent; an error if nothing is there.
    pub(crate) fn try_recv(&mut self) -> Result<T, Closed> {
        self.0.borrow_mut().waiting.pop_front().ok_or(Closed)
    }

    pub(crate) fn blocking_recv(&mut self) -> Option<T> {
        self.try_recv().ok()
    }

    pub(crate) async fn recv(&mut self) -> Option<T> {
        self.try_recv().ok()
    }

    pub(crate) fn poll_recv(&mut self, _: &mut Context<'_>) -> Poll<Option<T>> {
        Poll::Ready(self.try_recv().ok())
    }

    pub(crate) fn close(&mut self) {
        self.0.borrow_mut().closed = true;
    }
}

impl<T> Drop for UnboundedReceiver<T> {
    fn drop(&mut self) {
        let mut queue = self.0.borrow_mut();
        queue.closed = true;
        let gone = std::mem::take(&mut queue.waiting);
        drop(queue);
        drop(gone); // what is in it may speak to other channels
    }
}
