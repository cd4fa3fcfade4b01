//! Instances in, a crash, and out again.

use dicom::transfer_syntax::entries::EXPLICIT_VR_LITTLE_ENDIAN;
use tokio::runtime::Runtime;

use super::index::Arrival;
use super::*;
use crate::codes::transfer_syntax::EXPLICIT_LITTLE;
use crate::dataset::Instance;
use crate::dataset::testing::{Slice, slice};

/// A store in a folder of its own.
struct Bench {
    runtime: Runtime,
    folder: tempfile::TempDir,
    store: Option<Arc<Store>>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { runtime: Runtime::new().expect("a runtime"), folder: tempfile::tempdir().expect("a folder"), store: None };
        bench.start();
        bench
    }

    fn start(&mut self) {
        self.store = Some(self.runtime.block_on(Store::open(self.folder.path(), 0)).expect("a store"));
    }

    /// Ends the store as a clean stop does.
    fn stop(&mut self) {
        if let Some(store) = self.store.take() {
            let pool = store.pool().clone();
            drop(store);
            self.runtime.block_on(pool.close()); // its connections end in threads of their own, and tests touch its files
        }
    }

    fn receive(&self, slice: &Slice) -> Result<Kept, StoreError> {
        self.receive_from("CT-1\"<*>", false, slice)
    }

    fn receive_from(&self, calling: &str, asked: bool, slice: &Slice) -> Result<Kept, StoreError> {
        let mut data_set = Vec::new();
        slice.object().write_dataset_with_ts(&mut data_set, &EXPLICIT_VR_LITTLE_ENDIAN.erased()).expect("memory takes all");
        let announced = Announced {
            sop_class_uid: slice.sop_class.clone(),
            sop_instance_uid: slice.sop_uid.clone(),
            transfer_syntax_uid: EXPLICIT_LITTLE.into(),
            calling: calling.into(),
            study_uid: None,
            asked,
        };
        let mut receiving = self.store.as_ref().expect("started").receive(announced)?;
        data_set.chunks(100).for_each(|fragment| receiving.write(fragment));
        receiving.finish()
    }

    fn files(&self, below: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().join(below)];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).expect("there").map(|entry| entry.expect("readable").path()) {
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found
    }

    /// Instances in `incoming`, without the empty files that wait for some.
    fn waiting(&self) -> usize {
        self.files("incoming").iter().filter(|path| fs::metadata(path).is_ok_and(|file| file.len() > 0)).count()
    }

    fn count(&self, query: &'static str) -> i64 {
        let pool = self.store.as_ref().expect("started").pool();
        self.runtime.block_on(sqlx::query_scalar(query).fetch_one(pool)).expect("a number")
    }
}

#[test]
fn an_instance_is_kept_once_and_never_exchanged() {
    let mut bench = Bench::new();
    let one = slice(1);
    let study_uid = one.study_uid.clone();
    assert_eq!(bench.receive(&one).expect("kept"), Kept::New { study_uid: study_uid.clone() });
    assert_eq!(bench.receive(&slice(2)).expect("kept"), Kept::New { study_uid });
    let other = Slice { pixels: Some(vec![9; one.pixels.as_ref().map_or(0, Vec::len)]), ..slice(1) };
    assert_eq!(bench.receive(&other).expect("kept"), Kept::Quarantined, "whether it is entered yet or not");
    bench.stop();
    bench.start();
    assert_eq!(bench.receive(&one).expect("kept"), Kept::Again { study_uid: one.study_uid.clone() });
    assert_eq!(bench.receive(&other).expect("kept"), Kept::Quarantined);
    let stranger = Slice { patient_id: "SOMEBODY ELSE".into(), ..slice(3) };
    assert!(matches!(bench.receive(&stranger), Err(StoreError::OtherPatient)));
    let wrong = Slice { study_uid: "1.2.three".into(), ..slice(4) };
    assert!(matches!(bench.receive(&wrong), Err(StoreError::NoUid { what: "Study Instance UID" })));
    bench.stop();
    bench.start();
    assert_eq!((bench.files("incoming").len(), bench.files("instances").len(), bench.files("quarantine").len()), (0, 2, 3));
    assert_eq!(bench.count("SELECT count(*) FROM instance"), 2);
    assert_eq!(bench.count("SELECT count(*) FROM quarantine"), 3);
    assert_eq!(bench.count("SELECT count(*) FROM audit WHERE event = '110104' AND action = 'U' AND outcome = 4"), 3, "once each");
    let kept = bench.files("instances");
    let kept: Vec<Instance> = kept.iter().map(|path| Instance::read(path).expect("a DICOM file")).collect();
    assert!(kept.iter().all(|instance| instance.study_uid == one.study_uid));
}

