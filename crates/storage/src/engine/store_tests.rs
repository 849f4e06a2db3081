//! Views at every stage of a flush: the store's steps one by one.

use std::ops::Bound;

use mvcc::engine::{Engine, MemEngine, View};

use super::*;

type Views = Vec<(Box<dyn View>, Box<dyn View>)>;

fn store(root: &Path) -> Arc<Store> {
    let options = EngineOptions { memtable_bytes: 1 << 20, ..EngineOptions::default() };
    let cache = Arc::new(Cache::with_capacity_bytes(1 << 20));
    Arc::new(Store::create(root, 1, options, &cache).expect("create"))
}

fn batch(at: u64) -> Batch {
    let row = |sub: u64| {
        let value = Some(Bytes::from(format!("{at}"))).filter(|_| !(at + sub).is_multiple_of(4));
        (Bytes::from(format!("c{:03}", (at * 7 + sub * 3) % 40)), value)
    };
    let mut rows: Vec<_> = (0..8).map(row).collect();
    rows.push((MARK_KEY.into(), Some(Bytes::from(format!("{at}")))));
    rows.sort();
    rows.dedup_by(|later, earlier| later.0 == earlier.0);
    Batch { rows }
}

fn write(store: &Store, model: &MemEngine, batches: std::ops::Range<u64>) {
    for at in batches {
        store.write(batch(at)).expect("write");
        model.write(batch(at)).expect("write");
    }
}

fn view(store: &Arc<Store>, model: &MemEngine, views: &mut Views) {
    views.push((Box::new(Arc::clone(store).view()), model.view()));
    views.push((Box::new(Arc::clone(store).pinned_view()), model.view()));
}

/// The number of a view that does not show what the model does.
fn check(views: &Views) -> Option<usize> {
    let all = |view: &dyn View, back: bool| -> Vec<_> {
        let rows = view.scan(Bound::Unbounded, Bound::Unbounded);
        let rows: Result<Vec<_>, _> = if back { rows.rev().collect() } else { rows.collect() };
        rows.expect("rows")
    };
    let gets = |view: &dyn View| -> Vec<_> { (0..40).map(|key| view.get(format!("c{key:03}").as_bytes())).collect() };
    views.iter().position(|(real, model)| {
        all(&**real, false) != all(&**model, false)
            || all(&**real, true) != all(&**model, true)
            || gets(&**real) != gets(&**model)
    })
}

#[test]
fn views_stay_the_same_at_every_stage_of_a_flush() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (store, model, mut views) = (store(dir.path()), MemEngine::new(), Views::new());
    for round in 0..6 {
        let at = round * 100;
        write(&store, &model, at..at + 10);
        view(&store, &model, &mut views);
        write(&store, &model, at + 10..at + 20);
        store.seal();
        view(&store, &model, &mut views);
        write(&store, &model, at + 20..at + 30);
        store.seal();
        write(&store, &model, at + 30..at + 40);
        view(&store, &model, &mut views);
        let sealed = store.layers().sealed.clone();
        assert_eq!(sealed.len(), 2);
        store.write_tables(&sealed).expect("write tables");
        view(&store, &model, &mut views);
        write(&store, &model, at + 40..at + 50);
        store.seal();
        view(&store, &model, &mut views);
        assert_eq!(check(&views), None, "in the tree and still in the buffers");
        store.settle_buffers(&sealed);
        assert_eq!(store.layers().sealed.len(), 1, "sealed meanwhile");
        assert_eq!(store.persisted_mark(), Some(Bytes::from(format!("{}", at + 29))));
        view(&store, &model, &mut views);
        assert_eq!(check(&views), None, "in the tree alone");
        store.remove_versions().expect("remove");
        while store.compact().expect("compact") {}
        assert!(store.flush().expect("flush"));
        assert_eq!(store.persisted_mark(), Some(Bytes::from(format!("{}", at + 49))));
        view(&store, &model, &mut views);
        assert_eq!(check(&views), None, "after a compaction");
        if round % 2 == 1 {
            views.drain(..7);
            assert_eq!(check(&views), None, "after older views are gone");
        }
    }
    drop(views);
    store.settle_versions().expect("settle");
    assert!(store.stats().memtable_bytes < 10_000, "buffers stay: {:?}", store.stats());
}

/// The two ways to get [`Store::settle_buffers`] wrong.
#[test]
fn a_buffer_that_leaves_too_early_is_noticed() {
    for registered in [false, true] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (store, model, mut views) = (store(dir.path()), MemEngine::new(), Views::new());
        write(&store, &model, 0..10);
        store.seal();
        if registered {
            store.write_tables(&store.layers().sealed).expect("write tables");
        }
        let mut snapshots = lock(&store.snapshots);
        snapshots.layers = Arc::new(snapshots.layers.without(1));
        drop(snapshots);
        view(&store, &model, &mut views);
        assert_eq!(check(&views), Some(0), "tables registered: {registered}");
    }
}
