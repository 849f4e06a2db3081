//! Damage of every kind at every place of a small log. The outcome is always one of: the whole state, a refusal, or,
//! if only the last flush was hit, the state before it.

use base::{Fault, GroupId, Index};
use kernel::Record;

use super::model::Model;
use super::{IDENTITY, SMALL, ballot, entry, open, position};
use crate::disk::{Disk, MemDisk, WriteFault};
use crate::wal::planted::{self, Bug};
use crate::wal::segment::{FIRST_FRAME, segment_name};
use crate::wal::{Loaded, Wal, WalIdentity, WalOptions};

const GROUP: GroupId = GroupId(1);
const BLOCK: u64 = 4096;

/// A log in one segment, and the state after each flush with the offset where it ends.
struct Image {
    contents: Vec<u8>,
    states: Vec<(u64, Model)>,
}

fn turns() -> Vec<Vec<(GroupId, Vec<Record>)>> {
    let hard = |round| Record::Hard { promised: ballot(round), accepted: ballot(1), commit: Index(round) };
    let other = GroupId(9);
    vec![
        vec![(GROUP, vec![hard(1), Record::Append((1..6).map(|index| entry(index, 1, 100)).collect())])],
        vec![(GROUP, vec![Record::Append(vec![entry(6, 1, 4500)].into())]), (other, vec![hard(2)])],
        vec![(GROUP, vec![Record::Truncate { from: Index(4) }, Record::Append(vec![entry(4, 2, 10)].into())])],
        vec![(other, vec![Record::Append(vec![entry(1, 2, 0)].into())])],
        vec![(GROUP, vec![Record::Compact { base: position(2, 1), keep_suffix: true }, hard(3)])],
        vec![(GROUP, vec![Record::Append((3..6).map(|index| entry(index, 3, 20)).collect())])],
    ]
}

fn image() -> Image {
    let disk = MemDisk::new(0);
    let (mut wal, _) = open(&disk);
    let mut model = Model::default();
    let mut states = vec![(FIRST_FRAME, model.clone())];
    for turn in turns() {
        let lsn = wal.next_lsn();
        wal.append(lsn, &turn).expect("append");
        wal.sync().expect("sync");
        model.apply(lsn.0, &turn);
        states.push((wal.active.offset, model.clone()));
    }
    Image { contents: disk.contents(&segment_name(1)).expect("segment"), states }
}

/// The bytes of a whole log, for the fuzzer.
pub(super) fn image_bytes() -> Vec<u8> {
    image().contents
}

fn open_image(contents: &[u8]) -> Result<(MemDisk, Wal, crate::wal::RecoveredLog), Fault> {
    let disk = MemDisk::new(0);
    disk.put(&segment_name(1), contents);
    let (wal, recovered) = Wal::open(std::sync::Arc::new(disk.clone()), IDENTITY, SMALL)?;
    Ok((disk, wal, recovered))
}

/// Opens a damaged image; checks that the state is one of `allowed`, and that the log goes on from there. `None` if it
/// was refused.
fn outcome(image: &Image, contents: &[u8], allowed: &[usize]) -> Result<Option<usize>, String> {
    let (disk, mut wal, recovered) = match open_image(contents) {
        Ok(opened) => opened,
        Err(Fault::Corrupt { place, detail }) if place.contains("wal/") && detail.contains("empty data directory") => {
            return Ok(None);
        }
        Err(Fault::Refused(_)) => return Ok(None),
        Err(other) => return Err(format!("not a clear refusal: {other}")),
    };
    let mut found = Err(String::new());
    for state in allowed {
        match image.states[*state].1.compare(&mut wal, &recovered) {
            Ok(()) => {
                found = Ok(*state);
                break;
            }
            Err(problem) => found = Err(problem),
        }
    }
    let state = found?;
    let mut model = image.states[state].1.clone();
    let lsn = wal.next_lsn();
    let turn = [(GroupId(77), vec![Record::Append(vec![entry(1, 1, 50)].into())])];
    wal.append(lsn, &turn).map_err(|fault| fault.to_string())?;
    wal.sync().map_err(|fault| fault.to_string())?;
    model.apply(lsn.0, &turn);
    drop(wal);
    disk.crash_hard();
    let (mut wal, recovered) = open(&disk);
    model.compare(&mut wal, &recovered).map_err(|problem| format!("after going on: {problem}"))?;
    Ok(Some(state))
}

