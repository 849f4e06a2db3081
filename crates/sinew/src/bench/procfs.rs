//! Processor time and memory of the servers under load, as the kernel accounts them, when they run on this machine.
//!
//! Invariant: a sum is given only if every server of the side was found and is still there; half a cluster's processor
//! time would look like a fast cluster. Parsers are pure functions over the text of `/proc`. Used by [`super::side`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Length of one tick of `/proc/*/stat`. Linux fixes the user-visible tick at 100 per second on the machines it still
/// supports, whatever the kernel's own tick is. It is also the resolution: phases of a second or more have figures
/// worth reading, phases of a tenth of that do not.
const TICK: Duration = Duration::from_millis(10);
/// State of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// A server process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Pid(pub(super) u32);

/// The processes of one side; empty if they are not on this machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers {
    pids: BTreeSet<Pid>,
}

impl Servers {
    /// The processes given by the user.
    ///
    /// # Errors
    /// A sentence for the user, if one does not exist.
    pub(super) fn given(pids: &[u32]) -> Result<Self, String> {
        let pids: BTreeSet<_> = pids.iter().copied().map(Pid).collect();
        for pid in &pids {
            cpu_time(*pid).map_err(|error| format!("--server-pids: process {}: {error}", pid.0))?;
        }
        Ok(Self { pids })
    }

    /// The processes that listen at `addresses` (`host:port`), or a sentence why they cannot be measured.
    pub(super) fn listening(addresses: &[&str]) -> Result<Self, String> {
        let sockets = sockets_by_inode().map_err(|error| format!("/proc cannot be read: {error}"))?;
        let mut pids = BTreeSet::new();
        for address in addresses {
            let inodes = listeners(address).map_err(|error| format!("{address}: {error}"))?;
            if inodes.is_empty() {
                return Err(format!("{address} is not on this machine"));
            }
            let found: BTreeSet<_> = inodes.iter().filter_map(|inode| sockets.get(inode)).flatten().copied().collect();
            if found.is_empty() {
                return Err(format!("the process that listens at {address} belongs to somebody else"));
            }
            pids.extend(found);
        }
        Ok(Self { pids })
    }

    /// Processor time of all processes since they started; none if there are none, or one is gone.
    pub(super) fn cpu_time(&self) -> Option<Duration> {
        if self.pids.is_empty() {
            return None;
        }
        self.pids.iter().map(|pid| cpu_time(*pid).ok()).sum()
    }

    /// Resident memory in bytes by process; none if there are no processes, or one is gone.
    pub(super) fn resident_bytes(&self) -> Option<Vec<(Pid, u64)>> {
        if self.pids.is_empty() {
            return None;
        }
        self.pids.iter().map(|pid| Some((*pid, resident_of(*pid).ok()?))).collect()
    }
}

/// Processor time of this process since it started.
pub(super) fn own_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("processor time is not negative");
    let nanoseconds = u32::try_from(time.tv_nsec).expect("below one second");
    Duration::new(seconds, nanoseconds)
}

fn cpu_time(pid: Pid) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.0))?;
    let ticks = cpu_ticks(&text).ok_or_else(|| unreadable("stat"))?;
    Ok(TICK * u32::try_from(ticks).map_err(|_| unreadable("stat"))?)
}

fn resident_of(pid: Pid) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/status", pid.0))?;
    resident_bytes(&text).ok_or_else(|| unreadable("status"))
}

fn unreadable(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/PID/{file} has another form than expected"))
}

/// Inodes of the sockets that listen at `address`.
fn listeners(address: &str) -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for resolved in address.to_socket_addrs()? {
        // Binding is the simplest way to ask whether an address is one of ours.
        if UdpSocket::bind((resolved.ip(), 0)).is_err() {
            continue;
        }
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let text = match fs::read_to_string(table) {
                Ok(text) => text,
                // No such table: the kernel has that protocol switched off.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            inodes.extend(listening_inodes(&text, resolved.ip(), resolved.port()));
        }
    }
    Ok(inodes)
}

/// Which processes hold each socket, of the processes this user may look into.
fn sockets_by_inode() -> io::Result<BTreeMap<u64, Vec<Pid>>> {
    let mut holders: BTreeMap<u64, Vec<Pid>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Pid) else { continue };
        // Not readable: somebody else's process, or one that has just ended. Either way it is not counted, and
        // `listening` reports an endpoint left without a process.
        let Ok(files) = fs::read_dir(entry.path().join("fd")) else { continue };
        for file in files.flatten() {
            let link = fs::read_link(file.path());
            if let Some(inode) = link.ok().as_deref().and_then(socket_inode) {
                holders.entry(inode).or_default().push(pid);
            }
        }
    }
    Ok(holders)
}

