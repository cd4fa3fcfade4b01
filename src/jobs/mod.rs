//! The durable queue: which studies are complete, what is to be run on them, where results are to go.
//!
//! ```text
//! study     receiving -> complete            quiet long enough, no association open that brings more of it, as many instances as named
//!           complete -> receiving            something new came late; complete again with other instances, it is the next generation
//!           held -> receiving                what came because we asked for it is sent to us as well
//!           held -> complete                 by order
//! search    due -> done                      all earlier studies that were found are here; its job is queued
//!           due -> due                       a failure that may pass, after a while that doubles, as long as its job may wait
//!           due -> without                   any other failure; the job is queued and says in its results that they lack
//!           due -> failed                    the same where the job needs them: the job fails
//! prior     asked -> held                    it is here, and beyond doubt this patient's
//!           asked -> lacking, refused        it is not here; it is another's
//! job       waiting -> queued, failed        as its search ends
//!           queued -> running                claimed; its attempt grows by one
//!           running -> done                  results and deliveries are entered in the same transaction
//!           running -> queued                a failure that may pass, or the process went down during the first attempt
//!           running -> failed                a failure that will not pass, or too many
//!           running -> quarantined           the process, or the lane that it ran in, went down during two attempts
//! delivery  due -> stored                    the destination answered with success or a warning
//!           due -> due                       a failure that may pass, after a while that doubles
//!           due -> dead                      a failure that will not pass, or too many
//!           due -> replaced                  the same, and another form of it is due instead
//!           dead -> due, given-up            by order
//!           stored -> committed              the destination took responsibility for it, by the last transaction that asked for that
//!           stored -> due                    the destination says that it has not got it: it is sent again
//!           stored -> dead                   the same, too often
//! report    due -> sent                      who asked for commitment has our answer
//!           due -> due                       he cannot be reached, after a while that doubles
//!           due -> dead                      too often, or no address is configured
//! ```
//!
//! Invariants:
//! 1. Each transition is one transaction, and names the state that it leaves.
//! 2. A job is one study, package and generation: the same cannot be queued twice.
//! 3. An attempt that is not the job's last can enter nothing.
//! 4. A result has the UID that its inputs name, so entering or sending it again changes nothing.

mod census;
mod delivery;
mod prior;
mod queue;
mod report;
mod study;
#[cfg(test)]
mod tests;

pub use census::{Census, Unasked, enter_census, missing, unasked};
pub use delivery::{
    Answered, Asked, Dead, DeadOrder, Due, Left, Retry, Taken, Verdict, Waiting, answered, ask, dead, due, left, not_asked, order_dead,
    overdue, send_again, settle, stranded, taken, unanswered, waiting,
};
pub use prior::{
    PriorState, Search, SearchFailure, Searched, enter_prior, here, next_search, priors, search_done, search_failed, searched_archives,
};
pub use queue::{
    Claimed, DeadJobs, Ended, ResultObject, claim, crash, dead_jobs, earlier_reports, fail, finish, is_running, recover, try_again,
};
pub use report::{Report, enter_report, let_go, next_report, report_failed, report_sent};
pub use study::{Planned, Quiet, Waits, complete, complete_now, is_cut_off, quiet};
