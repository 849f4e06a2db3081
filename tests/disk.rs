//! Disks that are full and disks that lie: a clear message, nothing lost, and a node that works again once it can.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::client::prefix_request;
use crate::cluster::{Cluster, is_reference};
use crate::run;

/// Room for a few log segments and the engine.
const SMALL_DISK: &str = "size=512m";
/// Writes of [`LARGE`] bytes that overflow any free space left in files that exist already.
const LARGE_WRITES_MAX: usize = 800;
const LARGE: usize = 1_000_000;
/// The log is written in blocks of this size; damage hits the start of one.
const BLOCK: u64 = 4096;

/// A file system of its own for one data directory; goes when dropped.
pub(crate) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// `None` if this machine does not let the test mount anything.
    pub(crate) fn mount(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).expect("a mount point");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", SMALL_DISK, "tmpfs"]).arg(path);
        let mounted = command.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self { path: path.to_owned() })
    }

    /// Takes all the room that is left; the file gives it back when deleted.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.path.join("ballast");
        let mut file = File::create(&path).expect("a file on the small disk");
        for size in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A lazy unmount cannot fail on a node that is just dying.
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}

#[test]
fn full_disk_is_named_loses_nothing_and_ends_with_the_space_given_back() {
    run(async {
        let mut cluster = Cluster::prepare(1, &[]);
        let data_dir = cluster.nodes[0].data_dir.clone();
        let Some(disk) = SmallDisk::mount(&data_dir) else {
            eprintln!("SKIPPED: mounting a tmpfs is not permitted here, so no disk can be filled");
            return;
        };
        cluster.restart(0);
        cluster.wait_ready().await;
        let node = cluster.client(0).with_timeout(Duration::from_secs(20));
        node.put("full/0", "before").await.expect("a put");

        let ballast = disk.fill();
        let mut acknowledged = 1;
        let mut said = None;
        for at in 1..=LARGE_WRITES_MAX {
            match node.put(&format!("full/{at}"), vec![b'x'; LARGE]).await {
                Ok(_) => acknowledged += 1,
                Err(status) => {
                    said = Some(status);
                    break;
                }
            }
        }
        let said = said.unwrap_or_else(|| panic!("{acknowledged} large writes fitted on a full disk"));
        // A node that cannot write its log stops, or refuses writes by name; either way it says why.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let stopped = cluster.exited(0);
        let words = format!("{said} {}", cluster.output(0)).to_lowercase();
        assert!(words.contains("no space left") || words.contains("space exceeded"), "{said:?}, stopped: {stopped:?}");
        let named = cluster.output(0).contains(&format!("failed on {}", data_dir.display()));
        assert!(named || is_reference(), "the message must name the file:\n{words}");
        if let Some(status) = stopped {
            assert!(!status.success(), "stopping for want of space is a failure: {status}");
        }

        fs::remove_file(ballast).expect("giving the space back");
        if stopped.is_none() {
            cluster.kill(0);
        }
        cluster.restart(0);
        cluster.wait_ready().await;
        let node = cluster.client(0);
        let answer = node.range(prefix_request("full/")).await.expect("a range");
        let stored = usize::try_from(answer.count).expect("a count");
        // The write that failed may have reached the log before the space ran out.
        assert!(stored == acknowledged || stored == acknowledged + 1, "{stored} stored, {acknowledged} acknowledged");
        for pair in &answer.kvs {
            let expected: &[u8] = if pair.key == "full/0".as_bytes() { b"before" } else { &[b'x'; LARGE] };
            assert!(pair.value == expected, "{:?} came back changed", pair.key);
        }
        node.put("full/after", "1").await.expect("a put after the space is back");
    });
}

/// The log's segments of a node, oldest first.
fn segments(data_dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![data_dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the data directory") {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if folder.file_name() == Some(OsStr::new("wal"))
                && path.extension().is_some_and(|extension| extension == "log" || extension == "wal")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no log segment below {}", data_dir.display());
    found
}

/// The offset behind the last byte that is not zero.
fn written(segment: &Path) -> u64 {
    let bytes = fs::read(segment).expect("a segment");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1)
}

/// The last segment with a record: one that was just begun has a header only.
fn last_written(data_dir: &Path) -> PathBuf {
    segments(data_dir).into_iter().rfind(|segment| written(segment) > BLOCK).expect("a segment with a record")
}

