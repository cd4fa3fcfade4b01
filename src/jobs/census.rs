//! How many instances a study ought to have: what its instances say, and what the archive that it comes from says.

use std::collections::BTreeMap;

use sqlx::{SqliteConnection, SqlitePool};

use crate::codes::Uid;
use crate::store::{StoreError, now_ms};

/// A study that nothing came of for a while, and whose source was not asked since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unasked {
    /// Study Instance UID.
    pub study_uid: Uid,
    /// AE title that sent the last of it.
    pub calling: String,
}

/// What an archive says of a study: instances by series, or why it says nothing.
pub type Census = Result<BTreeMap<Uid, u32>, String>;

/// Studies that came from these senders, are quiet since `quiet_ms`, and whose source was not asked since; the oldest first.
///
/// # Errors
/// Where the database fails.
pub async fn unasked(pool: &SqlitePool, quiet_ms: i64, senders: &[String]) -> Result<Vec<Unasked>, StoreError> {
    let query = sqlx::query_as(
        "SELECT study_uid, (SELECT calling FROM instance WHERE instance.study_uid = study.study_uid ORDER BY received_ms DESC LIMIT 1) AS sender
         FROM study WHERE state = 'receiving' AND last_arrival_ms <= ? AND sender IN (SELECT value FROM json_each(?))
         AND NOT EXISTS (SELECT 1 FROM census WHERE census.study_uid = study.study_uid AND asked_ms > last_arrival_ms)
         ORDER BY last_arrival_ms LIMIT 100",
    );
    let query = query.bind(now_ms() - quiet_ms).bind(serde_json::json!(senders).to_string());
    let found: Vec<(Uid, String)> = query.fetch_all(pool).await?;
    Ok(found.into_iter().map(|(study_uid, calling)| Unasked { study_uid, calling }).collect())
}

/// Enters what `source` says of a study at `asked_ms`.
///
/// # Errors
/// Where the database fails.
pub async fn enter_census(pool: &SqlitePool, study_uid: &str, source: &str, asked_ms: i64, census: &Census) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO census (study_uid, source, asked_ms, series, remark) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (study_uid) DO UPDATE SET source = excluded.source, asked_ms = excluded.asked_ms, series = excluded.series,
            remark = excluded.remark",
    );
    let series = census.as_ref().map_or_else(|_| "{}".to_owned(), |series| serde_json::json!(series).to_string());
    let remark = census.as_ref().err();
    query.bind(study_uid).bind(source).bind(asked_ms).bind(series).bind(remark).execute(pool).await?;
    Ok(())
}

/// What was removed of a study, as it was old, against what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone {
    /// All that is here was here before, was removed, and has come again.
    pub(super) nothing_new: bool,
    /// Instances that were removed and have not come again.
    pub(super) lacking: i64,
}

impl Gone {
    pub(super) async fn of(connection: &mut SqliteConnection, study_uid: &str) -> Result<Self, StoreError> {
        let query = sqlx::query_as(
            "SELECT EXISTS (SELECT 1 FROM gone WHERE study_uid = ?1) AND NOT EXISTS (
                SELECT 1 FROM instance WHERE study_uid = ?1 AND content NOT IN (SELECT content FROM gone WHERE study_uid = ?1)
                AND NOT EXISTS (SELECT 1 FROM result WHERE result.sop_instance_uid = instance.sop_instance_uid)),
             (SELECT count(*) FROM gone WHERE study_uid = ?1 AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.content = gone.content))",
        );
        let (nothing_new, lacking) = query.bind(study_uid).fetch_one(connection).await?;
        Ok(Self { nothing_new, lacking })
    }
}

/// What is known of a study's completeness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Instances of those series that numbers are known of, or of all.
    here: i64,
    /// How many there should be, as far as somebody says.
    named: Option<i64>,
    /// That ought to be here and are not.
    pub(super) missing: i64,
    /// Who says so, with the verb.
    by: String,
    /// The source should say, and was not asked since the last instance came.
    pub(super) open: bool,
    /// Why the source says nothing.
    unanswered: Option<String>,
}

impl Evidence {
    /// Of a study; its source is one of `senders` where that is to be asked.
    pub(super) async fn of(connection: &mut SqliteConnection, study_uid: &str, senders: &[String]) -> Result<Self, StoreError> {
        // A result of ours that came back is in no census.
        let query = sqlx::query_as(
            "SELECT series_uid, count(*), max(of_series), max(of_study) FROM instance
             WHERE study_uid = ? AND NOT EXISTS (SELECT 1 FROM result WHERE result.sop_instance_uid = instance.sop_instance_uid) GROUP BY 1",
        );
        type Series = (Uid, i64, Option<i64>, Option<i64>);
        let series: Vec<Series> = query.bind(study_uid).fetch_all(&mut *connection).await?;
        let query = sqlx::query_as(
            "SELECT (SELECT calling FROM instance WHERE study_uid = ?1 ORDER BY received_ms DESC LIMIT 1),
                (SELECT asked_ms > last_arrival_ms FROM census JOIN study USING (study_uid) WHERE study_uid = ?1),
                (SELECT source FROM census WHERE study_uid = ?1), (SELECT series FROM census WHERE study_uid = ?1),
                (SELECT remark FROM census WHERE study_uid = ?1)",
        );
        type Known = (Option<String>, Option<bool>, Option<String>, Option<String>, Option<String>);
        let (calling, fresh, source, census, remark): Known = query.bind(study_uid).fetch_one(&mut *connection).await?;
        let has_source = calling.is_some_and(|calling| senders.contains(&calling));
        let fresh = fresh.unwrap_or(false);
        let census: BTreeMap<Uid, i64> = census.filter(|_| fresh).and_then(|census| serde_json::from_str(&census).ok()).unwrap_or_default();
        let evidence = Self::weighed(&series, &census, source.as_deref().unwrap_or_default());
        let gone = Gone::of(connection, study_uid).await?;
        let evidence = if gone.nothing_new || gone.lacking <= evidence.missing { evidence } else { Self::beside(&series, gone.lacking) };
        Ok(Self { open: has_source && !fresh, unanswered: remark.filter(|_| fresh), ..evidence })
    }

