//! Each defect of the shared kernel is found by the search that is meant for it, and that search finds nothing else: a
//! check that cannot fail proves nothing.

use base::planted::{Defect, plant};
use explore::{End, run, sets};
use kernel::Protocol;

/// With the defect the breach must name one of the invariants.
#[track_caller]
#[expect(clippy::print_stdout, reason = "a test's own words")]
fn must_find_in(protocol: Protocol, defect: Defect, invariants: &[&str]) {
    let config = sets::hunt(defect, protocol).expect("the defect is within reach");
    plant(Some(defect));
    let report = run(&config);
    plant(None);
    let Some(found) = &report.counterexample else { panic!("{} is not found: {report:?}", defect.id()) };
    // Shown with `--nocapture`: the table in `docs/testing.md` is made of these lines.
    println!("| {} | {protocol} | {} | {} | {} |", defect.id(), report.states, found.steps.len(), found.breach);
    let expected = invariants.iter().any(|invariant| found.breach.contains(invariant));
    assert!(expected, "{} breaks something else:\n{found}", defect.id());
    assert_eq!((report.end, report.depth), (End::Breach, found.steps.len()), "the counterexample is a nearest one");
}

/// The same in Raft, whose core all protocols share.
#[track_caller]
fn must_find(defect: Defect, invariants: &[&str]) {
    must_find_in(Protocol::Raft, defect, invariants);
}

/// Agreement: a leader that lacks what was decided, or two decisions.
const AGREEMENT: [&str; 2] = ["I5:", "I3:"];

#[test]
fn c1_old_stamps_counted_is_found() {
    must_find(Defect::CommitOldStamp, &AGREEMENT);
}

#[test]
fn c2_early_vote_is_found() {
    must_find(Defect::EarlyVote, &["I10:"]);
}

#[test]
fn c3_forgotten_vote_is_found() {
    must_find(Defect::ForgottenVote, &AGREEMENT);
}

#[test]
fn c4_early_acknowledgement_is_found() {
    must_find(Defect::EarlyAppendAck, &["I10:"]);
}

#[test]
fn c5_truncated_matching_suffix_is_found() {
    must_find(Defect::TruncateMatching, &["I7:"]);
}

#[test]
fn c6_match_on_reject_is_found() {
    must_find(Defect::MatchOnReject, &["I7:"]);
}

#[test]
fn c7_commit_of_unverified_entries_is_found() {
    must_find(Defect::CommitUnverified, &AGREEMENT);
}

#[test]
fn c8_length_before_stamp_is_found() {
    must_find(Defect::LengthBeforeStamp, &AGREEMENT);
}

#[test]
fn c9_half_a_quorum_is_found() {
    must_find(Defect::HalfQuorum, &["I7:"]);
}

#[test]
fn c10_overlapping_change_is_found() {
    must_find(Defect::OverlappingChange, &AGREEMENT);
}

#[test]
fn c11_new_quorum_alone_is_found() {
    must_find(Defect::NewQuorumOnly, &AGREEMENT);
}

#[test]
fn c12_voting_learner_is_found() {
    must_find(Defect::LearnerVotes, &["I7:"]);
}

#[test]
fn c13_removed_leader_that_counts_itself_is_found() {
    must_find(Defect::RemovedCounts, &["I7:"]);
}

#[test]
fn c18_early_read_is_found() {
    must_find(Defect::EarlyRead, &["I9:"]);
}

#[test]
fn c19_late_confirmation_is_found() {
    must_find(Defect::LateConfirmation, &["I9:"]);
}

#[test]
fn c21_pre_votes_counted_are_found() {
    must_find(Defect::PreVotesCount, &AGREEMENT);
}

#[test]
fn p1_lower_stamp_taken_is_found() {
    must_find_in(Protocol::MultiPaxos, Defect::IgnoreHighestStamp, &AGREEMENT);
}

#[test]
fn p2_ballot_used_again_is_found() {
    for protocol in Protocol::ALL {
        must_find_in(*protocol, Defect::BallotReused, &["I10:"]);
    }
}

#[test]
fn p3_chosen_slot_filled_with_nothing_is_found() {
    must_find_in(Protocol::MultiPaxos, Defect::NoOpFill, &AGREEMENT);
}

#[test]
fn p4_vote_beyond_its_range_is_found() {
    must_find_in(Protocol::MultiPaxos, Defect::VoteBeyondRange, &AGREEMENT);
}

#[test]
fn p5_truncated_suffix_is_found() {
    must_find_in(Protocol::MultiPaxos, Defect::PaxosTruncates, &["I7:"]);
}

#[test]
fn p6_whole_log_adopted_is_found() {
    must_find_in(Protocol::MultiPaxos, Defect::PaxosWholeLog, &AGREEMENT);
}

#[test]
fn p7_election_by_a_replaced_membership_is_found() {
    must_find_in(Protocol::MultiPaxos, Defect::NoFixpoint, &AGREEMENT);
    must_find_in(Protocol::PaxosRaft, Defect::NoFixpoint, &AGREEMENT);
    must_find_in(Protocol::Zab, Defect::NoFixpoint, &AGREEMENT);
}

#[test]
fn z1_epoch_apart_from_history_is_found() {
    must_find_in(Protocol::Zab, Defect::EpochApart, &AGREEMENT);
}

#[test]
fn z2_early_acknowledgement_of_the_synchronization_is_found() {
    must_find_in(Protocol::Zab, Defect::EarlySyncAck, &["I10:"]);
}

#[test]
fn z3_no_barrier_is_found() {
    must_find_in(Protocol::Zab, Defect::NoSyncBarrier, &AGREEMENT);
}

#[test]
fn h1_ignored_acceptance_is_found() {
    must_find_in(Protocol::PaxosRaft, Defect::AcceptedIgnored, &AGREEMENT);
}

#[test]
fn h2_election_by_the_rule_of_raft_is_found() {
    must_find_in(Protocol::PaxosRaft, Defect::RaftVoteRule, &AGREEMENT);
}
