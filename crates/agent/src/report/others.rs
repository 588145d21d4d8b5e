//! Reports of other machines, over the mesh: asked for part by part, so that no frame is long and nobody is sent what he did not ask for.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use muster_wire::limits::{REPORT_PART_BYTES_MAX, REPORT_PARTS_MAX};
use muster_wire::{CallNumber, Frame, MachineId};
use tokio::sync::oneshot;

use super::Report;

/// A report is made anew for whoever asks after this time; those who ask before get the same one.
const FRESH: Duration = Duration::from_secs(5);

/// Who has not been answered after this time is not any more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// Most questions that are answered at a time.
const ASKERS_MAX: usize = 16;

/// Longest report in bytes, as JSON.
const REPORT_BYTES_MAX: u64 = 64 << 20;

/// What came of a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// This part is to be sent.
    Part(Frame),
    /// A report is to be made first; the part is sent when it is there.
    Make,
    /// Nothing is sent: a part of none, or one is being made.
    Nothing,
}

/// The reports that this machine was asked for, and those that it asks for.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// This machine's own, compressed, and since when; nothing while it is being made, or is old.
    own: Option<(Bytes, Instant)>,
    /// Who waits for it, and the numbers of their questions.
    waiting: Vec<(MachineId, CallNumber)>,
    /// What is being sent to whom: all parts of one answer are of one report.
    going: BTreeMap<(MachineId, CallNumber), (Bytes, Instant)>,
    calls: CallNumber,
    /// What has come so far, from whom, for whom.
    coming: BTreeMap<CallNumber, Coming>,
}

#[derive(Debug)]
struct Coming {
    from: MachineId,
    parts: Vec<Bytes>,
    answer: oneshot::Sender<String>,
    since: Instant,
}

impl Others {
    /// Somebody is asked. What to send.
    pub(crate) fn ask(&mut self, machine: MachineId, answer: oneshot::Sender<String>) -> Frame {
        // Whoever asked has given up by then.
        self.coming.retain(|_, coming| !coming.answer.is_closed() && coming.since.elapsed() < PATIENCE);
        self.calls = self.calls.next();
        self.coming.insert(self.calls, Coming { from: machine, parts: Vec::new(), answer, since: Instant::now() });
        Frame::ReportCall { call: self.calls, part: 0 }
    }

    /// A member asks for a part.
    pub(crate) fn asked(&mut self, from: MachineId, call: CallNumber, part: u32) -> Asked {
        self.going.retain(|_, (_, since)| since.elapsed() < PATIENCE);
        self.own.take_if(|(_, at)| at.elapsed() >= FRESH);
        if let Some((bytes, _)) = self.going.get(&(from, call)) {
            return part_of(bytes, call, part).map_or(Asked::Nothing, Asked::Part);
        }
        if part > 0 || self.going.len() + self.waiting.len() >= ASKERS_MAX {
            return Asked::Nothing;
        }
        if let Some((bytes, _)) = self.own.clone() {
            return self.begin(from, call, bytes).map_or(Asked::Nothing, Asked::Part);
        }
        self.waiting.push((from, call));
        if self.waiting.len() == 1 { Asked::Make } else { Asked::Nothing }
    }

    fn begin(&mut self, from: MachineId, call: CallNumber, bytes: Bytes) -> Option<Frame> {
        let first = part_of(&bytes, call, 0);
        self.going.insert((from, call), (bytes, Instant::now()));
        first
    }

    /// This machine's own is made: what to send to whom.
    pub(crate) fn made(&mut self, bytes: Bytes) -> Vec<(MachineId, Frame)> {
        self.own = Some((bytes.clone(), Instant::now()));
        let waiting = std::mem::take(&mut self.waiting);
        waiting
            .into_iter()
            .filter_map(|(machine, call)| Some((machine, self.begin(machine, call, bytes.clone())?)))
            .collect()
    }

