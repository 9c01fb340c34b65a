//! Prepares batches ahead of the training step: worker threads, a bounded queue, results in plan order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::{Error, Result};

type Plans<P> = Box<dyn Iterator<Item = P> + Send>;

/// An iterator over `build(plan)` in plan order, computed by background threads at most `queue` plans ahead.
///
/// The results do not depend on the number of threads as long as `build` depends on its plan alone. An error, or a panic in `build`, is delivered
/// at its plan's place and the following plans go on. Dropping the loader ends the threads after the plan each is at.
pub struct Loader<P, T> {
    shared: Arc<Shared<P, T>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<P, T> {
    state: Mutex<State<P, T>>,
    /// Signalled when a result arrives, the plans end, room appears or the loader is dropped.
    changed: Condvar,
    queue: usize,
}

struct State<P, T> {
    /// `None` once the plans have ended or the loader was dropped.
    plans: Option<Plans<P>>,
    taken: usize,
    delivered: usize,
    ready: BTreeMap<usize, Result<T>>,
}

impl<P, T> Shared<P, T> {
    fn lock(&self) -> MutexGuard<'_, State<P, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next plan with its number, when there is room for its result; `None` when no more will come.
    fn take(&self) -> Option<(usize, P)> {
        let mut state = self.lock();
        while state.plans.is_some() && state.taken >= state.delivered + self.queue {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let plan = match catch_unwind(AssertUnwindSafe(|| state.plans.as_mut().and_then(Iterator::next))) {
            Ok(plan) => plan,
            Err(_) => {
                let number = state.taken;
                state.taken += 1;
                state.ready.insert(number, Err(Error::Training { reason: "planning the batches panicked".into() }));
                None
            }
        };
        let number = state.taken;
        match plan {
            Some(plan) => {
                state.taken += 1;
                Some((number, plan))
            }
            None => {
                state.plans = None;
                self.changed.notify_all();
                None
            }
        }
    }
}

impl<P: Send + 'static, T: Send + 'static> Loader<P, T> {
    /// Starts `threads` workers (at least 1) that keep up to `queue` (at least 1) batches ready or under way.
    ///
    /// # Errors
    /// [`Error::Training`]: the system gives no thread.
    pub fn new(
        plans: impl Iterator<Item = P> + Send + 'static,
        threads: usize,
        queue: usize,
        build: impl Fn(&P) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        let state = State { plans: Some(Box::new(plans) as Plans<P>), taken: 0, delivered: 0, ready: BTreeMap::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), queue: queue.max(1) });
        let mut loader = Self { shared, threads: Vec::new() };
        let build = Arc::new(build);
        for i in 0..threads.max(1) {
            let (shared, build) = (loader.shared.clone(), build.clone());
            let work = move || {
                while let Some((number, plan)) = shared.take() {
                    let panicked = |_| Err(Error::Training { reason: format!("preparing batch {number} of this run panicked") });
                    let result = catch_unwind(AssertUnwindSafe(|| build(&plan))).unwrap_or_else(panicked);
                    shared.lock().ready.insert(number, result);
                    shared.changed.notify_all();
                }
            };
            let thread = std::thread::Builder::new().name(format!("loader-{i}")).spawn(work);
            loader.threads.push(thread.map_err(|e| Error::Training { reason: format!("cannot start a loader thread: {e}") })?);
        }
        Ok(loader)
    }
}

impl<P, T> Iterator for Loader<P, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let mut state = self.shared.lock();
        loop {
            let number = state.delivered;
            if let Some(result) = state.ready.remove(&number) {
                state.delivered += 1;
                self.shared.changed.notify_all();
                return Some(result);
            }
            if state.plans.is_none() && state.delivered == state.taken {
                return None;
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<P, T> Drop for Loader<P, T> {
    fn drop(&mut self) {
        self.shared.lock().plans = None;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // Panics of `build` are caught in the worker; nothing is left to report here.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    fn squares(threads: usize, queue: usize) -> Vec<Result<u64, String>> {
        let build = |&i: &u64| {
            std::thread::sleep(Duration::from_micros(i * 7919 % 300));
            match i {
                13 => Err(Error::Training { reason: "thirteen".into() }),
                17 => panic!("seventeen"),
                _ => Ok(i * i),
            }
        };
        Loader::new(0..40_u64, threads, queue, build).unwrap().map(|r| r.map_err(|e| e.to_string())).collect()
    }

    #[test]
    fn order_and_errors_do_not_depend_on_threads() {
        let one = squares(1, 1);
        assert_eq!(one.len(), 40);
        assert_eq!((one[12].clone(), one[14].clone()), (Ok(144), Ok(196)));
        assert_eq!(one[13], Err("training: thirteen".into()));
        assert_eq!(one[17], Err("training: preparing batch 17 of this run panicked".into()));
        for (threads, queue) in [(2, 1), (4, 3), (8, 100)] {
            assert_eq!(squares(threads, queue), one);
        }
    }

    #[test]
    fn works_at_most_queue_ahead_and_stops_on_drop() {
        let built = Arc::new(AtomicUsize::new(0));
        let count = built.clone();
        let mut loader = Loader::new(0_usize.., 3, 4, move |&i| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(i)
        })
        .unwrap();
        assert_eq!(loader.next().unwrap().unwrap(), 0);
        std::thread::sleep(Duration::from_millis(50));
        assert!(built.load(Ordering::SeqCst) <= 5, "{}", built.load(Ordering::SeqCst));
        drop(loader);
        let after = built.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!((built.load(Ordering::SeqCst), Arc::strong_count(&built)), (after, 1));
    }

    #[test]
    fn no_plans_end_at_once() {
        let mut loader = Loader::new(std::iter::empty::<u8>(), 2, 2, |&i| Ok(i)).unwrap();
        assert!(loader.next().is_none() && loader.next().is_none());
    }
}
