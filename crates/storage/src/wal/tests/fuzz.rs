//! Damaged segments whose checksums were made good again: what only the parsers stand against.

use super::images::image_bytes;
use super::{IDENTITY, SMALL};
use crate::disk::{BLOCK_BYTES, MemDisk};
use crate::wal::Wal;
use crate::wal::frame::{FRAME_HEADER_BYTES, MAGIC, frame_span};
use crate::wal::record::{Address, RECORD_HEADER_BYTES, seal_record};
use crate::wal::segment::{FIRST_FRAME, segment_name};

/// Recomputes the checksums of whatever looks like a frame, as if its writer had meant it.
fn reseal(segment: &mut [u8]) {
    let mut offset = FIRST_FRAME as usize;
    while let Some(frame) = segment.get_mut(offset..).filter(|frame| frame.len() >= FRAME_HEADER_BYTES) {
        if frame[..4] != MAGIC.to_le_bytes() {
            offset += BLOCK_BYTES;
            continue;
        }
        let address = Address { incarnation: IDENTITY.incarnation, segment: 1, offset: offset as u64 };
        let length = u32::from_le_bytes([frame[12], frame[13], frame[14], frame[15]]) as usize;
        if let Some(body) = frame.get_mut(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length) {
            reseal_records(body, address);
            let crc = crc32c::crc32c(body);
            frame[8..12].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = address.checksum(&frame[8..57]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        offset += usize::try_from(frame_span(length)).expect("a span of 32 bits").min(segment.len());
    }
}

fn reseal_records(body: &mut [u8], frame: Address) {
    let mut at = 0;
    while let Some(record) = body.get_mut(at..).filter(|record| record.len() >= RECORD_HEADER_BYTES) {
        let length = u32::from_le_bytes([record[4], record[5], record[6], record[7]]) as usize;
        let Some(record) = record.get_mut(..RECORD_HEADER_BYTES + length) else { return };
        seal_record(record, frame.plus((FRAME_HEADER_BYTES + at) as u64));
        at += RECORD_HEADER_BYTES + length;
    }
}

fn open(segment: &[u8]) {
    let disk = MemDisk::new(0);
    disk.put(&segment_name(1), segment);
    if let Ok((mut wal, log)) = Wal::open(std::sync::Arc::new(disk), IDENTITY, SMALL) {
        for group in log.groups().to_vec() {
            drop(log.group(&mut wal, group, kernel::Mark::default()));
        }
    }
}

#[test]
fn a_segment_is_read_or_refused() {
    let fuzz = fuzz::Fuzz::new("wal-segment", env!("CARGO_MANIFEST_DIR")).seed(image_bytes()).slow(20);
    fuzz.allocating(64 << 20).run(open);
}

#[test]
fn a_segment_with_good_checksums_is_read_or_refused() {
    let fuzz = fuzz::Fuzz::new("wal-segment-sealed", env!("CARGO_MANIFEST_DIR")).seed(image_bytes()).slow(20);
    fuzz.allocating(64 << 20).run(|input| {
        let mut segment = input.to_vec();
        reseal(&mut segment);
        open(&segment);
    });
}

/// If sealing were wrong the target above would test the checksums once more and nothing else.
#[test]
fn a_record_that_is_sealed_anew_is_believed() {
    let mut segment = image_bytes();
    // The promised round of the first record: behind both headers, its group is one byte.
    let promised = FIRST_FRAME as usize + FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + 1;
    assert_eq!(segment[promised], 1);
    segment[promised] = 2;
    let reread = |segment: &[u8]| {
        let disk = MemDisk::new(0);
        disk.put(&segment_name(1), segment);
        Wal::open(std::sync::Arc::new(disk), IDENTITY, SMALL).map(|_| ())
    };
    assert!(reread(&segment).is_err(), "the checksum should not match");
    reseal(&mut segment);
    assert_eq!(reread(&segment), Ok(()));
}