#[test]
fn what_was_acknowledged_survives_and_nothing_else() {
    let mut before = Bench::new();
    let all: Vec<Slice> = (1..=4).map(slice).collect();
    all.iter().for_each(|slice| assert!(matches!(before.receive(slice), Ok(Kept::New { .. }))));
    before.stop();
    // As after a crash between sync and transaction: sealed files in `incoming` that no database knows.
    let mut after = Bench::new();
    after.stop();
    fs::remove_file(after.folder.path().join("node.sqlite")).expect("there");
    for (n, path) in before.files("instances").iter().enumerate() {
        fs::copy(path, after.folder.path().join(format!("incoming/0-{n}-4354.dcm"))).expect("copied");
    }
    // Sealed, and no data set that this version understands.
    let mut strange =
        fs::File::options().read(true).write(true).create_new(true).open(after.folder.path().join("incoming/2-0-4354.dcm")).expect("new");
    let announced = Announced { transfer_syntax_uid: EXPLICIT_LITTLE.into(), ..Announced::default() };
    let bytes = [&seal::beginning(&announced)[..], &[7; 100]].concat();
    std::io::Write::write_all(&mut strange, &bytes).expect("written");
    seal::seal(&mut strange, &seal::Checksum::after(&bytes)).expect("sealed");
    let sealed = fs::read(&before.files("instances")[0]).expect("readable");
    let mut unsealed = sealed.clone();
    unsealed[..48].fill(0);
    let mut torn = sealed.clone();
    torn.truncate(sealed.len() - 1);
    let mut damaged = sealed.clone();
    *damaged.last_mut().expect("not empty") ^= 1;
    for (n, bytes) in [unsealed, torn, damaged, sealed[..100].to_vec(), Vec::new()].iter().enumerate() {
        fs::write(after.folder.path().join(format!("incoming/1-{n}-4354.dcm")), bytes).expect("written");
    }
    after.start();
    assert_eq!(after.count("SELECT count(*) FROM instance"), 4, "before anything else is asked of the store");
    after.stop();
    after.start();
    assert_eq!((after.files("incoming").len(), after.files("instances").len(), after.files("quarantine").len()), (0, 4, 1));
    assert_eq!(after.count("SELECT count(*) FROM instance WHERE calling = 'CT'"), 4);
    assert_eq!(after.count("SELECT count(*) FROM study WHERE state = 'receiving' AND cut_off = 1"), 1);
    let bytes = |bench: &Bench| {
        let mut all: Vec<Vec<u8>> = bench.files("instances").iter().map(|path| fs::read(path).expect("readable")).collect();
        all.sort();
        all
    };
    assert!(bytes(&before) == bytes(&after));
}

#[test]
fn the_same_instance_from_many_at_once_is_kept_once() {
    let bench = Bench::new();
    let kept: Vec<Kept> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..8).map(|_| scope.spawn(|| bench.receive(&slice(1)).expect("kept"))).collect();
        senders.into_iter().map(|sender| sender.join().expect("no panic")).collect()
    });
    assert_eq!(kept.iter().filter(|kept| matches!(kept, Kept::New { .. })).count(), 1, "{kept:?}");
    assert!(kept.iter().all(|kept| matches!(kept, Kept::New { .. } | Kept::Again { .. })), "{kept:?}");
    assert_eq!((bench.count("SELECT count(*) FROM instance"), bench.files("instances").len(), bench.waiting()), (1, 1, 0));
}

#[test]
fn what_cannot_be_read_again_holds_nothing_up() {
    let bench = Bench::new();
    let store = bench.store.as_ref().expect("started");
    let gone = Arrival::announced(bench.folder.path().join("incoming/gone.dcm"), &Announced::default());
    store.enter(Entry::Instance(gone.into()));
    let announced = Announced { transfer_syntax_uid: EXPLICIT_LITTLE.into(), ..Announced::default() };
    let changed = Arrival::announced(bench.folder.path().join("incoming/changed.dcm"), &announced);
    fs::write(&changed.path, [&seal::beginning(&announced)[..], &[7; 100]].concat()).expect("written");
    store.enter(Entry::Instance(changed.into()));
    bench.receive(&slice(1)).expect("kept");
    store.flush();
    assert_eq!((bench.count("SELECT count(*) FROM instance"), bench.count("SELECT count(*) FROM quarantine")), (1, 1));
}

