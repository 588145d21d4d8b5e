//! A runtime in virtual time: one machine's tasks, clock and randomness in the hands of whoever simulates it.
//!
//! openraft takes spawn, sleep, clock and randomness from its runtime, so on this one a run is a function of the seed and
//! of what the simulator feeds in. Nothing here knows the operating system's clock, threads or entropy.
//!
//! - Every machine has an [`Executor`] of its own. Dropping it is a crash: all its tasks end where they are. Not driving
//!   it is a pause.
//! - Ready tasks run in rounds, each round in the order of their numbers, so the order in which a channel wakes its
//!   waiters (tokio draws it from the system's entropy) does not show.
//! - Time stands still while tasks run and moves only by [`Executor::advance`].
//!
//! ```
//! # use std::time::Duration;
//! # use muster_consensus::seeded::{Executor, Seeded};
//! # use openraft::AsyncRuntime;
//! let machine = Executor::new(7);
//! machine.spawn(async { Seeded::sleep(Duration::from_millis(5)).await });
//! machine.run(1_000);
//! while let Some(due) = machine.next_timer() {
//!     machine.advance(due);
//!     machine.run(1_000);
//! }
//! assert_eq!(machine.now(), Duration::from_millis(5));
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use openraft::async_runtime::AsyncOneshotSendExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{self, RngCore, SeedableRng};
use tokio::sync::oneshot;

use crate::runtime::Runtime;

mod time;

pub use time::{Elapsed, Moment, Sleep, Timeout};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The runtime type to give to [`crate::Consensus`]. Its functions work inside an [`Executor`]'s tasks only, and panic
/// elsewhere: there is no clock to ask.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seeded;

/// One machine's tasks, timers, clock and randomness.
#[derive(Debug)]
pub struct Executor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
}

struct State {
    /// Nanoseconds since the executor was made.
    now: u64,
    random: ChaCha8Rng,
    disk_delay: Duration,
    next_task: u64,
    tasks: BTreeMap<u64, Task>,
    ready: BTreeSet<u64>,
    next_timer: u64,
    timers: BTreeMap<(u64, u64), Waker>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State {{ now: {}, tasks: {}, timers: {} }}", self.now, self.tasks.len(), self.timers.len())
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Inner>>> = const { RefCell::new(None) };
}

/// Makes an executor the current one for a while.
struct Entered(Option<Arc<Inner>>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|current| *current.borrow_mut() = self.0.take());
    }
}

fn enter(inner: &Arc<Inner>) -> Entered {
    Entered(CURRENT.with(|current| current.borrow_mut().replace(inner.clone())))
}

fn current() -> Arc<Inner> {
    CURRENT
        .with(|current| current.borrow().clone())
        .expect("the seeded runtime was used outside of an Executor's tasks")
}

struct TaskWaker {
    task: u64,
    inner: Weak<Inner>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if let Some(inner) = self.inner.upgrade() {
            inner.state().ready.insert(self.task);
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, task: Task) {
        let mut state = self.state();
        let number = state.next_task;
        state.next_task += 1;
        state.tasks.insert(number, task);
        state.ready.insert(number);
    }

    fn poll(self: &Arc<Self>, number: u64) {
        let Some(mut task) = self.state().tasks.remove(&number) else { return };
        let waker = Waker::from(Arc::new(TaskWaker { task: number, inner: Arc::downgrade(self) }));
        let context = &mut Context::from_waker(&waker);
        // A task that panics is over and takes no other one with it, as with tokio.
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context)));
        if polled.is_ok_and(|polled| polled.is_pending()) {
            self.state().tasks.insert(number, task);
        }
    }
}

impl Executor {
    /// An executor at time zero. Two machines of one run need two seeds, or they draw the same election timeouts.
    pub fn new(seed: u64) -> Self {
        let state = State {
            now: 0,
            random: ChaCha8Rng::seed_from_u64(seed),
            disk_delay: Duration::ZERO,
            next_task: 0,
            tasks: BTreeMap::new(),
            ready: BTreeSet::new(),
            next_timer: 0,
            timers: BTreeMap::new(),
        };
        Self { inner: Arc::new(Inner { state: Mutex::new(state) }) }
    }

