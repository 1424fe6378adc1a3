//! A disk in memory that fails as disks do: what was not synced survives a crash by sectors, in any order; reads,
//! writes and syncs fail; space runs out; the length after a crash is the old one or the new one. All by a seed.

use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

const SECTOR: usize = 512;

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// One time in so many.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What goes wrong, after so many calls that change the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The power goes: this call and all later ones fail.
    Crash {
        after: u64,
    },
    /// One call fails with this error, and whatever comes after it works.
    Once {
        after: u64,
        error: ErrorKind,
    },
    /// One read fails after so many.
    Unreadable {
        after: u64,
    },
    /// The disk says that it is so much longer or shorter than it is.
    Lies {
        by: i64,
    },
    /// The disk is full at this size.
    Full {
        at_bytes: usize,
    },
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Crash { .. } => "crash",
            Self::Once { error: ErrorKind::StorageFull, .. } => "no space, once",
            Self::Once { .. } => "failed write or sync",
            Self::Unreadable { .. } => "failed read",
            Self::Lies { .. } => "lying length",
            Self::Full { .. } => "full",
        }
    }
}

impl Fault {
    /// The same of a file that is larger by so much.
    pub fn beyond(self, bytes: usize) -> Self {
        match self {
            Self::Full { at_bytes } => Self::Full { at_bytes: at_bytes + bytes },
            other => other,
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    Length(usize),
}

#[derive(Debug)]
struct State {
    /// What a crash leaves for certain.
    synced: Vec<u8>,
    /// What reads see.
    seen: Vec<u8>,
    pending: Vec<Change>,
    fault: Fault,
    calls: u64,
    crashed: bool,
    /// Whether what was to go wrong did.
    fired: bool,
}

/// Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub fn new(content: Vec<u8>, fault: Fault) -> Self {
        let (synced, seen) = (content.clone(), content);
        let state =
            State { synced, seen, pending: Vec::new(), fault, calls: 0, crashed: false, fired: false };
        Self(Arc::new(Mutex::new(state)))
    }

    /// What is there after the power has gone: each sector that was not synced has been written, or it has not.
    pub fn after_crash(&self, random: &mut Random) -> Vec<u8> {
        let state = self.0.lock();
        let mut content = state.synced.clone();
        let mut sectors = Vec::new();
        for change in &state.pending {
            match change {
                Change::Length(length) if random.one_in(2) => content.resize(*length, 0),
                Change::Length(_) => {}
                Change::Write { at, data } => {
                    let mut from = 0;
                    while from < data.len() {
                        let end = (((at + from) / SECTOR + 1) * SECTOR - at).min(data.len());
                        sectors.push((at + from, &data[from..end]));
                        from = end;
                    }
                }
            }
        }
        // A few, most, or any of them: each has its own bugs to show.
        let share = [1, 4, 8][usize::try_from(random.below(3)).unwrap_or(0)];
        // In any order: an older write to the same sector may be the last that got there.
        let reordered = random.one_in(2);
        for i in (1..sectors.len()).rev().filter(|_| reordered) {
            sectors.swap(i, usize::try_from(random.below(i as u64 + 1)).unwrap_or(0));
        }
        for (at, data) in sectors {
            if random.below(9) < share {
                if content.len() < at + data.len() {
                    content.resize(at + data.len(), 0);
                }
                content[at..at + data.len()].copy_from_slice(data);
            }
        }
        content
    }

    /// This goes wrong from now on, after so many calls more.
    pub fn fail(&self, fault: Fault) {
        let mut state = self.0.lock();
        (state.fault, state.calls) = (fault, 0);
    }

    /// Whether what goes wrong is that there is no room.
    pub fn may_be_full(&self) -> bool {
        matches!(self.0.lock().fault, Fault::Full { .. })
    }

    /// Whether what was to go wrong has gone wrong by now.
    pub fn has_failed(&self) -> bool {
        self.0.lock().fired
    }

    /// What is there when all went well.
    pub fn content(&self) -> Vec<u8> {
        self.0.lock().seen.clone()
    }
}

impl State {
    /// Counts a call that changes the disk, and fails it if its turn has come.
    fn turn(&mut self, grows_to: usize) -> Result<()> {
        if self.crashed {
            return Err(Error::other("the power is gone"));
        }
        self.calls += 1;
        match self.fault {
            Fault::Crash { after } if self.calls > after => {
                (self.crashed, self.fired) = (true, true);
                Err(Error::other("the power goes"))
            }
            Fault::Once { after, error } if self.calls > after => {
                (self.fault, self.fired) = (Fault::None, true);
                Err(error.into())
            }
            Fault::Full { at_bytes } if grows_to > at_bytes => {
                self.fired = true;
                Err(ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64> {
        let state = self.0.lock();
        let length = state.seen.len() as u64;
        Ok(match state.fault {
            Fault::Lies { by } => length.saturating_add_signed(by),
            _ => length,
        })
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let mut state = self.0.lock();
        if state.crashed {
            return Err(Error::other("the power is gone"));
        }
        if let Fault::Unreadable { after } = &mut state.fault {
            match after.checked_sub(1) {
                Some(left) => *after = left,
                None => {
                    (state.fault, state.fired) = (Fault::None, true);
                    return Err(Error::other("the sector cannot be read"));
                }
            }
        }
        let at = usize::try_from(offset).map_err(Error::other)?;
        let from = state.seen.get(at..at + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut state = self.0.lock();
        let length = usize::try_from(len).map_err(Error::other)?;
        state.turn(length)?;
        state.seen.resize(length, 0);
        state.pending.push(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut state = self.0.lock();
        state.turn(0)?;
        state.synced = state.seen.clone();
        state.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut state = self.0.lock();
        let at = usize::try_from(offset).map_err(Error::other)?;
        if state.turn(0).is_err() {
            // The part of it that got out.
            let state = &mut *state;
            state.pending.push(Change::Write { at, data: data[..data.len() / 2].to_vec() });
            return Err(Error::other("the write did not come to its end"));
        }
        if state.seen.len() < at + data.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        state.seen[at..at + data.len()].copy_from_slice(data);
        state.pending.push(Change::Write { at, data: data.to_vec() });
        Ok(())
    }
}
