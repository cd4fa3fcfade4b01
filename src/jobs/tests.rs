//! Studies, jobs and deliveries through their states.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use tokio::runtime::Runtime;

use super::*;
use crate::store::Store;

struct Bench {
    runtime: Runtime,
    store: Arc<Store>,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// With a study that is being received.
    fn new() -> Self {
        let (runtime, folder) = (Runtime::new().expect("a runtime"), tempfile::tempdir().expect("a folder"));
        let store = runtime.block_on(Store::open(folder.path(), 0)).expect("a store");
        let bench = Self { runtime, store, _folder: folder };
        bench.arrive();
        bench
    }

    /// Something of the study comes.
    fn arrive(&self) {
        let query = "INSERT INTO study (study_uid, patient_key, state, generation, cut_off, last_arrival_ms) VALUES ('1.2', 'key', 'receiving', 0, 0, 1)
            ON CONFLICT (study_uid) DO UPDATE SET state = 'receiving', last_arrival_ms = last_arrival_ms + 1";
        self.runtime.block_on(sqlx::query(query).execute(self.store.pool())).expect("entered");
        let query = "INSERT INTO instance SELECT n, n, '', '', '1.2', 1, '', 0, NULL, NULL FROM (SELECT count(*) || '' AS n FROM instance)";
        self.runtime.block_on(sqlx::query(query).execute(self.store.pool())).expect("entered");
    }

    fn complete(&self, quiet_ms: i64, open: bool) -> Vec<String> {
        let planned = [("slow", false), ("fast", true)];
        let planned =
            planned.map(|(package, urgent)| Planned { package: package.into(), urgent, rules: vec![package.into()], priors_from: None });
        let waits = Waits { quiet_ms, cut_off_ms: quiet_ms, ..Waits::default() };
        self.complete_by(&waits, open, &planned).into_iter().map(|(study_uid, _)| study_uid).collect()
    }

    /// Studies that are complete by that, each with its reason.
    fn complete_by(&self, waits: &Waits, open: bool, planned: &[Planned]) -> Vec<(String, String)> {
        let quiet = self.runtime.block_on(quiet(self.store.pool(), waits, |_| open)).expect("read");
        let complete = |one: &Quiet| self.runtime.block_on(complete(self.store.pool(), one, planned)).expect("entered");
        quiet.into_iter().filter(complete).map(|one| (one.study_uid.clone(), one.reason().to_owned())).collect()
    }

    fn claim(&self) -> Option<Claimed> {
        self.runtime.block_on(claim(self.store.pool())).expect("read")
    }

    fn finish(&self, job: &Claimed, results: &[ResultObject]) -> Ended {
        let goes_to = |_: &ResultObject| vec!["A".to_owned(), "B".to_owned()];
        self.runtime.block_on(finish(self.store.pool(), job, &json!({}), results, goes_to)).expect("entered")
    }

    fn fail(&self, job: &Claimed, may_pass: bool) -> Ended {
        self.runtime.block_on(fail(self.store.pool(), job, &json!({}), may_pass, 2)).expect("entered")
    }

    fn due(&self, destination: &str) -> Vec<Due> {
        self.runtime.block_on(due(self.store.pool(), destination, 10)).expect("read")
    }

    fn settle(&self, destination: &str, due: &Due, verdict: &Verdict, attempts: u32) {
        let retry = Retry { first_ms: 0, attempts };
        self.runtime.block_on(settle(self.store.pool(), destination, due, verdict, retry, None)).expect("entered");
    }

    fn ask(&self, wait_ms: i64, attempts: u32) -> Option<Asked> {
        self.runtime.block_on(ask(self.store.pool(), "A", Retry { first_ms: wait_ms, attempts })).expect("entered")
    }

    fn answered(&self, destination: &str, asked: &Asked, committed: &[&str], failed: &[&str]) -> Answered {
        let committed: Vec<String> = committed.iter().map(|&uid| uid.into()).collect();
        let failed: Vec<(String, u16)> = failed.iter().map(|&uid| (uid.into(), 0x0112)).collect();
        let retry = Retry { first_ms: 0, attempts: 3 };
        let answered = answered(self.store.pool(), destination, &asked.transaction_uid, &committed, &failed, retry);
        self.runtime.block_on(answered).expect("entered")
    }