#[test]
fn what_is_old_goes_and_may_come_again() {
    let mut bench = Bench::new();
    let one = slice(1);
    bench.receive(&one).expect("kept");
    let execute = |bench: &Bench, query: &'static str| {
        let pool = bench.store.as_ref().expect("started").pool();
        bench.runtime.block_on(sqlx::query(query).execute(pool)).expect("entered");
    };
    let remove = |bench: &Bench| {
        let store = bench.store.as_ref().expect("started");
        store.flush();
        let old = bench.runtime.block_on(store.old_studies(i64::MAX, &["B".into()], 9)).expect("read");
        // What was found is asked for again when it goes: all of it goes in, or nothing.
        store.remove(Old::Study(one.study_uid.clone()), &["B".into()]);
        store.flush();
        (old.len(), bench.files("instances").len(), bench.count("SELECT count(*) FROM instance"), bench.count("SELECT bytes FROM held") > 0)
    };
    let here = (0, 1, 1, true);
    assert_eq!(remove(&bench), here, "it is being received");
    execute(&bench, "UPDATE study SET state = 'complete'");
    execute(
        &bench,
        "INSERT INTO job (study_uid, package, generation, state, urgent, attempt, not_before_ms, queued_ms)
         SELECT study_uid, 'p', 1, 'running', 0, 1, 0, 0 FROM study",
    );
    assert_eq!(remove(&bench), here, "a job runs");
    execute(&bench, "UPDATE job SET state = 'done', ended_ms = 1");
    execute(&bench, "INSERT INTO result VALUES ('9', 1, '', '', '', 'sr', 'results/1/x/sr.dcm')");
    for (destination, state, what) in [("A", "due", "is on its way"), ("A", "dead", "is dead"), ("B", "stored", "is to be committed")] {
        let store = bench.store.as_ref().expect("started");
        let query = sqlx::query("INSERT OR REPLACE INTO delivery VALUES ('9', ?, ?, 1, 0, NULL, NULL, 0, NULL)");
        bench.runtime.block_on(query.bind(destination).bind(state).execute(store.pool())).expect("entered");
        assert_eq!(remove(&bench), here, "a result {what}");
        execute(&bench, "UPDATE delivery SET state = 'stored'");
        execute(&bench, "UPDATE delivery SET state = 'committed' WHERE destination = 'B'");
    }
    bench.store.as_ref().expect("started").study_opened(&one.study_uid);
    assert_eq!(remove(&bench), (1, 1, 1, true), "an association brings more of it");
    bench.stop();
    bench.start();
    assert_eq!(remove(&bench), (1, 0, 0, false));
    assert_eq!(bench.count("SELECT count(*) FROM removed"), 0);
    assert_eq!(bench.count("SELECT count(*) FROM audit WHERE event = '110105'"), 1);
    assert!(matches!(bench.receive(&one).expect("kept"), Kept::New { .. }));
    bench.stop();
    bench.start();
    assert_eq!(bench.files("instances").len(), 1);
    assert_eq!(bench.count("SELECT kept FROM study"), 1);
}

#[test]
fn what_comes_again_stays_until_its_association_ends() {
    let bench = Bench::new();
    let (one, store) = (slice(1), bench.store.as_ref().expect("started"));
    let uid = one.study_uid.clone();
    bench.receive(&one).expect("kept");
    store.flush();
    bench.runtime.block_on(sqlx::query("UPDATE study SET state = 'complete'").execute(store.pool())).expect("entered");
    let remove = || {
        store.remove(Old::Study(uid.clone()), &[]);
        store.flush();
        bench.count("SELECT count(*) FROM instance")
    };
    assert!(matches!(bench.receive(&one).expect("kept"), Kept::Again { .. }));
    assert_eq!(remove(), 1, "its sender was told that it is here");
    store.association_ended(vec![uid.clone()], true);
    store.flush();
    assert!(store.shared.in_use().goes(&uid), "nobody holds it");
    std::thread::scope(|scope| {
        let again = scope.spawn(|| bench.receive(&one).expect("kept"));
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!again.is_finished(), "nobody is told that it is here while it goes");
        store.shared.in_use().gone(&uid);
        assert!(matches!(again.join().expect("no panic"), Kept::Again { .. }));
    });
    store.association_ended(vec![uid.clone()], true);
    assert_eq!(remove(), 0);
    assert!(matches!(bench.receive(&one).expect("kept"), Kept::New { .. }));
}