    /// Instances here by series, with what they say of their series and their study, against what the source says.
    fn weighed(series: &[(Uid, i64, Option<i64>, Option<i64>)], census: &BTreeMap<Uid, i64>, source: &str) -> Self {
        let here_of = |uid: &str| series.iter().find(|one| one.0 == uid).map_or(0, |one| one.1);
        if !census.is_empty() {
            let missing = census.iter().map(|(uid, named)| (named - here_of(uid)).max(0)).sum();
            let here = census.keys().map(|uid| here_of(uid)).sum();
            return Self { here, named: Some(census.values().sum()), missing, by: format!("{source} names"), ..Self::default() };
        }
        let here: i64 = series.iter().map(|one| one.1).sum();
        let of_series: i64 = series.iter().filter_map(|one| Some((one.2? - one.1).max(0))).sum();
        let of_study = series.iter().filter_map(|one| one.3).max().map(|named| (named - here).max(0));
        let says = of_study.is_some() || series.iter().any(|one| one.2.is_some());
        let missing = of_series.max(of_study.unwrap_or_default());
        Self { here, named: says.then_some(here + missing), missing, by: "they name themselves".to_owned(), ..Self::default() }
    }

    /// Something new of a study of which others were removed.
    fn beside(series: &[(Uid, i64, Option<i64>, Option<i64>)], lacking: i64) -> Self {
        let here: i64 = series.iter().map(|one| one.1).sum();
        Self { here, named: Some(here + lacking), missing: lacking, by: "are or were here".to_owned(), ..Self::default() }
    }

    /// Whether somebody says how many there should be, and they are here.
    pub(super) fn is_whole(&self) -> bool {
        self.named.is_some() && self.missing == 0
    }

    /// In words, after how a study came to its end.
    pub(super) fn reason(&self, how: &str) -> String {
        let Self { here, missing, by, .. } = self;
        match (self.named, &self.unanswered) {
            (Some(named), _) if *missing > 0 => format!("{how}; {here} of {named} instances that {by}: incomplete"),
            (Some(named), _) => format!("{how}; all {here} of {named} instances that {by}"),
            (None, Some(why)) => format!("{how}; the source names no number: {why}"),
            (None, None) => how.to_owned(),
        }
    }
}

/// How many instances of a study ought to be here and are not, and by which evidence, where a job's study was complete without them.
///
/// # Errors
/// Where the database fails.
pub async fn missing(pool: &SqlitePool, study_uid: &str, generation: i64) -> Result<Option<String>, StoreError> {
    let query = sqlx::query_scalar("SELECT reason FROM completion WHERE study_uid = ? AND generation = ? AND missing > 0");
    Ok(query.bind(study_uid).bind(generation).fetch_optional(pool).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(uid: &str, here: i64, of_series: Option<i64>, of_study: Option<i64>) -> (Uid, i64, Option<i64>, Option<i64>) {
        (uid.into(), here, of_series, of_study)
    }

    #[test]
    fn what_is_missing_is_counted_series_by_series() {
        let none = BTreeMap::new();
        let census = |numbers: &[(&str, i64)]| numbers.iter().map(|(uid, number)| ((*uid).to_owned(), *number)).collect::<BTreeMap<_, _>>();
        let [a, b] = [series("1", 100, None, None), series("2", 50, None, None)];
        for (series, census, missing, reason) in [
            (vec![a.clone(), b.clone()], none.clone(), 0, "quiet"),
            (vec![a.clone(), b.clone()], census(&[("1", 100), ("2", 50)]), 0, "quiet; all 150 of 150 instances that PACS names"),
            (vec![a.clone(), b.clone()], census(&[("1", 90), ("2", 60)]), 10, "quiet; 150 of 150 instances that PACS names: incomplete"),
            (vec![a.clone()], census(&[("1", 100), ("2", 50)]), 50, "quiet; 100 of 150 instances that PACS names: incomplete"),
            (vec![a, b], census(&[("1", 100)]), 0, "quiet; all 100 of 100 instances that PACS names"),
            (
                vec![series("1", 100, Some(120), None)],
                none.clone(),
                20,
                "quiet; 100 of 120 instances that they name themselves: incomplete",
            ),
            (vec![series("1", 100, Some(100), Some(130))], none, 30, "quiet; 100 of 130 instances that they name themselves: incomplete"),
        ] {
            let evidence = Evidence::weighed(&series, &census, "PACS");
            assert_eq!((evidence.missing, evidence.reason("quiet").as_str()), (missing, reason));
        }
    }
}