    /// A part has come. What to ask for next.
    pub(crate) fn came(
        &mut self,
        from: MachineId,
        call: CallNumber,
        part: u32,
        parts: u32,
        body: Bytes,
    ) -> Option<Frame> {
        let coming = self.coming.get_mut(&call).filter(|coming| coming.from == from)?;
        if part as usize != coming.parts.len() || parts == 0 {
            return None;
        }
        coming.parts.push(body);
        if part + 1 < parts {
            return Some(Frame::ReportCall { call, part: part + 1 });
        }
        let coming = self.coming.remove(&call)?;
        // The agent's one thread has heartbeats to send meanwhile.
        tokio::task::spawn_blocking(move || {
            // Whoever asked may have gone. What cannot be read is dropped with the question: it is then told to be unavailable.
            if let Ok(json) = unpacked(&coming.parts.concat()) {
                let _ = coming.answer.send(json);
            }
        });
        None
    }
}

fn part_of(bytes: &Bytes, call: CallNumber, part: u32) -> Option<Frame> {
    let parts = u32::try_from(bytes.len().div_ceil(REPORT_PART_BYTES_MAX).max(1)).ok()?;
    let from = part as usize * REPORT_PART_BYTES_MAX;
    let to = bytes.len().min(from + REPORT_PART_BYTES_MAX);
    (part < parts && parts <= REPORT_PARTS_MAX).then(|| Frame::ReportPart {
        call,
        part,
        parts,
        body: bytes.slice(from..to),
    })
}

/// A report as it is sent. Of one that is too long the longest files are left out, and named.
pub(crate) fn packed(report: &Report) -> Bytes {
    let mut report = report.clone();
    loop {
        let bytes = compressed(serde_json::json!(report).to_string().as_bytes());
        if bytes.len() <= REPORT_PART_BYTES_MAX * REPORT_PARTS_MAX as usize {
            return bytes.into();
        }
        let longest = report.iter().max_by_key(|(_, text)| text.len()).map(|(name, _)| name.clone());
        let Some(longest) = longest else { return Bytes::new() };
        report.remove(&longest);
        report.insert("left-out.txt".to_owned(), format!("{longest} was too long\n"));
    }
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Memory takes everything.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

fn unpacked(bytes: &[u8]) -> std::io::Result<String> {
    let mut text = String::new();
    GzDecoder::new(bytes).take(REPORT_BYTES_MAX).read_to_string(&mut text)?;
    serde_json::from_str::<Report>(&text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: MachineId = MachineId([1; 32]);
    const OTHER: MachineId = MachineId([2; 32]);

    /// Text that does not become shorter.
    fn noise(length: usize) -> String {
        let mut state = 1_u64;
        let mut digit = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(33 + (state >> 57) as u8 % 90)
        };
        (0..length).map(|_| digit()).collect()
    }

    #[tokio::test]
    async fn a_report_of_many_parts_comes_whole() {
        let report: Report = [("log.txt".to_owned(), noise(900 << 10))].into();
        let (mut asks, mut has) = (Others::default(), Others::default());
        let (answer, told) = oneshot::channel();
        let Frame::ReportCall { call, part } = asks.ask(OTHER, answer) else { panic!("a question") };
        assert_eq!(has.asked(ME, call, part), Asked::Make);
        assert_eq!(has.asked(ME, call.next(), part), Asked::Nothing, "it is being made");
        let mut answers = has.made(packed(&report));
        assert_eq!(answers.len(), 2, "both that asked are answered");
        let mut next = Some(answers.remove(0).1);
        // Another one is made meanwhile.
        has.made(packed(&Report::new()));
        let mut count = 0;
        while let Some(Frame::ReportPart { call, part, parts, body }) = next.take() {
            count += 1;
            assert!(asks.came(ME, call, part, parts, body.clone()).is_none(), "it was not asked");
            if let Some(Frame::ReportCall { call, part }) = asks.came(OTHER, call, part, parts, body) {
                let Asked::Part(frame) = has.asked(ME, call, part) else { panic!("the next part") };
                next = Some(frame);
            }
        }
        assert!(count > 1, "{count}");
        let told: Report = serde_json::from_str(&told.await.expect("told")).expect("a report");
        assert_eq!(told, report);
    }

    #[tokio::test]
    async fn nonsense_is_no_answer() {
        let mut asks = Others::default();
        let (answer, told) = oneshot::channel();
        asks.ask(OTHER, answer);
        assert!(asks.came(OTHER, CallNumber(1), 0, 1, Bytes::from_static(b"nonsense")).is_none());
        assert!(told.await.is_err());
        assert!(asks.came(OTHER, CallNumber(1), 0, 1, Bytes::new()).is_none(), "nobody waits any more");
    }
}
