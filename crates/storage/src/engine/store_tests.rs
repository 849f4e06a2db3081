//! Views at every stage of a flush: the store's steps one by one.

use std::ops::Bound;

use mvcc::engine::{Engine, MemEngine, View};

use super::*;

type Views = Vec<(Box<dyn View>, Box<dyn View>)>;

fn store(root: &Path) -> Arc<Store> {
    store_with(root, EngineOptions::default().cache_bytes)
}

fn store_with(root: &Path, cache_bytes: u64) -> Arc<Store> {
    let options = EngineOptions { memtable_bytes: 1 << 20, cache_bytes, ..EngineOptions::default() };
    let cache = Arc::new(Cache::with_capacity_bytes(1 << 20));
    Arc::new(Store::create(root, 1, options, &cache).expect("create"))
}

/// Of rows that are held in memory.
const TAGS: [char; 3] = ['c', 'k', 'l'];

fn batch(at: u64) -> Batch {
    let row = |sub: u64| {
        let value = Some(Bytes::from(format!("{at}"))).filter(|_| !(at + sub).is_multiple_of(4));
        let tag = TAGS[usize::try_from(sub % 3).expect("below 3")];
        (Bytes::from(format!("{tag}{:03}", (at * 7 + sub * 3) % 40)), value)
    };
    let mut rows: Vec<_> = (0..8).map(row).collect();
    // Rows that the buffer puts in order later.
    rows.extend((0..3).map(|sub| (Bytes::from(format!("h{:03}", (at * 5 + sub * 11) % 30)), row(sub).1)));
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
    let bounds = |from, to| (Bound::Included(Bytes::from_static(from)), Bound::Excluded(Bytes::from_static(to)));
    let scans = [(Bound::Unbounded, Bound::Unbounded), bounds(b"c", b"d"), bounds(b"k", b"l"), bounds(b"k01", b"m")];
    let all = |view: &dyn View, back: bool| -> Vec<_> {
        let scans = scans.iter().map(|(from, to)| view.scan(from.clone(), to.clone()));
        let rows: Result<Vec<_>, _> = scans.flat_map(|rows| if back { Box::new(rows.rev()) } else { rows }).collect();
        rows.expect("rows")
    };
    let keys = TAGS.into_iter().flat_map(|tag| (0..40).map(move |key| format!("{tag}{key:03}")));
    let keys: Vec<_> = keys.collect();
    let gets = |view: &dyn View| -> Vec<_> { keys.iter().map(|key| view.get(key.as_bytes())).collect() };
    views.iter().position(|(real, model)| {
        all(&**real, false) != all(&**model, false)
            || all(&**real, true) != all(&**model, true)
            || gets(&**real) != gets(&**model)
    })
}

#[test]
fn views_stay_the_same_at_every_stage_of_a_flush() {
    views_stay_the_same(EngineOptions::default().cache_bytes);
}

#[test]
fn views_stay_the_same_without_resident_rows() {
    views_stay_the_same(0);
}

fn views_stay_the_same(cache_bytes: u64) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (store, model, mut views) = (store_with(dir.path(), cache_bytes), MemEngine::new(), Views::new());
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
        store.settle_buffers(&sealed, store.next_resident(&sealed));
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
        assert_eq!(store.layers().resident.all(), cache_bytes > 0);
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
        snapshots.layers = Arc::new(snapshots.layers.without(1, snapshots.layers.resident.clone()));
        drop(snapshots);
        view(&store, &model, &mut views);
        assert_eq!(check(&views), Some(0), "tables registered: {registered}");
    }
}

#[test]
fn resident_rows_that_miss_a_flush_are_noticed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (store, model, mut views) = (store(dir.path()), MemEngine::new(), Views::new());
    write(&store, &model, 0..10);
    store.seal();
    let sealed = store.layers().sealed.clone();
    store.write_tables(&sealed).expect("write tables");
    store.settle_buffers(&sealed, store.layers().resident.clone());
    view(&store, &model, &mut views);
    assert_eq!(check(&views), Some(0));
}

#[test]
fn many_leases_do_not_drive_out_current_rows() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = store_with(dir.path(), 100_000);
    let rows = (0..1000u32).map(|number| (Bytes::from(format!("l{number:06}")), Some(Bytes::from(vec![7; 100]))));
    store.write(Batch { rows: [("c".into(), Some("1".into()))].into_iter().chain(rows).collect() }).expect("write");
    store.seal();
    assert!(store.flush().expect("flush"));
    assert!(!store.layers().resident.all() && store.stats().resident_bytes.is_some());
    let view = Arc::clone(&store).view();
    let found = |key: &str| view.get(key.as_bytes()).expect("read").is_some();
    assert!(found("c") && found("l000007") && !found("c7") && !found("l7"));
}

#[test]
fn resident_rows_are_given_up_when_they_are_many_and_read_again_when_they_are_few() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = store_with(dir.path(), 100_000);
    let put = |range: std::ops::Range<u32>, value: Option<Bytes>| {
        let rows = range.map(|number| (Bytes::from(format!("c{number:06}")), value.clone())).collect();
        store.write(Batch { rows }).expect("write");
        store.seal();
        assert!(store.flush().expect("flush"));
        store.stats().resident_bytes
    };
    let value = Some(Bytes::from(vec![7; 500]));
    assert!(put(0..10, value.clone()).is_some_and(|bytes| bytes > 5000));
    assert_eq!(put(10..1000, value), None);
    assert!(!store.flush().expect("nothing to flush"));
    assert_eq!(store.stats().resident_bytes, None);
    assert_eq!(put(10..1000, None), None, "the tables are as large as before");
    store.compact_fully().expect("compact");
    assert!(!store.flush().expect("nothing to flush"));
    let rows: Vec<_> =
        Arc::clone(&store).view().scan(Bound::Included("c".into()), Bound::Excluded("d".into())).collect();
    assert_eq!(rows.len(), 10);
    assert!(store.stats().resident_bytes.is_some_and(|bytes| bytes < 50_000), "{:?}", store.stats());
    drop(store);
    let (options, cache) = (EngineOptions::default(), Arc::new(Cache::with_capacity_bytes(1 << 20)));
    let store = Store::open(dir.path(), 1, options, &cache).expect("open");
    assert_eq!(store.stats().resident_bytes, None, "a start reads nothing");
    store.flush().expect("nothing to flush");
    assert!(store.stats().resident_bytes.is_some());
}
