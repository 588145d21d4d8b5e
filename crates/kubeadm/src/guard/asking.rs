//! How a kubelet's unit asks its machine's agent before it starts: for how long, and what silence means.

use std::time::Duration;

/// How long the agent is asked in one start of the unit: systemd gives that 90 s, and starts it again afterwards.
pub const ASKED: Duration = Duration::from_secs(75);

/// An agent that says nothing for so long keeps nothing from starting: it may be broken, and Kubernetes is not.
pub const SILENT: Duration = Duration::from_secs(60);

/// What comes of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// The kubelet may start.
    Starts,
    /// It must not yet, and why.
    Waits(String),
    /// Nobody answers.
    Silence,
}

/// What follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The kubelet starts.
    Starts,
    /// It starts without the agent's word.
    Unheard,
    /// It is asked again after a moment.
    Again,
    /// This start of the unit fails, and why.
    GivesUp(String),
}

/// The questions of one start of the unit.
#[derive(Debug, Clone, Default)]
pub struct Asking {
    /// When the agent was last heard, since the beginning.
    heard: Duration,
    said: Option<String>,
}

impl Asking {
    /// Takes what came of a question, so long after the first one.
    pub fn hear(&mut self, since: Duration, word: Word) -> Asked {
        match word {
            Word::Starts => return Asked::Starts,
            Word::Waits(why) => (self.heard, self.said) = (since, Some(why)),
            Word::Silence if since.saturating_sub(self.heard) > SILENT => return Asked::Unheard,
            Word::Silence => {}
        }
        match since > ASKED {
            true => Asked::GivesUp(self.said.clone().unwrap_or_else(|| "the agent does not answer".to_owned())),
            false => Asked::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a question every second, until that is something else than to ask again.
    fn ask(word: impl Fn(u64) -> Word) -> (u64, Asked) {
        let mut asking = Asking::default();
        let asked = (0..).map(|second| (second, asking.hear(Duration::from_secs(second), word(second))));
        asked.into_iter().find(|(_, asked)| *asked != Asked::Again).expect("it ends")
    }

    #[test]
    fn silence_keeps_nothing_from_starting_and_a_word_does() {
        assert_eq!(ask(|_| Word::Silence), (61, Asked::Unheard));
        let why = || "it has met nobody".to_owned();
        assert_eq!(ask(|_| Word::Waits(why())), (76, Asked::GivesUp(why())));
        assert_eq!(ask(|second| if second < 30 { Word::Waits(why()) } else { Word::Starts }), (30, Asked::Starts));
        // Silent since 29 s, it is not silent for long enough when the unit's time is over.
        let falls_silent = |second| if second < 30 { Word::Waits(why()) } else { Word::Silence };
        assert_eq!(ask(falls_silent), (76, Asked::GivesUp(why())));
        let begins_late = |second| if second < 30 { Word::Silence } else { Word::Waits(why()) };
        assert_eq!(ask(begins_late), (76, Asked::GivesUp(why())));
    }

    #[test]
    fn one_look_is_enough_where_nothing_is_to_happen() {
        let look = |word| Asking::default().hear(Duration::MAX, word);
        assert_eq!(look(Word::Silence), Asked::Unheard);
        assert_eq!(look(Word::Waits("why".to_owned())), Asked::GivesUp("why".to_owned()));
    }
}