    fn state(&self, job: &Claimed) -> String {
        let query = sqlx::query_scalar("SELECT state FROM job WHERE id = ?").bind(job.id);
        self.runtime.block_on(query.fetch_one(self.store.pool())).expect("there")
    }

    /// Lets all waiting be over.
    fn hurry(&self) {
        self.runtime.block_on(sqlx::query("UPDATE job SET not_before_ms = 0").execute(self.store.pool())).expect("entered");
    }
}

fn report(uid: &str) -> ResultObject {
    ResultObject {
        sop_instance_uid: uid.into(),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.88.34".into(),
        transfer_syntax_uid: "1.2.840.10008.1.2.1".into(),
        series_uid: format!("{uid}.1"),
        form: "sr".into(),
        path: PathBuf::from(format!("results/{uid}.dcm")),
    }
}

#[test]
fn a_study_is_complete_once_for_each_time_that_something_comes() {
    let bench = Bench::new();
    assert!(bench.complete(i64::MAX / 4, false).is_empty(), "not quiet yet");
    assert!(bench.complete(0, true).is_empty(), "an association is open");
    assert_eq!(bench.complete(0, false), ["1.2"]);
    assert!(bench.complete(0, false).is_empty(), "it was before");
    let jobs: Vec<Claimed> = std::iter::from_fn(|| bench.claim()).collect();
    assert_eq!(jobs.iter().map(|j| (j.package.as_str(), j.generation)).collect::<Vec<_>>(), [("fast", 1), ("slow", 1)]);
    assert_eq!(bench.finish(&jobs[0], &[report("1.2.3")]), Ended::Entered);
    bench.arrive();
    assert_eq!(bench.complete(0, false), ["1.2"]);
    let late = bench.claim().expect("the next generation");
    assert_eq!((late.package.as_str(), late.generation), ("fast", 2));
    assert_eq!(late.rules, ["fast"]);
    let earlier = bench.runtime.block_on(earlier_reports(bench.store.pool(), &late)).expect("read");
    assert_eq!(earlier.iter().map(|p| p.sop_instance_uid.as_str()).collect::<Vec<_>>(), ["1.2.3"]);
}

#[test]
fn what_comes_again_as_it_was_is_not_run_again() {
    let bench = Bench::new();
    assert_eq!(bench.complete(0, false), ["1.2"]);
    let jobs = || std::iter::from_fn(|| bench.claim()).count();
    assert_eq!(jobs(), 2);
    let again = "UPDATE study SET state = 'receiving'";
    bench.runtime.block_on(sqlx::query(again).execute(bench.store.pool())).expect("entered");
    assert_eq!(bench.complete(0, false), ["1.2"]);
    assert_eq!(jobs(), 0);
}

#[test]
fn an_attempt_that_is_too_late_enters_nothing() {
    let bench = Bench::new();
    bench.complete(0, false);
    let first = bench.claim().expect("queued");
    assert!(bench.runtime.block_on(recover(bench.store.pool())).expect("recovered").is_empty());
    let second = bench.claim().expect("queued again");
    assert_eq!((second.id, second.attempt), (first.id, 2));
    assert_eq!(bench.finish(&first, &[report("1.2.3")]), Ended::TooLate);
    assert!(bench.due("A").is_empty());
    assert_eq!(bench.runtime.block_on(recover(bench.store.pool())).expect("recovered"), [second.id], "it went down twice");
    assert_eq!(bench.state(&second), "quarantined");
    assert_eq!(bench.finish(&second, &[report("1.2.3")]), Ended::TooLate);
}

#[test]
fn a_failure_is_no_crash() {
    let bench = Bench::new();
    bench.complete(0, false);
    let first = bench.claim().expect("queued");
    assert_eq!(bench.fail(&first, true), Ended::Again);
    bench.hurry();
    let second = std::iter::from_fn(|| bench.claim()).find(|job| job.id == first.id).expect("queued again");
    assert!(bench.runtime.block_on(recover(bench.store.pool())).expect("recovered").is_empty(), "it went down once");
    let third = std::iter::from_fn(|| bench.claim()).find(|job| job.id == first.id).expect("queued again");
    assert_eq!((second.attempt, third.attempt), (2, 3));
    let crash = |job: &Claimed| bench.runtime.block_on(crash(bench.store.pool(), job, &json!({}))).expect("entered");
    assert_eq!(crash(&second), Ended::TooLate);
    assert_eq!(crash(&third), Ended::Entered, "the second time");
    assert_eq!(bench.state(&third), "quarantined");
}