fn flips(image: &Image) -> Result<[usize; 3], String> {
    let (end, full) = (image.states.last().expect("states").0, image.states.len() - 1);
    let last_flush = image.states[full - 1].0;
    let mut counts = [0; 3];
    for offset in 0..end {
        let mut contents = image.contents.clone();
        contents[offset as usize] ^= 1 << (offset % 8);
        let allowed: &[usize] = if offset >= last_flush { &[full, full - 1] } else { &[full] };
        let state = outcome(image, &contents, allowed).map_err(|problem| format!("byte {offset}: {problem}"))?;
        let kind = state.map_or(0, |state| if state == full { 1 } else { 2 });
        counts[kind] += 1;
        if offset >= last_flush && state.is_none() {
            return Err(format!("byte {offset}: the tail is refused instead of cut"));
        }
    }
    Ok(counts)
}

#[test]
fn a_flipped_bit_is_refused_or_harmless_or_at_the_tail() {
    let [refused, harmless, cut] = flips(&image()).expect("every byte");
    assert!(refused > 5000 && harmless > 5000 && cut > 100, "{refused} {harmless} {cut}");
}

#[test]
fn damage_taken_for_a_tail_is_noticed() {
    assert!(planted::with(Bug::DamageIsTail, || flips(&image())).is_err());
}

#[test]
fn a_cut_at_any_byte_gives_the_flushes_before_it() {
    let image = image();
    for cut in FIRST_FRAME..image.states.last().expect("states").0 + 1 {
        let mut contents = image.contents.clone();
        contents[cut as usize..].fill(0);
        let whole = |end: u64| contents[..end as usize] == image.contents[..end as usize];
        let expected = image.states.iter().rposition(|(end, _)| whole(*end)).expect("the empty log");
        let state = outcome(&image, &contents, &[expected]).unwrap_or_else(|problem| panic!("cut {cut}: {problem}"));
        assert_eq!(state, Some(expected), "cut {cut}");
    }
}

#[test]
fn a_block_in_the_place_of_another_is_never_taken_for_it() {
    let image = image();
    let (end, full) = (image.states.last().expect("states").0, image.states.len() - 1);
    for from in 0..end / BLOCK {
        for to in (0..end / BLOCK).filter(|to| *to != from) {
            let mut contents = image.contents.clone();
            contents.copy_within((from * BLOCK) as usize..((from + 1) * BLOCK) as usize, (to * BLOCK) as usize);
            let tail = to * BLOCK >= image.states[full - 1].0;
            let allowed: &[usize] = if tail { &[full, full - 1] } else { &[full] };
            outcome(&image, &contents, allowed).unwrap_or_else(|problem| panic!("{from} over {to}: {problem}"));
        }
    }
}

/// Reads an entry whose newest record was overwritten by the record of an older version of the same entry.
fn read_stale_copy() -> Result<Loaded, Fault> {
    let disk = MemDisk::new(0);
    let (mut wal, _) = open(&disk);
    let mut places = Vec::new();
    for round in 1..3 {
        wal.append(wal.next_lsn(), &[(GROUP, vec![Record::Append(vec![entry(1, round, 300)].into())])])
            .expect("append");
        wal.sync().expect("sync");
        places.push(wal.read_index().groups[&GROUP].location(Index(1)).expect("there"));
    }
    let file = disk.open(&segment_name(1)).expect("open");
    let mut stale = vec![0; places[0].len as usize];
    file.read_at(u64::from(places[0].offset), &mut stale).expect("read");
    file.write_at(u64::from(places[1].offset), &stale).expect("write");
    wal.reader().load(GROUP, Index(1), Index(2), usize::MAX)
}