    /// Adds a task; it runs with the next [`Executor::run`].
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.spawn(Box::pin(task));
    }

    /// Runs tasks until none is ready or `most` polls are spent. Returns the number of polls; `most` of them mean that
    /// tasks may still be ready.
    ///
    /// # Panics
    /// If a task does. A task that panicked is gone, the others are not.
    pub fn run(&self, most: u64) -> u64 {
        let _entered = enter(&self.inner);
        let mut polls = 0;
        loop {
            let mut round = mem::take(&mut self.inner.state().ready);
            if round.is_empty() {
                return polls;
            }
            while let Some(task) = round.pop_first() {
                if polls == most {
                    self.inner.state().ready.append(&mut round);
                    self.inner.state().ready.insert(task);
                    return polls;
                }
                polls += 1;
                self.inner.poll(task);
            }
        }
    }

    /// This machine's time since the executor was made.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.inner.state().now)
    }

    /// When the next timer is due, in [`Executor::now`]'s time.
    pub fn next_timer(&self) -> Option<Duration> {
        self.inner.state().timers.keys().next().map(|(due, _)| Duration::from_nanos(*due))
    }

    /// Moves the clock to `to`, never back, and makes the tasks ready whose timers are due. They run with the next
    /// [`Executor::run`].
    pub fn advance(&self, to: Duration) {
        let due = {
            let mut state = self.inner.state();
            state.now = state.now.max(time::nanos(to));
            let now = state.now;
            let later = state.timers.split_off(&(now + 1, 0));
            mem::replace(&mut state.timers, later)
        };
        due.into_values().for_each(Waker::wake);
    }

    /// How long work that waits for the disk takes from now on. It is done at the beginning of that time and known at
    /// the end, so a crash in between loses an answer, not the work.
    pub fn set_disk_delay(&self, delay: Duration) {
        self.inner.state().disk_delay = delay;
    }

    /// Whether any task is left.
    pub fn is_idle(&self) -> bool {
        self.inner.state().tasks.is_empty()
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _entered = enter(&self.inner);
        loop {
            // What a task does while it is dropped may spawn; those end too.
            let tasks = mem::take(&mut self.inner.state().tasks);
            if tasks.is_empty() {
                break;
            }
            drop(tasks);
        }
        self.inner.state().timers.clear();
    }
}

/// Draws from the randomness of the executor whose task asks.
#[derive(Debug)]
pub struct Random;

impl RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        current().state().random.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        current().state().random.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        current().state().random.fill_bytes(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

/// The sending half of a one-shot channel.
pub struct OneshotSender<T>(oneshot::Sender<T>);

impl<T> std::fmt::Debug for OneshotSender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OneshotSender")
    }
}

impl<T: Send> AsyncOneshotSendExt<T> for OneshotSender<T> {
    fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }
}

impl openraft::AsyncRuntime for Seeded {
    type JoinError = oneshot::error::RecvError;
    type JoinHandle<T: Send + 'static> = oneshot::Receiver<T>;
    type Sleep = Sleep;
    type Instant = Moment;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + Send> = Timeout<T>;
    type ThreadLocalRng = Random;
    type OneshotSender<T: Send> = OneshotSender<T>;
    type OneshotReceiver<T: Send> = oneshot::Receiver<T>;
    type OneshotReceiverError = oneshot::error::RecvError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        let (done, handle) = oneshot::channel();
        current().spawn(Box::pin(async move {
            // Nobody has to wait for a task.
            let _ = done.send(future.await);
        }));
        handle
    }

    fn sleep(duration: Duration) -> Sleep {
        Sleep::until(Moment::after(duration))
    }

    fn sleep_until(deadline: Moment) -> Sleep {
        Sleep::until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Timeout<F> {
        Timeout::new(Moment::after(duration), future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(deadline: Moment, future: F) -> Timeout<F> {
        Timeout::new(deadline, future)
    }

    /// A panic leaves [`Executor::run`], so a handle that has no value is of a task that was dropped.
    fn is_panic(_: &Self::JoinError) -> bool {
        false
    }

    fn thread_rng() -> Random {
        Random
    }

    fn oneshot<T: Send>() -> (OneshotSender<T>, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (OneshotSender(sender), receiver)
    }
}

impl Runtime for Seeded {
    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let done = work();
        let delay = current().state().disk_delay;
        if !delay.is_zero() {
            Sleep::until(Moment::after(delay)).await;
        }
        Some(done)
    }
}

#[cfg(test)]
mod tests;
