//! How etcd begins on several machines at once: all are given one list and one token, and a majority of them begins. One that comes later
//! finds the others at it. What etcd leaves to Raft is a vote here: the founder with the lowest name of those that are there begins, if a majority lets it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::failure::{Failure, fail};
use crate::machine::Machine;
use crate::server::{Server, lock};
use crate::state::{Member, Refusal, State};

/// Pause between two looks at the others.
const PAUSE: Duration = Duration::from_millis(50);

/// So long nobody else is let begin: longer than it takes to ask everybody.
const VOTE: Duration = Duration::from_secs(10);

/// The token and the members that a ClusterConfiguration's arguments name, if they do.
pub(crate) fn of(machine: &Machine<'_>, cluster: &Value) -> Result<Option<(String, Vec<Member>)>, Failure> {
    let arguments = &cluster["etcd"]["local"]["extraArgs"];
    let said = |name: &str| match arguments {
        Value::Array(list) => list.iter().find(|argument| argument["name"] == name)?["value"].as_str(),
        map => map[name].as_str(),
    };
    let (Some(list), Some(token)) = (said("initial-cluster"), said("initial-cluster-token")) else { return Ok(None) };
    let member = |member: &str| {
        let (name, url) = member.split_once("=https://")?;
        let (host, _) = url.rsplit_once(':')?;
        Some(Member { name: name.to_owned(), address: format!("{host}:{}", machine.port), started: false })
    };
    let members: Option<Vec<Member>> = list.split(',').map(member).collect();
    let members = members.ok_or_else(|| fail(format!("error setting up initial cluster: {list:?}")))?;
    if !members.contains(&machine.as_member()) {
        return Err(fail(format!("couldn't find local name {:?} in the initial cluster configuration", machine.name)));
    }
    Ok(Some((token.to_owned(), members)))
}

impl Server {
    /// Returns true once this founder has begun with a majority, or false once it knows what the others have begun.
    pub(crate) fn found(&self, token: &str) -> Result<bool, Failure> {
        let begun = Instant::now();
        loop {
            // At first the one who started it may not have written the pid file yet.
            if begun.elapsed() > PAUSE * 20 && !self.pods.is_current() {
                return Err(fail("it was told to end"));
            }
            if let Some(state) = self.begun_by_others(token) {
                let me = &self.pods.name;
                if state.members.iter().any(|member| member.name == *me && member.started) {
                    return Err(fail(format!("member {me} has already been bootstrapped")));
                }
                self.receive(&json!(state)).map_err(|(_, words)| fail(words))?;
                return Ok(false);
            }
            if self.may_begin(token) {
                return Ok(true);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn begun_by_others(&self, token: &str) -> Option<State> {
        let others = self.pods.initial_members.iter().filter(|member| member.name != self.pods.name);
        let states = others.filter_map(|other| {
            let state = self.peer(&other.address).get("/rehearsal/v1/state").ok()?;
            serde_json::from_value::<State>(state).ok()
        });
        states.into_iter().find(|state| state.founded_with.as_deref() == Some(token))
    }

    /// Begins if a majority lets it, this one included, and no founder with a lower name is there.
    fn may_begin(&self, token: &str) -> bool {
        let me = &self.pods.name;
        let asked = json!({ "token": token, "name": me });
        let members = &self.pods.initial_members;
        let ask = |other: &Member| self.peer(&other.address).request("POST", "/rehearsal/v1/vote", Some(&asked));
        if members.iter().filter(|other| other.name < *me).any(|other| ask(other).is_ok()) {
            return false;
        }
        let others = members.iter().filter(|other| other.name > *me);
        let lets = |other: &&Member| matches!(ask(other), Ok((200, _)));
        let votes = usize::from(self.lets_begin(&asked).is_ok()) + others.filter(lets).count();
        let begins = votes > members.len() / 2;
        if begins {
            let mut state = self.state();
            state.members.clone_from(members);
            state.founded_with = Some(token.to_owned());
            state.revision = 1;
        } else {
            lock(&self.vote).take_if(|(vote, _)| vote == me);
        }
        begins
    }

    /// Whether a founder may begin, as far as this one is asked: nobody has begun that it knows of, and nobody else asked just now.
    pub(crate) fn lets_begin(&self, asked: &Value) -> Result<Value, Refusal> {
        let refused = |why: &str| Err((409, why.to_owned()));
        let Some(name) = asked["name"].as_str() else { return refused("who asks?") };
        if self.pods.token.is_none() || asked["token"].as_str() != self.pods.token.as_deref() {
            return refused("cluster ID mismatch");
        }
        if name > self.pods.name.as_str() {
            return refused("one with a lower name is here");
        }
        let mut vote = lock(&self.vote);
        let other = vote.as_ref().is_some_and(|(vote, at)| vote != name && at.elapsed() < VOTE);
        if self.state().revision > 0 || other {
            return refused("another one begins");
        }
        *vote = Some((name.to_owned(), Instant::now()));
        Ok(json!({}))
    }
}