#[test]
fn a_failure_is_tried_again_where_that_may_help() {
    let bench = Bench::new();
    bench.complete(0, false);
    let (one, other) = (bench.claim().expect("queued"), bench.claim().expect("queued"));
    assert_eq!(bench.fail(&other, false), Ended::Entered);
    assert_eq!(bench.state(&other), "failed");
    assert_eq!(bench.fail(&one, true), Ended::Again);
    assert_eq!(bench.claim(), None, "it waits a while");
    bench.hurry();
    let again = bench.claim().expect("queued again");
    assert_eq!((again.id, again.attempt), (one.id, 2));
    assert_eq!(bench.fail(&again, true), Ended::Entered, "twice is enough");
    assert_eq!(bench.state(&again), "failed");
}

#[test]
fn each_destination_gets_each_result() {
    let bench = Bench::new();
    bench.complete(0, false);
    let job = bench.claim().expect("queued");
    assert_eq!(bench.finish(&job, &[report("1.2.3"), report("1.2.4")]), Ended::Entered);
    assert_eq!(bench.finish(&job, &[report("1.2.5")]), Ended::TooLate, "once is enough");
    let due = bench.due("A");
    assert_eq!(due.iter().map(|d| d.sop_instance_uid.as_str()).collect::<Vec<_>>(), ["1.2.3", "1.2.4"]);
    bench.settle("A", &due[0], &Verdict::Stored(0), 3);
    bench.settle("A", &due[1], &Verdict::Again(Some(0xA700), "full".into()), 3);
    let again = bench.due("A");
    assert_eq!(again.iter().map(|d| (d.sop_instance_uid.as_str(), d.attempts)).collect::<Vec<_>>(), [("1.2.4", 1)]);
    bench.settle("A", &again[0], &Verdict::Again(None, "gone".into()), 2);
    assert!(bench.due("A").is_empty(), "two attempts were allowed");
    let waiting = bench.runtime.block_on(waiting(bench.store.pool(), "A")).expect("read");
    assert_eq!(waiting, Waiting { due: 0, stored: 1, dead: 1 });
    assert_eq!(bench.due("B").len(), 2);
    let again = |study_uid| bench.runtime.block_on(send_again(bench.store.pool(), study_uid)).expect("entered");
    assert_eq!((again("9.9"), again("1.2")), (0, 3), "one of A and two of B");
    assert_eq!(bench.due("A").iter().map(|d| (d.sop_instance_uid.as_str(), d.attempts)).collect::<Vec<_>>(), [("1.2.4", 0)]);
}