#[test]
fn a_file_that_could_not_be_removed_and_has_come_again_stays() {
    let mut bench = Bench::new();
    let one = slice(1);
    let other = Slice { pixels: Some(vec![9; one.pixels.as_ref().map_or(0, Vec::len)]), ..slice(1) };
    bench.receive(&one).expect("kept");
    assert_eq!(bench.receive(&other).expect("kept"), Kept::Quarantined);
    let store = bench.store.as_ref().expect("started");
    store.flush();
    for query in [
        "INSERT INTO removed SELECT 'instances/' || substr(content, 1, 2) || '/' || content || '.dcm' FROM instance",
        "INSERT INTO removed SELECT 'quarantine/' || content || '.dcm' FROM quarantine",
        "DELETE FROM instance",
        "DELETE FROM quarantine",
        // Of two jobs, one is tried again.
        "INSERT INTO removed VALUES ('results/7'), ('results/8')",
        "INSERT INTO job (id, study_uid, package, generation, state, urgent, attempt, not_before_ms, queued_ms, kept)
         SELECT n, study_uid, 'p', n, iif(n = 7, 'running', 'done'), 0, 1, 0, 0, 0 FROM study, (SELECT 7 AS n UNION ALL SELECT 8)",
    ] {
        bench.runtime.block_on(sqlx::query(query).execute(store.pool())).expect("entered");
    }
    assert!(matches!(bench.receive(&one).expect("kept"), Kept::New { .. }));
    assert_eq!(bench.receive(&other).expect("kept"), Kept::Quarantined);
    for job in ["results/7", "results/8"] {
        fs::create_dir(bench.folder.path().join(job)).expect("made");
    }
    store.remove(Old::Results(0), &[]); // there is no such job, but what is noted goes with it
    store.flush();
    assert_eq!(bench.count("SELECT count(*) FROM removed"), 0);
    assert_eq!(["results/7", "results/8"].map(|job| bench.folder.path().join(job).exists()), [true, false]);
    bench.stop();
    bench.start();
    assert_eq!((bench.files("instances").len(), bench.files("quarantine").len()), (1, 1));
}

#[test]
fn whoever_sent_other_content_does_not_hear_that_it_is_held() {
    let bench = Bench::new();
    let (one, store) = (slice(1), bench.store.as_ref().expect("started"));
    let other = Slice { pixels: Some(vec![9; one.pixels.as_ref().map_or(0, Vec::len)]), ..slice(1) };
    bench.receive_from("CT1", false, &one).expect("kept");
    for sender in ["CT11", "A", "A", "B"] {
        assert_eq!(bench.receive_from(sender, false, &other).expect("kept"), Kept::Quarantined);
    }
    store.flush();
    for (sender, held) in
        [("CT1", Held::Whole), ("C", Held::Whole), ("CT11", Held::NotAsSent), ("A", Held::NotAsSent), ("B", Held::NotAsSent)]
    {
        assert_eq!(store.held(&one.sop_class, &one.sop_uid, sender).expect("read"), held, "{sender}");
    }
    assert_eq!(bench.count("SELECT count(*) FROM quarantine"), 1);
    assert_eq!(bench.count("SELECT count(*) FROM audit WHERE event = '110104' AND action = 'U' AND outcome = 4"), 3, "once a sender");
}

#[test]
fn what_the_disk_has_damaged_is_replaced() {
    let mut bench = Bench::new();
    bench.receive(&slice(1)).expect("kept");
    bench.stop();
    bench.start();
    let path = bench.files("instances").remove(0);
    let whole = fs::read(&path).expect("readable");
    for spoil in [|bytes: &mut Vec<u8>| bytes.truncate(200), |bytes: &mut Vec<u8>| bytes.clear(), |bytes: &mut Vec<u8>| bytes[300] ^= 1] {
        let mut bytes = whole.clone();
        spoil(&mut bytes);
        fs::write(&path, bytes).expect("written");
        assert!(matches!(bench.receive(&slice(1)).expect("kept"), Kept::New { .. }));
        bench.stop();
        bench.start();
        assert!(fs::read(&path).expect("readable") == whole);
    }
    assert!(matches!(bench.receive(&slice(1)).expect("kept"), Kept::Again { .. }));
    assert_eq!((bench.count("SELECT count(*) FROM instance"), bench.waiting()), (1, 0));
}