#[test]
fn a_stale_record_in_the_place_of_a_newer_one_is_refused() {
    assert!(matches!(read_stale_copy(), Err(Fault::Corrupt { .. })));
}

#[test]
fn without_addresses_a_stale_record_would_be_served() {
    let served = planted::with(Bug::NoAddress, read_stale_copy);
    assert_eq!(served, Ok(Loaded::Entries(vec![entry(1, 1, 300)])));
}

/// Reads an entry of which one bit has changed since it was written.
fn read_rotten_record() -> Result<Loaded, Fault> {
    let disk = MemDisk::new(0);
    let (mut wal, _) = open(&disk);
    wal.append(wal.next_lsn(), &[(GROUP, vec![Record::Append(vec![entry(1, 1, 300)].into())])]).expect("append");
    wal.sync().expect("sync");
    let place = wal.read_index().groups[&GROUP].location(Index(1)).expect("there");
    disk.flip(&segment_name(1), u64::from(place.offset) + u64::from(place.len) - 1, 1);
    wal.reader().load(GROUP, Index(1), Index(2), usize::MAX)
}

#[test]
fn a_rotten_record_is_refused_when_it_is_read() {
    assert!(matches!(read_rotten_record(), Err(Fault::Corrupt { .. })));
}

#[test]
fn without_its_checksum_a_rotten_record_would_be_served() {
    let served = planted::with(Bug::RecordUnchecked, read_rotten_record);
    let Ok(Loaded::Entries(entries)) = served else { panic!("{served:?}") };
    assert!(entries.len() == 1 && entries[0] != entry(1, 1, 300), "the damage shows");
}