#[test]
fn another_form_takes_the_place_of_what_is_refused() {
    let bench = Bench::new();
    bench.complete(0, false);
    let job = bench.claim().expect("queued");
    let result = |uid: &str, form: &str, folder: &str| ResultObject {
        form: form.into(),
        path: format!("results/1/{folder}/{uid}").into(),
        ..report(uid)
    };
    let results = [result("1", "labelmap", "a"), result("2", "seg", "a"), result("3", "labelmap", "b"), result("4", "seg", "b")];
    let pool = bench.store.pool();
    let goes_to = |result: &ResultObject| if result.form == "seg" { Vec::new() } else { vec!["A".to_owned()] };
    assert_eq!(bench.runtime.block_on(finish(pool, &job, &json!({}), &results, goes_to)).expect("entered"), Ended::Entered);
    let uids = || bench.due("A").iter().map(|due| due.sop_instance_uid.clone()).collect::<Vec<_>>();
    assert_eq!(uids(), ["1", "3"]);
    let retry = Retry { first_ms: 0, attempts: 2 };
    let settle = |due: &Due, verdict| bench.runtime.block_on(settle(pool, "A", due, &verdict, retry, Some("seg"))).expect("entered");
    let due = bench.due("A");
    assert_eq!(settle(&due[0], Verdict::Again(None, "down".into())), 0);
    assert_eq!(settle(&due[1], Verdict::Dead(Some(0x0122), "no".into())), 1);
    assert_eq!(uids(), ["1", "4"], "of the same series alone");
    assert_eq!(settle(&bench.due("A")[1], Verdict::Dead(None, "no".into())), 0, "there is nothing instead of that");
    assert_eq!(bench.runtime.block_on(waiting(pool, "A")).expect("read"), Waiting { due: 1, stored: 0, dead: 1 });
    // Dead letters are listed, tried again by order, and given up.
    let dead_ones = || bench.runtime.block_on(dead(pool, Some("A"), 9)).expect("read");
    assert_eq!(dead_ones().iter().map(|one| one.sop_instance_uid.as_str()).collect::<Vec<_>>(), ["4"]);
    let order = |uid, order| bench.runtime.block_on(order_dead(pool, "A", uid, order, false)).expect("entered");
    assert_eq!((order(Some("1"), DeadOrder::Retry), order(None, DeadOrder::Retry)), (0, 1));
    let due = bench.due("A");
    assert_eq!((uids(), due[1].attempts), (vec!["1".to_owned(), "4".to_owned()], 0));
    settle(&due[1], Verdict::Dead(None, "no".into()));
    assert_eq!((order(Some("4"), DeadOrder::GiveUp), dead_ones()), (1, vec![]));
    // Of a destination that nobody knows any more, what is due, too.
    let stranded = || bench.runtime.block_on(stranded(pool, &["B"])).expect("read");
    assert_eq!((order(None, DeadOrder::GiveUp), stranded()), (0, vec![("A".to_owned(), 1)]));
    assert_eq!(bench.runtime.block_on(order_dead(pool, "A", None, DeadOrder::GiveUp, true)).expect("entered"), 1);
    assert_eq!(stranded(), []);
}

#[test]
fn what_was_removed_and_comes_again_in_part_is_nothing_new() {
    let bench = Bench::new();
    let execute = |query: &'static str| {
        bench.runtime.block_on(sqlx::query(query).execute(bench.store.pool())).expect("entered");
    };
    let jobs = || -> Vec<(String, i64)> {
        let query = sqlx::query_as("SELECT package, generation FROM job ORDER BY id");
        bench.runtime.block_on(query.fetch_all(bench.store.pool())).expect("read")
    };
    let complete = |package: &str| {
        let planned = Planned { package: package.into(), urgent: false, rules: Vec::new(), priors_from: None };
        bench.complete_by(&Waits::default(), false, &[planned])[0].1.clone()
    };
    let remove = || {
        execute("INSERT OR IGNORE INTO gone SELECT content, study_uid FROM instance");
        execute("DELETE FROM instance");
    };
    bench.arrive(); // the second one
    complete("p");
    let first = vec![("p".to_owned(), 1)];
    assert_eq!(jobs(), first);
    remove();
    bench.arrive();
    assert_eq!((complete("p").as_str(), jobs()), ("released and quiet for 0 s", first.clone()));
    execute("UPDATE study SET state = 'receiving'");
    complete("q");
    assert_eq!(jobs(), first, "no other package is run on a part");
    bench.arrive();
    complete("q");
    let both = [first, vec![("q".to_owned(), 1)]].concat();
    assert_eq!(jobs(), both, "but on all of it");
    remove();
    execute("INSERT INTO instance VALUES ('new', '9', '', '', '1.2', 1, '', 0, NULL, NULL)");
    execute("UPDATE study SET state = 'receiving'");
    assert_eq!(complete("p"), "released and quiet for 0 s; 1 of 3 instances that are or were here: incomplete");
    assert_eq!(jobs(), [both, vec![("p".to_owned(), 2)]].concat());
}

/// With two results that are to go to `A`.
fn two_results() -> (Bench, Vec<Due>) {
    let bench = Bench::new();
    bench.complete(0, false);
    let job = bench.claim().expect("queued");
    bench.finish(&job, &[report("1.2.3"), report("1.2.4")]);
    let due = bench.due("A");
    (bench, due)
}

