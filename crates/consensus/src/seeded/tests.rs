use std::sync::atomic::{AtomicU64, Ordering};

use openraft::AsyncRuntime;

use super::*;

fn shared<T>(value: T) -> (Arc<Mutex<T>>, Arc<Mutex<T>>) {
    let value = Arc::new(Mutex::new(value));
    (value.clone(), value)
}

fn drive(executor: &Executor) {
    loop {
        executor.run(1_000);
        match executor.next_timer() {
            Some(due) => executor.advance(due),
            None => return,
        }
    }
}

#[test]
fn sleeps_end_in_the_order_of_their_times() {
    let executor = Executor::new(1);
    let (order, kept) = shared(Vec::new());
    for millis in [30, 10, 20, 10] {
        let order = order.clone();
        executor.spawn(async move {
            Seeded::sleep(Duration::from_millis(millis)).await;
            order.lock().unwrap().push(millis);
        });
    }
    drive(&executor);
    assert_eq!(*kept.lock().unwrap(), [10, 10, 20, 30]);
    assert_eq!(executor.now(), Duration::from_millis(30));
    assert!(executor.is_idle());
}

#[test]
fn a_timeout_is_the_future_or_the_time() {
    let executor = Executor::new(1);
    let (seen, kept) = shared(Vec::new());
    executor.spawn(async move {
        let quick = Seeded::timeout(Duration::from_millis(10), Seeded::sleep(Duration::from_millis(5))).await;
        let slow = Seeded::timeout(Duration::from_millis(10), Seeded::sleep(Duration::from_millis(50))).await;
        seen.lock().unwrap().extend([quick, slow]);
    });
    drive(&executor);
    assert_eq!(*kept.lock().unwrap(), [Ok(()), Err(Elapsed)]);
    assert_eq!(executor.now(), Duration::from_millis(15));
    assert_eq!(executor.next_timer(), None, "a sleep that was dropped leaves no timer");
}

#[test]
fn randomness_is_the_seed_s() {
    let draw = |seed| {
        let executor = Executor::new(seed);
        let (drawn, kept) = shared(Vec::new());
        executor.spawn(async move { drawn.lock().unwrap().extend((0..4).map(|_| Seeded::thread_rng().next_u64())) });
        drive(&executor);
        kept.lock().unwrap().clone()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn waiters_run_in_the_order_of_their_numbers_whoever_is_woken_first() {
    let executor = Executor::new(1);
    let (order, kept) = shared(Vec::new());
    // tokio wakes the receivers of a watch channel in an order that it draws from the system's entropy.
    let (sender, receiver) = tokio::sync::watch::channel(0);
    for number in 0..32 {
        let (order, mut receiver) = (order.clone(), receiver.clone());
        executor.spawn(async move {
            receiver.changed().await.unwrap();
            order.lock().unwrap().push(number);
        });
    }
    executor.run(1_000);
    sender.send(1).unwrap();
    executor.run(1_000);
    assert_eq!(*kept.lock().unwrap(), (0..32).collect::<Vec<_>>());
}

#[test]
fn dropping_an_executor_drops_its_tasks_and_what_they_spawn_then() {
    struct Last(Arc<AtomicU64>);
    impl Drop for Last {
        fn drop(&mut self) {
            let count = self.0.clone();
            drop(Seeded::spawn(async move {
                count.fetch_add(100, Ordering::Relaxed);
            }));
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let count = Arc::new(AtomicU64::new(0));
    let executor = Executor::new(1);
    let last = Last(count.clone());
    executor.spawn(async move {
        Seeded::sleep(Duration::from_secs(1)).await;
        drop(last);
    });
    executor.run(1_000);
    drop(executor);
    assert_eq!(count.load(Ordering::Relaxed), 1, "dropped, and what it spawned never ran");
}

#[test]
fn a_task_without_end_is_cut_off() {
    let executor = Executor::new(1);
    executor.spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(executor.run(500), 500);
}

#[test]
fn disk_work_is_done_at_once_and_known_later() {
    let executor = Executor::new(1);
    executor.set_disk_delay(Duration::from_millis(7));
    let (done, kept) = shared((false, false));
    executor.spawn(async move {
        let work = done.clone();
        Seeded::blocking(move || work.lock().unwrap().0 = true).await;
        done.lock().unwrap().1 = true;
    });
    executor.run(1_000);
    assert_eq!(*kept.lock().unwrap(), (true, false));
    drive(&executor);
    assert_eq!(*kept.lock().unwrap(), (true, true));
    assert_eq!(executor.now(), Duration::from_millis(7));
}