/// Inverts `count` bytes of a file and returns what stood there.
fn invert(file: &Path, offset: u64, count: usize) -> Vec<u8> {
    let handle = OpenOptions::new().read(true).write(true).open(file).expect("a segment");
    let mut bytes = vec![0; count];
    handle.read_exact_at(&mut bytes, offset).expect("bytes of the segment");
    let inverted: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
    handle.write_all_at(&inverted, offset).expect("a damaged segment");
    bytes
}

#[test]
fn damaged_log_is_refused_by_name_and_the_undamaged_one_starts() {
    run(async {
        let mut cluster = Cluster::start(1).await;
        for at in 0..200 {
            cluster.client(0).put(&format!("rot/{at:03}"), vec![b'v'; 500]).await.expect("a put");
        }
        cluster.kill(0);

        let segment = segments(&cluster.nodes[0].data_dir).remove(0);
        let offset = written(&segment) / 2 / BLOCK * BLOCK;
        assert!(offset >= BLOCK, "the log is too short for this test");
        let good = invert(&segment, offset, 256);
        cluster.restart(0);
        let status = cluster.wait_exit(0).await;
        assert!(!status.success(), "a node with a damaged log must not start: {status}");
        if !is_reference() {
            let output = cluster.output(0);
            let file = segment.file_name().and_then(OsStr::to_str).expect("a file name");
            let complaint = output.lines().find(|line| line.contains(file) && line.contains("damaged"));
            let complaint = complaint.unwrap_or_else(|| panic!("no complaint names {file}:\n{output}"));
            let named = complaint.split("at byte ").nth(1).and_then(|rest| {
                let digits = rest.chars().take_while(char::is_ascii_digit).collect::<String>();
                digits.parse::<u64>().ok()
            });
            let named = named.unwrap_or_else(|| panic!("no offset in {complaint}"));
            assert!(
                named <= offset + 256 && offset <= named + (4 << 20),
                "damage at {offset}, complaint about {named}"
            );
            assert!(complaint.contains("data directory"), "no advice in {complaint}");
        }

        let handle = OpenOptions::new().write(true).open(&segment).expect("a segment");
        handle.write_all_at(&good, offset).expect("the segment as it was");
        cluster.restart(0);
        cluster.wait_ready().await;
        let answer = cluster.client(0).range(prefix_request("rot/")).await.expect("a range");
        assert_eq!(answer.count, 200, "refusing to start must not have changed anything");
    });
}

#[test]
fn torn_tail_of_the_log_is_dropped_and_the_node_starts() {
    if is_reference() {
        return; // Takes a half-written record for damage.
    }
    run(async {
        let mut cluster = Cluster::start(1).await;
        for at in 0..100 {
            cluster.client(0).put(&format!("torn/{at:03}"), vec![b'v'; 500]).await.expect("a put");
        }
        cluster.kill(0);
        // A write that the power cut short: the last bytes of the log are still zero.
        let segment = last_written(&cluster.nodes[0].data_dir);
        let end = written(&segment);
        let handle = OpenOptions::new().write(true).open(&segment).expect("a segment");
        handle.write_all_at(&[0; 16], end - 16).expect("a torn segment");
        cluster.restart(0);
        cluster.wait_ready().await;
        let node = cluster.client(0);
        let answer = node.range(prefix_request("torn/")).await.expect("a range");
        // Only what stood in the torn write may be gone, and it was the last one.
        assert!(answer.count >= 99, "{} of 100 left", answer.count);
        node.put("torn/after", "1").await.expect("a put behind the tear");

        // The tear is behind us: another crash finds a log without one.
        cluster.kill(0);
        cluster.restart(0);
        cluster.wait_ready().await;
        let again = cluster.client(0).range(prefix_request("torn/")).await.expect("a range");
        assert_eq!(again.count, answer.count + 1);
    });
}

/// Garbage that a torn write left behind the last whole record is not a record.
#[test]
fn garbage_behind_the_end_of_the_log_is_ignored() {
    if is_reference() {
        return;
    }
    run(async {
        let mut cluster = Cluster::start(1).await;
        for at in 0..50 {
            cluster.client(0).put(&format!("tail/{at:03}"), "v").await.expect("a put");
        }
        cluster.kill(0);
        let segment = last_written(&cluster.nodes[0].data_dir);
        let next_block = written(&segment).div_ceil(BLOCK) * BLOCK;
        let handle = OpenOptions::new().write(true).open(&segment).expect("a segment");
        let garbage: Vec<u8> = (0..3_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        handle.write_all_at(&garbage, next_block).expect("garbage behind the end");
        cluster.restart(0);
        cluster.wait_ready().await;
        let answer = cluster.client(0).range(prefix_request("tail/")).await.expect("a range");
        assert_eq!(answer.count, 50);
    });
}