#[test]
fn only_what_is_committed_is_at_its_destination() {
    let (bench, due) = two_results();
    bench.settle("A", &due[0], &Verdict::Stored(0), 3);
    assert_eq!(bench.ask(0, 9), None, "one of the two is due still");
    bench.settle("A", &due[1], &Verdict::Stored(0), 3);
    let first = bench.ask(60_000, 9).expect("both are stored");
    let uids = |asked: &Asked| asked.instances.iter().map(|(_, uid)| uid.clone()).collect::<Vec<_>>();
    assert_eq!((uids(&first), first.study_uid.as_str()), (vec!["1.2.3".to_owned(), "1.2.4".to_owned()], "1.2"));
    assert_eq!(bench.ask(0, 9), None, "the answer is waited for");
    let nothing = Answered::default();
    assert_eq!(bench.answered("B", &first, &["1.2.3"], &[]), nothing, "somebody else");
    let study_uid = Some("1.2".to_owned());
    let half = Answered { study_uid: study_uid.clone(), committed: 1, again: 1, dead: 0 };
    assert_eq!(bench.answered("A", &first, &["1.2.3", "9.9"], &["1.2.4"]), half);
    assert_eq!(bench.answered("A", &first, &["1.2.4"], &["1.2.3"]), Answered { study_uid, ..nothing.clone() }, "it was answered before");
    // What failed is sent again, and asked for again, alone and with another transaction.
    let again = bench.due("A");
    assert_eq!(again.iter().map(|d| (d.sop_instance_uid.as_str(), d.attempts)).collect::<Vec<_>>(), [("1.2.4", 1)]);
    bench.settle("A", &again[0], &Verdict::Stored(0), 3);
    let second = bench.ask(0, 9).expect("stored again");
    assert_eq!(uids(&second), ["1.2.4"]);
    assert_ne!(second.transaction_uid, first.transaction_uid);
    assert!(bench.runtime.block_on(unanswered(bench.store.pool(), "A", &second.transaction_uid)).expect("read"));
    // Nothing comes: the same is asked a third time, and an answer to the second is too late.
    let third = bench.ask(0, 9).expect("not answered");
    assert_eq!(bench.answered("A", &second, &["1.2.4"], &[]), nothing);
    assert_eq!(bench.answered("A", &third, &["1.2.4"], &[]).committed, 1);
    assert_eq!(bench.ask(0, 9), None, "all is committed");
}

#[test]
fn what_is_never_committed_is_told() {
    let (bench, due) = two_results();
    due.iter().for_each(|one| bench.settle("A", one, &Verdict::Stored(0), 3));
    assert!(bench.ask(0, 1).is_some());
    assert_eq!(bench.ask(0, 1), None, "once was enough");
    for (again, dead) in [(1, 0), (1, 0), (0, 1)] {
        let asked = bench.ask(0, 9).expect("stored");
        let answered = bench.answered("A", &asked, &["1.2.3"], &["1.2.4"]);
        assert_eq!((answered.again, answered.dead), (again, dead));
        bench.due("A").iter().for_each(|one| bench.settle("A", one, &Verdict::Stored(0), 3));
    }
    let waiting = bench.runtime.block_on(waiting(bench.store.pool(), "A")).expect("read");
    assert_eq!(waiting, Waiting { due: 0, stored: 0, dead: 1 });
}

#[test]
fn who_asks_gets_an_answer() {
    let bench = Bench::new();
    let pool = bench.store.pool();
    let instances = vec![("1.9".to_owned(), "1.2.3".to_owned())];
    let next = || bench.runtime.block_on(next_report(pool)).expect("read");
    let enter = || bench.runtime.block_on(enter_report(pool, "CT1", "2.25.1", instances.clone())).expect("entered");
    let failed = |report: &Report| {
        let retry = Retry { first_ms: 0, attempts: 2 };
        bench.runtime.block_on(report_failed(pool, report, "gone", retry)).expect("entered")
    };
    let entered = enter();
    assert_eq!(next(), None, "the association may take it");
    bench.runtime.block_on(let_go(pool, Some(entered.id))).expect("entered");
    let first = next().expect("let go");
    assert_eq!(first, entered);
    assert!(failed(&first));
    let second = next().expect("due again");
    assert_eq!((second.id, second.attempts), (first.id, 1));
    assert!(!failed(&second), "two attempts are enough");
    assert_eq!(next(), None);
    assert_eq!(enter().id, first.id, "the same question again");
    bench.runtime.block_on(let_go(pool, None)).expect("entered");
    let third = next().expect("due");
    bench.runtime.block_on(report_sent(pool, third.id)).expect("entered");
    assert_eq!(next(), None);
}