#[test]
fn a_lost_or_misdirected_write_is_found_once_something_follows() {
    let turns = turns();
    let mut refused = 0;
    for nth in 0..turns.len() as u64 {
        let mut faults = vec![WriteFault::Lost];
        faults.extend((0..8).map(|block| WriteFault::Misdirected { offset: block * BLOCK }));
        for fault in faults {
            let disk = MemDisk::new(0);
            let (mut wal, _) = open(&disk);
            let mut model = Model::default();
            let mut before_last = model.clone();
            for (number, turn) in turns.iter().enumerate() {
                before_last = model.clone();
                if number as u64 == nth {
                    disk.fault_write(0, fault.clone());
                }
                let lsn = wal.next_lsn();
                wal.append(lsn, turn).expect("append");
                wal.sync().expect("sync");
                model.apply(lsn.0, turn);
            }
            drop(wal);
            disk.crash_hard();
            match Wal::open(std::sync::Arc::new(disk), IDENTITY, SMALL) {
                Err(Fault::Corrupt { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
                Ok((mut wal, recovered)) => {
                    let exact = model.compare(&mut wal, &recovered);
                    let is_last = nth + 1 == turns.len() as u64;
                    let tail = is_last && before_last.compare(&mut wal, &recovered).is_ok();
                    assert!(exact.is_ok() || tail, "write {nth}, {fault:?}: {exact:?}");
                }
            }
        }
    }
    assert!(refused > 40, "{refused}");
}

/// A log over several segments, some of them reused.
fn long_log() -> (MemDisk, Model, u64, u64) {
    let disk = MemDisk::new(0);
    let (mut wal, _) = open(&disk);
    let mut model = Model::default();
    for index in 1.. {
        // Ends early in a segment that was used before: behind its frames stand those of its earlier life.
        let early = wal.active.offset == FIRST_FRAME + 2 * BLOCK;
        if index > 400 && early && wal.active.segment.number > 60 {
            break;
        }
        let mut records = vec![Record::Append(vec![entry(index, 1, 900)].into())];
        if index % 40 == 0 {
            records.push(Record::Compact { base: position(index - 20, 1), keep_suffix: true });
        }
        let turn = [(GROUP, records)];
        let lsn = wal.next_lsn();
        wal.append(lsn, &turn).expect("append");
        wal.sync().expect("sync");
        model.apply(lsn.0, &turn);
        for _ in 0..5 {
            wal.maintain().expect("maintain");
        }
    }
    let (oldest, active) = (wal.counters.oldest, wal.active.segment.number);
    (disk, model, oldest, active)
}

#[test]
fn leftovers_of_a_reused_file_never_come_back() {
    let (disk, model, oldest, active) = long_log();
    assert!(oldest > 10 && active > oldest, "segments {oldest}..={active}");
    let name = segment_name(active);
    let contents = disk.contents(&name).expect("segment");
    let magic = &contents[FIRST_FRAME as usize..FIRST_FRAME as usize + 4];
    let frames: Vec<usize> =
        (0..contents.len()).step_by(BLOCK as usize).filter(|at| &contents[*at..*at + 4] == magic).collect();
    // Behind the log's end the file still holds frames of its earlier life.
    let (mut wal, recovered) = open(&disk.fork());
    model.compare(&mut wal, &recovered).expect("whole");
    assert!(frames.iter().any(|frame| *frame as u64 >= wal.active.offset), "nothing is left over: {frames:?}");
    drop(wal);
    // Without its last frame the log ends there, whatever stands behind it.
    let last = *frames.iter().rfind(|frame| (**frame as u64) < open(&disk.fork()).0.active.offset).expect("frames");
    disk.open(&name).expect("open").write_at(last as u64, &[0; 8]).expect("write");
    let (wal, _) = open(&disk);
    assert_eq!(wal.active.offset, last as u64);
    assert_eq!(wal.synced().0, model.lsn - 1);
}

#[test]
fn a_missing_or_short_segment_is_refused() {
    let (disk, _, oldest, active) = long_log();
    for number in oldest..active {
        let image = disk.fork();
        image.remove(&segment_name(number)).expect("remove");
        let Err(fault) = Wal::open(std::sync::Arc::new(image), IDENTITY, SMALL) else {
            panic!("segment {number} of {oldest}..={active} is not missed");
        };
        assert!(fault.to_string().contains("missing") || fault.to_string().contains("written later"), "{fault}");
        let image = disk.fork();
        let contents = image.contents(&segment_name(number)).expect("segment");
        image.put(&segment_name(number), &contents[..contents.len() - 100]);
        assert!(matches!(Wal::open(std::sync::Arc::new(image), IDENTITY, SMALL), Err(Fault::Corrupt { .. })));
    }
}

#[test]
fn a_log_of_another_node_or_format_is_refused() {
    let image = image();
    let disk = MemDisk::new(0);
    disk.put(&segment_name(1), &image.contents);
    let other = WalIdentity { node: base::NodeId(3), ..IDENTITY };
    let Err(Fault::Refused(text)) = Wal::open(std::sync::Arc::new(disk), other, SMALL) else { panic!("taken") };
    assert!(text.contains("belongs to node n2 of cluster c1, not to node n3"), "{text}");
    let mut newer = image.contents.clone();
    newer[8] = 2;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..12]), &newer[16..56]);
    newer[12..16].copy_from_slice(&crc.to_le_bytes());
    let Err(Fault::Refused(text)) = open_image(&newer).map(|_| ()) else { panic!("taken") };
    assert!(text.contains("format 2") && text.contains("reads format 1"), "{text}");
    let odd = WalOptions { segment_bytes: 5000, may_create: true };
    let opened = Wal::open(std::sync::Arc::new(MemDisk::new(0)), IDENTITY, odd);
    assert!(matches!(opened, Err(Fault::Refused(_))));
}

#[test]
fn the_format_is_what_it_was() {
    let contents = image().contents;
    let mut text = String::new();
    for (number, line) in contents.chunks(32).enumerate() {
        if line.iter().any(|&byte| byte != 0) && number * 32 % (BLOCK as usize) < 192 {
            let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!("{:05x} {hex}\n", number * 32);
        }
    }
    text += &format!("crc of all {:08x}\n", crc32c::crc32c(&contents));
    let golden = include_str!("segment_v1.golden");
    assert!(text == golden, "the log's format changed; if that is meant, raise WAL_FORMAT. Now:\n{text}");
}
