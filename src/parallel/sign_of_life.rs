//! Messages between the watchdogs of the ranks: whether a rank waits, for what, or works.

use bytemuck::{Pod, Zeroable};
use mpi::point_to_point::{Destination, Source};
use mpi::request::{Request, StaticScope};
use mpi::topology::{Communicator, SimpleCommunicator};

/// Bytes of the text of a message; longer texts are cut.
const TEXT: usize = 80;

/// What a rank does, as its watchdog reports it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Report {
    /// It waits for this, for so many seconds.
    Waits(String, f64),
    /// It works, and has last used CPU time, read or written so many seconds ago.
    Works(f64),
    /// It ends the job, and has said why.
    Ends,
}

/// [`Message::kind`] of each report.
const WORKS: u32 = 0;
const WAITS: u32 = 1;
const ENDS: u32 = 2;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Message {
    seconds: f64,
    kind: u32,
    length: u32,
    text: [u8; TEXT],
}

impl Message {
    fn of(report: &Report) -> Self {
        let mut message = Self::zeroed();
        match report {
            Report::Works(seconds) => message.seconds = *seconds,
            Report::Ends => message.kind = ENDS,
            Report::Waits(what, seconds) => {
                let length = what.len().min(TEXT);
                (message.seconds, message.kind, message.length) = (*seconds, WAITS, length as u32);
                message.text[..length].copy_from_slice(&what.as_bytes()[..length]);
            }
        }
        message
    }

    fn report(&self) -> Report {
        match self.kind {
            WORKS => return Report::Works(self.seconds),
            ENDS => return Report::Ends,
            _ => {}
        }
        let text = &self.text[..(self.length as usize).min(TEXT)];
        Report::Waits(String::from_utf8_lossy(text).into_owned(), self.seconds)
    }
}

/// A message on its way, with its memory.
struct Sending {
    request: Option<Request<'static, [u8], StaticScope>>,
    memory: *mut [u8],
}

/// The connection of a watchdog with those of all other ranks.
pub(super) struct Channel {
    ranks: SimpleCommunicator,
    /// Host of each rank.
    hosts: Vec<String>,
    /// The last message to each rank, if it has not left yet.
    sending: Vec<Option<Sending>>,
    /// A rank has told that it ends the job.
    ended: bool,
}

// SAFETY: the communicator is used by one thread at a time, under the lock of `Watch`.
unsafe impl Send for Channel {}

impl Channel {
    /// Over the ranks of `ranks`, a communicator of its own; `hosts` are theirs.
    pub fn new(ranks: SimpleCommunicator, hosts: Vec<String>) -> Self {
        let sending = hosts.iter().map(|_| None).collect();
        Self { ranks, hosts, sending, ended: false }
    }

    pub fn rank(&self) -> usize {
        self.ranks.rank() as usize
    }

    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Sends `report` to rank `rank`, unless the last message to it has not left. Does not wait.
    pub fn send(&mut self, rank: usize, report: &Report) {
        if !self.has_left(rank) {
            return;
        }
        let memory = Box::into_raw(Box::<[u8]>::from(bytemuck::bytes_of(&Message::of(report))));
        // SAFETY: the memory lives until the message has left; see `has_left`.
        let bytes: &'static [u8] = unsafe { &*memory };
        let request = self.ranks.process_at_rank(rank as i32).immediate_send(StaticScope, bytes);
        self.sending[rank] = Some(Sending { request: Some(request), memory });
    }

    /// Tells all other ranks that this one ends the job.
    pub fn announce_end(&mut self) {
        let own = self.rank();
        (0..self.hosts.len()).filter(|&rank| rank != own).for_each(|rank| self.send(rank, &Report::Ends));
    }

    fn has_left(&mut self, rank: usize) -> bool {
        let Some(sending) = &mut self.sending[rank] else { return true };
        if let Some(Err(incomplete)) = sending.request.take().map(Request::test) {
            sending.request = Some(incomplete);
            return false;
        }
        // SAFETY: made by `Box::into_raw` in `send`, and MPI has finished reading it.
        drop(unsafe { Box::from_raw(sending.memory) });
        self.sending[rank] = None;
        true
    }

    /// Whether a message received so far told that its rank ends the job.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Receives all messages for no other purpose, and returns whether a rank ends the job.
    pub fn hears_of_an_end(&mut self) -> bool {
        while self.receive().is_some() {}
        self.ended
    }

    /// The next message that has arrived, and the rank that has sent it. Does not wait.
    pub fn receive(&mut self) -> Option<(usize, Report)> {
        let status = self.ranks.any_process().immediate_probe()?;
        let sender = status.source_rank();
        let mut message = Message::zeroed();
        let bytes: &mut [u8] = bytemuck::bytes_of_mut(&mut message);
        self.ranks.process_at_rank(sender).receive_into(bytes);
        let report = message.report();
        self.ended |= report == Report::Ends;
        Some((sender as usize, report))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        while self.receive().is_some() {}
        for rank in 0..self.sending.len() {
            if !self.has_left(rank) {
                // Its rank is gone. MPI may still read the memory.
                std::mem::forget(self.sending[rank].take().and_then(|sending| sending.request));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_arrive_as_they_were_sent() {
        for report in
            [Report::Works(2.5), Report::Ends, Report::Waits("the sum of the gradients".into(), 7.0)]
        {
            assert_eq!(Message::of(&report).report(), report);
        }
        let long = Message::of(&Report::Waits("x".repeat(TEXT + 9), 1.0)).report();
        assert_eq!(long, Report::Waits("x".repeat(TEXT), 1.0));
    }
}
