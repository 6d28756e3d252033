//! Which fallback stands in for which primary of one request.
//!
//! The rule: a primary is stood in for by one fallback at a time, a fallback stands in once in a request; they come in the
//! order of the preference list.
//!
//! Pure. Not here: who cannot be reached (`membership`), what the answers are worth (`quorum`).

use quorate_net::id::Endpoint;

use crate::quorum::{Few, Groups, Voter};

/// The fallbacks of one request.
#[derive(Debug)]
pub(super) struct StandIns {
    /// Owners whose place may be taken, with who has taken it.
    places: Few<Place>,
    /// Who is left, the next one last.
    left: Few<Endpoint>,
}

#[derive(Debug)]
struct Place {
    owner: Endpoint,
    groups: Groups,
    taken_by: Option<Endpoint>,
    wanted: bool,
}

impl StandIns {
    /// `fallbacks` come in order; none when nobody may stand in.
    pub(super) fn new(owners: &[Voter], mut fallbacks: Few<Endpoint>) -> Self {
        if fallbacks.is_empty() {
            // The usual case, which shall cost nothing.
            return Self { places: Few::new(), left: fallbacks };
        }
        fallbacks.reverse();
        let place = |voter: &Voter| Place {
            owner: voter.endpoint,
            groups: voter.groups,
            taken_by: voter.stands_in.then_some(voter.endpoint),
            wanted: false,
        };
        Self { places: owners.iter().map(place).collect(), left: fallbacks }
    }

    /// Somebody shall stand in for this owner, or in the place of this fallback.
    pub(super) fn want_for(&mut self, replica: Endpoint) {
        for place in &mut self.places {
            place.wanted |= match place.taken_by {
                None => place.owner == replica,
                Some(fallback) => fallback == replica,
            };
        }
    }

    /// Those who are asked from now on, each with the owner whose place it takes.
    pub(super) fn engage(&mut self) -> Few<(Voter, Endpoint)> {
        let left = &mut self.left;
        let wanted = self.places.iter_mut().filter(|place| place.wanted);
        wanted
            .map_while(|place| {
                let fallback = left.pop()?;
                (place.taken_by, place.wanted) = (Some(fallback), false);
                Some((Voter::stand_in(fallback, place.groups), place.owner))
            })
            .collect()
    }
}