/// Inodes of the sockets of a `/proc/net/tcp` or `tcp6` table that listen on `port` at `ip`, or at any address.
fn listening_inodes(table: &str, ip: IpAddr, port: u16) -> Vec<u64> {
    let row = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (address, port_text) = address.split_once(':')?;
        if *state != LISTENING || u16::from_str_radix(port_text, 16) != Ok(port) {
            return None;
        }
        let local = kernel_address(address)?;
        if local.is_unspecified() || local == ip { inode.parse().ok() } else { None }
    };
    table.lines().filter_map(row).collect()
}

/// An address as the kernel prints it: 32-bit words in hexadecimal, each in the byte order of the machine.
fn kernel_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (index, target) in bytes.chunks_exact_mut(4).enumerate() {
                target.copy_from_slice(&word(index * 8)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// The inode in a link like `socket:[4711]`.
fn socket_inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// User plus system ticks in the text of `/proc/PID/stat`.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name, in parentheses, may itself contain spaces and parentheses; nothing after it does.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// Resident bytes in the text of `/proc/PID/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener};
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::{Pid, Servers, cpu_ticks, listening_inodes, own_cpu_time, resident_bytes, socket_inode};

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:305B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 23456 1 0000 100 0 0 10 0
   1: 0100007F:305B 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 99999 1 0000 20 4 30 10 -1
   2: 00000000:305B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 34567 1 0000 100 0 0 10 0
   3: 0200007F:305B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 45678 1 0000 100 0 0 10 0
   4: 0100007F:305C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 56789 1 0000 100 0 0 10 0
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
   0: 00000000000000000000000000000000:094B 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 111 1
   1: 00000000000000000000000001000000:094B 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 222 1
   2: 0000000000000000FFFF00000100007F:094B 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 333 1
";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_on_the_address_or_on_any_are_found() {
        assert_eq!(listening_inodes(TCP, ip("127.0.0.1"), 12379), [23456, 34567]);
        assert_eq!(listening_inodes(TCP, ip("127.0.0.1"), 12380), [56789]);
        assert_eq!(listening_inodes(TCP, ip("127.0.0.1"), 1), [0_u64; 0]);
        assert_eq!(listening_inodes(TCP6, ip("::1"), 2379), [111, 222]);
        assert_eq!(listening_inodes(TCP6, ip("127.0.0.1"), 2379), [111, 333]);
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat =
            "77 (a) R (b) S 1 77 77 0 -1 4194560 5 6 7 8 120 34 0 0 20 0 9 0 1000 2000 300 1844 1 1 0 0 0 0 0 0 0";
        assert_eq!(cpu_ticks(stat), Some(154));
        assert_eq!(cpu_ticks("77 (short) S 1"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(resident_bytes("Name:\tx\nVmHWM:\t   99 kB\nVmRSS:\t    12 kB\n"), Some(12_288));
        assert_eq!(resident_bytes("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn only_socket_links_have_an_inode() {
        assert_eq!(socket_inode(Path::new("socket:[4711]")), Some(4711));
        assert_eq!(socket_inode(Path::new("pipe:[4711]")), None);
        assert_eq!(socket_inode(Path::new("/dev/null")), None);
    }

    #[test]
    fn this_process_is_found_behind_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let servers = Servers::listening(&[&address]).unwrap();
        assert_eq!(servers.pids.iter().copied().collect::<Vec<_>>(), [Pid(std::process::id())]);
        let resident = servers.resident_bytes().unwrap();
        assert!(resident[0].1 > 100_000, "{resident:?}");
        let (before, started) = (own_cpu_time(), Instant::now());
        while own_cpu_time() - before < Duration::from_millis(30) {
            assert!(started.elapsed() < Duration::from_secs(60), "a busy loop must use processor time");
        }
        assert!(servers.cpu_time().unwrap() >= Duration::from_millis(20));
    }

    #[test]
    fn an_endpoint_without_listener_is_not_measured() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert!(Servers::listening(&[&address]).unwrap_err().contains("not on this machine"));
        assert!(Servers::given(&[u32::MAX]).unwrap_err().contains("--server-pids"));
        assert_eq!(Servers::default().cpu_time(), None);
    }
}