/// With a job that waits for earlier studies at `PACS`.
fn waiting_for_priors() -> Bench {
    let bench = Bench::new();
    let planned = Planned { package: "p".into(), urgent: false, rules: Vec::new(), priors_from: Some("PACS".into()) };
    let completed = bench.complete_by(&Waits::default(), false, &[planned]);
    assert_eq!(completed, [("1.2".to_owned(), "released and quiet for 0 s".to_owned())]);
    bench
}

#[test]
fn a_job_waits_for_its_priors_and_no_longer_than_it_may() {
    let bench = waiting_for_priors();
    let pool = bench.store.pool();
    let next = |archive: &str| bench.runtime.block_on(next_search(pool, archive)).expect("read");
    let failed = |search: &Search, required: bool, until_ms: i64| {
        let failure = SearchFailure { code: "dimse.closed", why: "gone".into(), may_pass: true, required, until_ms };
        bench.runtime.block_on(search_failed(pool, search, &failure, Retry { first_ms: 0, attempts: 2 })).expect("entered")
    };
    assert_eq!(bench.claim(), None, "it waits");
    assert_eq!(bench.runtime.block_on(searched_archives(pool)).expect("read"), ["PACS"]);
    assert_eq!(next("VNA"), None);
    let first = next("PACS").expect("due");
    assert_eq!((first.study_uid.as_str(), first.package.as_str(), first.attempts), ("1.2", "p", 1));
    assert_eq!(failed(&first, true, i64::MAX), Searched::Again);
    let second = next("PACS").expect("due again");
    assert_eq!(second.attempts, 2);
    assert_eq!(failed(&second, true, i64::MAX), Searched::Failed, "two attempts were allowed");
    let job = Claimed {
        id: second.job,
        study_uid: "1.2".into(),
        package: "p".into(),
        generation: 1,
        attempt: 0,
        rules: Vec::new(),
        queued_ms: 0,
        last_instance_ms: 0,
    };
    assert_eq!((bench.state(&job).as_str(), next("PACS")), ("failed", None));
    assert_eq!(bench.runtime.block_on(try_again(pool, job.id)).expect("entered").as_deref(), Some("1.2"));
    assert_eq!(bench.state(&job), "waiting", "with its search");
    let third = next("PACS").expect("due");
    assert_eq!(third.attempts, 1);
    bench.runtime.block_on(enter_prior(pool, &third, "1.1", "ARCHIVE", PriorState::Asked, 0)).expect("entered");
    assert_eq!(failed(&third, false, 0), Searched::Without, "there is no more time");
    let claimed = bench.claim().expect("queued");
    let priors = bench.runtime.block_on(priors(pool, claimed.id)).expect("read");
    assert_eq!((priors.instances.len(), priors.lacking.as_deref()), (0, Some("gone")));
    assert_eq!(bench.runtime.block_on(try_again(pool, job.id)).expect("entered"), None, "it runs");
}

#[test]
fn a_job_refers_to_what_is_held() {
    let bench = waiting_for_priors();
    let pool = bench.store.pool();
    let search = bench.runtime.block_on(next_search(pool, "PACS")).expect("read").expect("due");
    for (content, study_uid) in [("a", "1.1"), ("b", "1.1"), ("c", "1.0")] {
        let query = "INSERT INTO instance (content, sop_instance_uid, sop_class_uid, series_uid, study_uid, bytes, calling, received_ms)
            VALUES (?1, ?2 || '.' || ?1, '1.9', ?2 || '.1', ?2, 0, 'ARCHIVE', 0)";
        bench.runtime.block_on(sqlx::query(query).bind(content).bind(study_uid).execute(pool)).expect("entered");
    }
    for (study_uid, state) in [("1.1", PriorState::Held), ("1.0", PriorState::Refused)] {
        bench.runtime.block_on(enter_prior(pool, &search, study_uid, "ARCHIVE", state, 2)).expect("entered");
    }
    assert_eq!(bench.runtime.block_on(search_done(pool, &search)).expect("entered"), Searched::Done);
    let job = bench.claim().expect("queued");
    let priors = bench.runtime.block_on(priors(pool, job.id)).expect("read");
    assert_eq!(priors.instances.iter().map(|p| p.sop_instance_uid.as_str()).collect::<Vec<_>>(), ["1.1.a", "1.1.b"]);
    assert_eq!(priors.lacking, None);
    let census = [("1.1.1".to_owned(), 3), ("1.1.2".to_owned(), 4)].into();
    assert_eq!(bench.runtime.block_on(here(pool, "1.1", &census)).expect("read"), (2, 5));
}

