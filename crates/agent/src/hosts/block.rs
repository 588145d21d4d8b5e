//! muster's block in a hosts file: where it stands, and what else the file says of the name. Bytes, not text: the file is
//! the user's, and a comment in it may have any encoding (hosts(5), and glibc's parser, ask for none).

use std::net::IpAddr;

/// Longest part of another's line that is repeated to people, in characters.
const SHOWN: usize = 80;

/// What muster's block says.
pub(super) struct Block<'a> {
    /// The cluster's name, which both marks carry: a block of another cluster is none of this one's business.
    pub(super) cluster: &'a str,
    /// The name that is to mean this machine.
    pub(super) name: &'a str,
    /// This machine.
    pub(super) address: IpAddr,
}

/// What becomes of a file.
pub(super) struct Edited {
    /// The file with the block in it.
    pub(super) after: Vec<u8>,
    /// Lines of others that give the name another address.
    pub(super) others: Vec<Other>,
}

/// A line of somebody else's.
pub(super) struct Other {
    /// Its number in the new file, from 1.
    pub(super) line: usize,
    /// The line, or its beginning.
    pub(super) text: String,
}

impl Block<'_> {
    /// Puts the block where it was, or at the end; in any case before other lines of its name, since the first one counts
    /// for most programs. Every line that muster did not write stays, byte for byte; only a last line without an end gets
    /// one if the block comes after it.
    pub(super) fn put_into(&self, before: &[u8]) -> Edited {
        let lines: Vec<&[u8]> = before.split_inclusive(|byte| *byte == b'\n').collect();
        let ours = self.ours(&lines);
        let differs = |line: &[u8]| self.address_in(line).is_some_and(|address| address != Some(self.address));
        let rest: Vec<(usize, &[u8])> =
            lines.iter().enumerate().filter(|(at, _)| !ours[*at]).map(|(at, line)| (at, *line)).collect();
        let other = rest.iter().find(|(_, line)| differs(line)).map(|(at, _)| *at);
        let place = ours.iter().position(|ours| *ours).into_iter().chain(other).min().unwrap_or(lines.len());

        let (mut after, mut others, mut number, mut placed) = (Vec::new(), Vec::new(), 1, false);
        for (at, line) in rest {
            if at >= place && !placed {
                number += self.append(&mut after);
                placed = true;
            }
            if differs(line) {
                let text = String::from_utf8_lossy(line.trim_ascii()).chars().take(SHOWN).collect();
                others.push(Other { line: number, text });
            }
            after.extend_from_slice(line);
            number += 1;
        }
        if !placed {
            self.append(&mut after);
        }
        Edited { after, others }
    }

    /// Appends the block. Returns its number of lines.
    fn append(&self, after: &mut Vec<u8>) -> usize {
        if after.last().is_some_and(|last| *last != b'\n') {
            after.push(b'\n');
        }
        let lines = [self.begin(), format!("{} {}", self.address, self.name), self.end()];
        for line in &lines {
            after.extend_from_slice(line.as_bytes());
            after.push(b'\n');
        }
        lines.len()
    }

    fn begin(&self) -> String {
        format!("# begin muster {}", self.cluster)
    }

    fn end(&self) -> String {
        format!("# end muster {}", self.cluster)
    }

    /// Which lines muster wrote: the marks, the first line between them that has the form of its own (without an end mark
    /// only the one right after the beginning), and the marked line of before there were blocks.
    fn ours(&self, lines: &[&[u8]]) -> Vec<bool> {
        let (begin, end) = (self.begin(), self.end());
        let is = |line: &[u8], mark: &str| line.trim_ascii_end() == mark.as_bytes();
        let mut ours = vec![false; lines.len()];
        for (at, line) in lines.iter().enumerate() {
            ours[at] |= is(line, &begin) || is(line, &end) || self.is_old(line);
            if is(line, &begin) {
                let inside = lines[at + 1..].iter().take_while(|line| !is(line, &begin));
                let closed = inside.clone().position(|line| is(line, &end));
                let body = inside.take(closed.unwrap_or(1)).position(|line| self.is_body(line));
                if let Some(body) = body {
                    ours[at + 1 + body] = true;
                }
            }
        }
        ours
    }

    fn is_body(&self, line: &[u8]) -> bool {
        let mut words = words(line);
        let address = words.next().is_some_and(|word| parse(word).is_some());
        address && words.next() == Some(self.name.as_bytes()) && words.next().is_none()
    }

    /// `10.0.0.1 api.CLUSTER.muster # muster`, and nothing else.
    fn is_old(&self, line: &[u8]) -> bool {
        line.trim_ascii_end().strip_suffix(b" # muster").is_some_and(|line| self.is_body(line))
    }

    /// What a line gives the name: none if the line is not about it, else its address, if that is one. Names have no case
    /// (RFC 1123, section 2.1, and RFC 4343).
    fn address_in(&self, line: &[u8]) -> Option<Option<IpAddr>> {
        let line = line.split(|byte| *byte == b'#').next()?;
        let mut words = words(line);
        let address = words.next()?;
        // A name may end in the root's dot.
        let name = |word: &[u8]| word.strip_suffix(b".").unwrap_or(word).eq_ignore_ascii_case(self.name.as_bytes());
        words.any(name).then(|| parse(address))
    }
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn parse(word: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "# begin muster site\n10.0.0.1 api.site.muster\n# end muster site\n";

    fn put(before: &[u8]) -> (Vec<u8>, Vec<String>) {
        let address = "10.0.0.1".parse().expect("an address");
        let block = Block { cluster: "site", name: "api.site.muster", address };
        let edited = block.put_into(before);
        let again = block.put_into(&edited.after);
        assert_eq!(String::from_utf8_lossy(&again.after), String::from_utf8_lossy(&edited.after));
        let lines: Vec<&[u8]> = edited.after.split(|byte| *byte == b'\n').collect();
        let others = edited.others.iter().map(|other| {
            let shown = String::from_utf8_lossy(lines[other.line - 1].trim_ascii()).into_owned();
            assert!(shown.starts_with(&other.text), "line {} is {shown:?}", other.line);
            other.text.clone()
        });
        (edited.after.clone(), others.collect())
    }

    fn text(before: &str) -> String {
        String::from_utf8(put(before.as_bytes()).0).expect("is text")
    }

    #[test]
    fn the_block_stands_where_it_stood_and_once() {
        assert_eq!(text(""), BLOCK);
        assert_eq!(text("::1 localhost\n"), format!("::1 localhost\n{BLOCK}"));
        assert_eq!(text("::1 localhost"), format!("::1 localhost\n{BLOCK}"));
        let former = BLOCK.replace("10.0.0.1", "fd00::7");
        assert_eq!(text(&format!("a\n{former}b\n{former}c\n")), format!("a\n{BLOCK}b\nc\n"));
        // Without its end, its beginning, or its line.
        assert_eq!(text("# begin muster site\n10.0.0.9 api.site.muster\nb\n"), format!("{BLOCK}b\n"));
        assert_eq!(text("a\n# end muster site\nb\n"), format!("a\n{BLOCK}b\n"));
        assert_eq!(text("# begin muster site\n# end muster site\n"), BLOCK);
    }

    #[test]
    fn an_older_line_of_this_cluster_is_replaced_and_nobody_elses() {
        assert_eq!(text("a\n10.0.0.9 api.site.muster # muster\nb\n"), format!("a\n{BLOCK}b\n"));
        for line in [
            "10.1.1.2 scanner # muster\n",
            "10.0.0.9 api.other.muster # muster\n",
            "10.0.0.1 api.site.muster mine # muster\n",
            "# begin muster other\n10.0.0.9 api.other.muster\n# end muster other\n",
            "# begin muster site 2\n",
        ] {
            assert_eq!(text(line), format!("{line}{BLOCK}"));
        }
        let kept = "# begin muster site\n# by hand\n10.1.1.2 scanner\n10.0.0.9 api.site.muster\n# end muster site\n";
        assert_eq!(text(kept), format!("{BLOCK}# by hand\n10.1.1.2 scanner\n"));
    }

    #[test]
    fn other_bytes_and_line_endings_stay() {
        let before = b"127.0.0.1 localhost # b\xfcro\r\n\r\n\t# \xff\xfe\r\n10.0.0.5 x";
        let (after, others) = put(before);
        assert_eq!(after, [&before[..], b"\n", BLOCK.as_bytes()].concat());
        assert!(others.is_empty());
    }

    #[test]
    fn other_lines_of_the_name_come_after_and_are_named() {
        let (after, others) = put(b"a\n10.9.9.9\tx API.site.muster # why\r\n10.0.0.1 api.site.muster\n");
        assert_eq!(others, ["10.9.9.9\tx API.site.muster # why"]);
        let after = String::from_utf8(after).expect("is text");
        assert!(after.starts_with(&format!("a\n{BLOCK}10.9.9.9")), "{after}");
        // Below the block, with an address that is none, and in a comment.
        let (after, others) = put(format!("{BLOCK}nonsense api.site.muster\n# 10.9.9.9 api.site.muster\n").as_bytes());
        assert_eq!(others, ["nonsense api.site.muster"]);
        assert!(after.starts_with(BLOCK.as_bytes()));
        let (_, others) = put(b"10.9.9.9 api.site.muster.\n");
        assert_eq!(others, ["10.9.9.9 api.site.muster."]);
        let (_, others) = put(b"10.9.9.9 api.site.muster.example api.site\n10.9.9.9 xapi.site.muster\n");
        assert!(others.is_empty(), "{others:?}");
    }
}