#[test]
fn files_are_made_ahead_and_keep_no_more_than_they_need() {
    let mut bench = Bench::new();
    let long = Slice { rows: 600, columns: 600, pixels: Some(vec![1; 2 * 600 * 600]), ..slice(1) };
    bench.receive(&long).expect("kept");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while bench.files("incoming").len() - bench.waiting() < 16 {
        assert!(std::time::Instant::now() < deadline, "no files are made: {:?}", bench.files("incoming"));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let made = bench.files("incoming");
    assert!(made.iter().any(|path| spare::calling_of(path) == "CT-1\"<*>"), "they have the title of the last sender");
    bench.receive(&slice(2)).expect("kept");
    bench.receive_from("MR-1", false, &slice(3)).expect("kept");
    bench.stop();
    assert_eq!(bench.files("incoming").len(), 0, "they go with the store");
    #[cfg(target_os = "linux")]
    for path in bench.files("instances") {
        use std::os::unix::fs::MetadataExt;
        let file = fs::metadata(&path).expect("there");
        assert!(512 * file.blocks() < file.len() + 16384, "{} blocks for {} bytes", file.blocks(), file.len());
    }
    bench.start();
    let query = "SELECT count(*) FROM instance WHERE calling = 'MR-1'";
    assert_eq!((bench.count("SELECT count(*) FROM instance"), bench.count(query)), (3, 1));
}

#[test]
fn a_store_says_no_before_the_disk_is_full() {
    let mut bench = Bench::new();
    let twice = bench.runtime.block_on(Store::open(bench.folder.path(), 0)).map(|_| ());
    assert!(matches!(twice, Err(StoreError::InUse)), "{twice:?}");
    bench.stop();
    bench.store = Some(bench.runtime.block_on(Store::open(bench.folder.path(), u64::MAX >> 21)).expect("a store"));
    assert!(matches!(bench.receive(&slice(1)), Err(StoreError::Full { .. })));
    assert_eq!(bench.files("incoming").len(), 0);
}

#[test]
fn what_was_asked_for_is_held_until_it_is_sent() {
    let bench = Bench::new();
    let store = bench.store.as_ref().expect("started");
    let study = slice(1);
    bench.receive(&study).expect("kept");
    store.flush();
    for query in [
        "INSERT INTO job (id, study_uid, package, generation, state, urgent, attempt, not_before_ms, queued_ms)
         VALUES (1, '1.2.3', 'p', 1, 'waiting', 0, 0, 0, 0)",
        "INSERT INTO prior (job, study_uid, title, state, instances) VALUES (1, '1.2.9', 'ARCHIVE', 'asked', 0)",
    ] {
        bench.runtime.block_on(sqlx::query(query).execute(store.pool())).expect("entered");
    }
    let of_prior = |n: u32| Slice { study_uid: "1.2.9".into(), series_uid: "1.2.9.1".into(), sop_uid: format!("1.2.9.1.{n}"), ..slice(n) };
    let state = || -> String {
        let query = sqlx::query_scalar("SELECT state FROM study WHERE study_uid = '1.2.9'");
        bench.runtime.block_on(query.fetch_one(store.pool())).expect("read")
    };
    let held = Kept::Asked { study_uid: "1.2.9".into() };
    assert_eq!(bench.receive_from("ARCHIVE", true, &of_prior(1)).expect("kept"), held);
    assert_eq!(bench.receive_from("ARCHIVE", false, &of_prior(2)).expect("kept"), held, "it is on its way");
    store.flush();
    assert_eq!(state(), "held");
    assert_eq!(bench.receive_from("ARCHIVE", true, &of_prior(1)).expect("kept"), held, "again");
    let stranger = Slice { patient_id: "P2".into(), ..of_prior(3) };
    assert!(matches!(bench.receive_from("ARCHIVE", true, &stranger), Err(StoreError::NotAsAsked)));
    let elsewhere = Slice { study_uid: "1.2.10".into(), ..of_prior(4) };
    assert!(matches!(bench.receive_from("ARCHIVE", true, &elsewhere), Err(StoreError::NotAsAsked)), "nobody asked for that");
    store.flush();
    assert_eq!(bench.count("SELECT count(*) FROM quarantine"), 2);
    assert!(bench.runtime.block_on(store.other_patients("1.2.9", "ARCHIVE")).expect("read"));
    assert_eq!(state(), "held");
    assert_eq!(bench.receive_from("CT1", false, &of_prior(1)).expect("kept"), Kept::Again { study_uid: "1.2.9".into() });
    assert_eq!(state(), "receiving", "before it is acknowledged");
}