#[test]
fn a_study_is_complete_when_as_many_are_here_as_its_source_says() {
    let bench = Bench::new();
    let pool = bench.store.pool();
    let arrive = |n: i64| {
        let query = "INSERT INTO instance (content, sop_instance_uid, sop_class_uid, series_uid, study_uid, bytes, calling, received_ms)
            VALUES ('c' || ?1, '1.2.1.' || ?1, '1.9', '1.2.1', '1.2', 0, 'CT1', ?1)";
        bench.runtime.block_on(sqlx::query(query).bind(n).execute(pool)).expect("entered");
        let query = "UPDATE study SET cut_off = 1, last_arrival_ms = ? WHERE study_uid = '1.2'";
        bench.runtime.block_on(sqlx::query(query).bind(crate::store::now_ms() - 1000).execute(pool)).expect("entered");
    };
    let complete = |hold_incomplete: bool, cut_off_ms: i64| {
        let waits = Waits { quiet_ms: 500, cut_off_ms, hold_incomplete, asked_senders: vec!["CT1".into()] };
        bench.complete_by(&waits, false, &[]).into_iter().map(|(_, reason)| reason).collect::<Vec<_>>()
    };
    let unasked = || bench.runtime.block_on(unasked(pool, 500, &["CT1".to_owned()])).expect("read").len();
    let says = |census: Census| {
        let now = crate::store::now_ms();
        bench.runtime.block_on(enter_census(pool, "1.2", "PACS", now, &census)).expect("entered");
    };
    arrive(1);
    assert_eq!((unasked(), complete(false, 60_000).len()), (1, 0), "its source is asked first");
    let others = "INSERT INTO study (study_uid, patient_key, state, generation, cut_off, last_arrival_ms)
        WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < 150) SELECT '9.' || n, '', 'receiving', 0, 1, 0 FROM n";
    bench.runtime.block_on(sqlx::query(others).execute(pool)).expect("entered");
    assert_eq!(unasked(), 1, "beside many that are held, and not to be asked for");
    bench.runtime.block_on(sqlx::query("DELETE FROM study WHERE study_uid LIKE '9.%'").execute(pool)).expect("entered");
    says(Ok([("1.2.1".to_owned(), 2)].into()));
    assert_eq!((unasked(), complete(false, 60_000).len()), (0, 0), "one is missing");
    assert!(complete(true, 600).is_empty(), "it is held");
    assert_eq!(complete(false, 600), ["cut off and quiet for 0 s; 1 of 2 instances that PACS names: incomplete"]);
    assert_eq!(bench.runtime.block_on(missing(pool, "1.2", 1)).expect("read").map(|reason| reason.contains("incomplete")), Some(true));
    bench.arrive();
    arrive(2);
    assert_eq!(complete(false, 60_000), ["cut off and quiet for 0 s; all 2 of 2 instances that PACS names"], "however it ended");
    assert_eq!(bench.runtime.block_on(missing(pool, "1.2", 2)).expect("read"), None);
    assert!(!bench.runtime.block_on(is_cut_off(pool, "1.2")).expect("read"), "nothing is missing");
    bench.arrive();
    arrive(3);
    assert_eq!(complete(false, 60_000).len(), 1, "more than the census of before is no reason to wait");
    bench.arrive();
    arrive(4);
    bench.runtime.block_on(sqlx::query("DELETE FROM census").execute(pool)).expect("entered");
    says(Err("gone".into()));
    assert!(complete(false, 60_000).is_empty(), "cut off, and nobody says how many there are");
    assert_eq!(complete(false, 600), ["cut off and quiet for 0 s; the source names no number: gone"]);
}
