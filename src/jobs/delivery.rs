//! Results on their way: what is due, and what became of it.

use std::path::{Path, PathBuf};

use sqlx::{Sqlite, SqlitePool, Transaction};

use crate::codes::{Uid, uid_by_name};
use crate::store::{StoreError, now_ms};

/// The longest wait between two attempts.
const MAX_RETRY_MS: i64 = 3_600_000;

/// A result that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// SOP Class UID.
    pub sop_class_uid: Uid,
    /// Transfer Syntax UID of its file.
    pub transfer_syntax_uid: Uid,
    /// Below the store's folder.
    pub path: PathBuf,
    /// The study that it belongs to.
    pub study_uid: Uid,
    /// How often it was tried.
    pub attempts: i64,
    /// Its form, as configurations name it.
    pub form: String,
    /// The job that made it.
    pub job: i64,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The destination has it, and answered with this status.
    Stored(u16),
    /// It may succeed later. The status, where there was an answer, and why.
    Again(Option<u16>, String),
    /// It will not.
    Dead(Option<u16>, String),
}

/// How often, and when, something is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The first wait; it doubles with each attempt, up to an hour.
    pub first_ms: i64,
    /// Attempts at most.
    pub attempts: u32,
}

impl Retry {
    /// When to try again what was tried that often.
    pub(super) fn at_ms(self, attempts: i64) -> i64 {
        now_ms() + self.first_ms.saturating_mul(1 << attempts.clamp(0, 20)).min(MAX_RETRY_MS)
    }

    /// Whether there is another attempt after that many.
    pub(super) fn again(self, attempts: i64) -> bool {
        attempts < i64::from(self.attempts)
    }
}

/// What is due at a destination, the oldest first, as many as go over one association.
///
/// # Errors
/// Where the database fails.
pub async fn due(pool: &SqlitePool, destination: &str, most: u32) -> Result<Vec<Due>, StoreError> {
    let query = sqlx::query_as(
        "SELECT result.sop_instance_uid, result.sop_class_uid, transfer_syntax_uid, path, study_uid, attempts, form, job.id
         FROM delivery JOIN result USING (sop_instance_uid) JOIN job ON job.id = result.job
         WHERE destination = ? AND delivery.state = 'due' AND delivery.not_before_ms <= ? ORDER BY result.job, result.sop_instance_uid LIMIT ?",
    );
    type Row = (Uid, Uid, Uid, String, Uid, i64, String, i64);
    let rows: Vec<Row> = query.bind(destination).bind(now_ms()).bind(most).fetch_all(pool).await?;
    let due =
        |(sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, study_uid, attempts, form, job): (_, _, _, String, _, _, _, _)| Due {
            sop_instance_uid,
            sop_class_uid,
            transfer_syntax_uid,
            path: path.into(),
            study_uid,
            attempts,
            form,
            job,
        };
    Ok(rows.into_iter().map(due).collect())
}

/// A job all of whose results a destination has taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The study.
    pub study_uid: Uid,
    /// When the job ended, ms since 1970.
    pub ended_ms: i64,
    /// What the job said of itself.
    pub outcome: serde_json::Value,
}

/// The job, where its results are all at the destination and commitment was not asked for yet; none where something of it is due or dead.
///
/// # Errors
/// Where the database fails.
pub async fn taken(pool: &SqlitePool, destination: &str, job: i64) -> Result<Option<Taken>, StoreError> {
    let query = sqlx::query_as(
        "SELECT study_uid, ended_ms, outcome FROM job WHERE id = ?1 AND state = 'done' AND NOT EXISTS
            (SELECT 1 FROM result JOIN delivery USING (sop_instance_uid)
             WHERE result.job = ?1 AND destination = ?2 AND (delivery.state <> 'stored' OR asked > 0))",
    );
    let found: Option<(Uid, i64, String)> = query.bind(job).bind(destination).fetch_optional(pool).await?;
    Ok(found.map(|(study_uid, ended_ms, outcome)| Taken {
        study_uid,
        ended_ms,
        outcome: serde_json::from_str(&outcome).unwrap_or_default(),
    }))
}

/// Enters what an attempt came to. What may succeed later waits; after the last attempt it is dead, unless there is something `instead` of
/// it: the results of that form from the same series are due then. How many these are.
///
/// # Errors
/// Where the database fails; nothing is entered then.
pub async fn settle(
    pool: &SqlitePool,
    destination: &str,
    due: &Due,
    verdict: &Verdict,
    retry: Retry,
    instead: Option<&str>,
) -> Result<u64, StoreError> {
    let (state, status, remark) = match verdict {
        Verdict::Stored(status) => ("stored", Some(*status), None),
        Verdict::Again(status, why) if retry.again(due.attempts + 1) => ("due", *status, Some(why)),
        Verdict::Again(status, why) | Verdict::Dead(status, why) => ("dead", *status, Some(why)),
    };
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let query = sqlx::query(
        "UPDATE delivery SET state = ?, attempts = attempts + 1, not_before_ms = ?, status = ?, remark = ?
         WHERE sop_instance_uid = ? AND destination = ? AND state = 'due'",
    );
    let query = query.bind(state).bind(if state == "due" { retry.at_ms(due.attempts) } else { 0 }).bind(status).bind(remark);
    let entered = query.bind(&due.sop_instance_uid).bind(destination).execute(&mut *transaction).await?.rows_affected();
    let replaced = match instead {
        Some(form) if state == "dead" && entered > 0 => replace(&mut transaction, destination, due, form).await?,
        _ => 0,
    };
    transaction.commit().await?;
    Ok(replaced)
}

/// What is dead is replaced by the results of another form from the same series, which lie in the same folder.
async fn replace(transaction: &mut Transaction<'_, Sqlite>, destination: &str, dead: &Due, form: &str) -> Result<u64, StoreError> {
    let query = sqlx::query_as(
        "SELECT sop_instance_uid, path FROM result WHERE form = ? AND job = (SELECT job FROM result WHERE sop_instance_uid = ?)",
    );
    let others: Vec<(Uid, String)> = query.bind(form).bind(&dead.sop_instance_uid).fetch_all(&mut **transaction).await?;
    let mut count = 0;
    for (other, _) in others.iter().filter(|(_, path)| Path::new(path).parent() == dead.path.parent()) {
        let query = sqlx::query(
            "INSERT INTO delivery (sop_instance_uid, destination, state, attempts, not_before_ms, asked) VALUES (?, ?, 'due', 0, 0, 0)
             ON CONFLICT DO NOTHING",
        );
        count += query.bind(other).bind(destination).execute(&mut **transaction).await?.rows_affected();
    }
    if count > 0 {
        let query = sqlx::query("UPDATE delivery SET state = 'replaced' WHERE sop_instance_uid = ? AND destination = ?");
        query.bind(&dead.sop_instance_uid).bind(destination).execute(&mut **transaction).await?;
    }
    Ok(count)
}

/// How many results of before `before_ms` are still due at a destination, or not committed where it is asked for that.
///
/// # Errors
/// Where the database fails.
pub async fn overdue(pool: &SqlitePool, destination: &str, commitment: bool, before_ms: i64) -> Result<i64, StoreError> {
    let query = sqlx::query_scalar(
        "SELECT count(*) FROM delivery JOIN result USING (sop_instance_uid) JOIN job ON job.id = result.job
         WHERE destination = ? AND delivery.state IN ('due', 'stored') AND (delivery.state = 'due' OR ?) AND job.ended_ms <= ?",
    );
    Ok(query.bind(destination).bind(commitment).bind(before_ms).fetch_one(pool).await?)
}

/// A delivery that is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// Where it did not go.
    pub destination: String,
    /// Study Instance UID.
    pub study_uid: Uid,
    /// How often it was tried.
    pub attempts: i64,
    /// Status of the last answer.
    pub status: Option<u16>,
    /// Why.
    pub remark: Option<String>,
}

/// Dead deliveries, the newest first.
///
/// # Errors
/// Where the database fails.
pub async fn dead(pool: &SqlitePool, destination: Option<&str>, most: u32) -> Result<Vec<Dead>, StoreError> {
    let query = sqlx::query_as(
        "SELECT sop_instance_uid, destination, study_uid, attempts, status, remark
         FROM delivery JOIN result USING (sop_instance_uid) JOIN job ON job.id = result.job
         WHERE delivery.state = 'dead' AND destination = coalesce(?, destination) ORDER BY job DESC, sop_instance_uid LIMIT ?",
    );
    type Row = (Uid, String, Uid, i64, Option<u16>, Option<String>);
    let rows: Vec<Row> = query.bind(destination).bind(most).fetch_all(pool).await?;
    let dead = |(sop_instance_uid, destination, study_uid, attempts, status, remark)| Dead {
        sop_instance_uid,
        destination,
        study_uid,
        attempts,
        status,
        remark,
    };
    Ok(rows.into_iter().map(dead).collect())
}

/// What is done with dead deliveries by order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadOrder {
    /// They are due, as if they never had been tried.
    Retry,
    /// Nobody waits for them any more.
    GiveUp,
}

/// Does that with all dead deliveries of a destination whose results are here, or with one of them; how many. Of a destination that
/// `is_gone` from the configuration what is due may be given up as well.
///
/// # Errors
/// Where the database fails.
pub async fn order_dead(
    pool: &SqlitePool,
    destination: &str,
    sop_instance_uid: Option<&str>,
    order: DeadOrder,
    is_gone: bool,
) -> Result<u64, StoreError> {
    let state = match order {
        DeadOrder::Retry => "due",
        DeadOrder::GiveUp => "given-up",
    };
    let query = sqlx::query(
        "UPDATE delivery SET state = ?1, attempts = iif(?1 = 'due', 0, attempts), not_before_ms = 0, asked = 0
         WHERE destination = ?2 AND (state = 'dead' OR state = 'due' AND ?4) AND sop_instance_uid = coalesce(?3, sop_instance_uid)
         AND EXISTS (SELECT 1 FROM result JOIN job ON job.id = result.job WHERE result.sop_instance_uid = delivery.sop_instance_uid AND kept = 1)",
    );
    let gives_up_due = is_gone && order == DeadOrder::GiveUp;
    Ok(query.bind(state).bind(destination).bind(sop_instance_uid).bind(gives_up_due).execute(pool).await?.rows_affected())
}

/// Because somebody says so, what waits or is dead of a study's results is due now, and counts as not tried yet. How many that
/// are, over all destinations.
///
/// # Errors
/// Where the database fails.
pub async fn send_again(pool: &SqlitePool, study_uid: &str) -> Result<u64, StoreError> {
    let query = sqlx::query(
        "UPDATE delivery SET state = 'due', attempts = 0, not_before_ms = 0 WHERE state IN ('due', 'dead') AND sop_instance_uid IN
            (SELECT sop_instance_uid FROM result JOIN job ON job.id = result.job WHERE study_uid = ? AND kept = 1)",
    );
    Ok(query.bind(study_uid).execute(pool).await?.rows_affected())
}

/// Results of one job that a destination is to take responsibility for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Names this time of asking: another time has another UID.
    pub transaction_uid: Uid,
    /// The study that they belong to.
    pub study_uid: Uid,
    /// SOP Class UID and SOP Instance UID of each.
    pub instances: Vec<(Uid, Uid)>,
}

/// The next results that commitment is to be asked for: of a job of which nothing is due at the destination any more. They count as asked
/// for with this transaction from now on, and come again after `retry` unless there is an answer.
///
/// # Errors
/// Where the database fails.
pub async fn ask(pool: &SqlitePool, destination: &str, retry: Retry) -> Result<Option<Asked>, StoreError> {
    let now = now_ms();
    let query = sqlx::query_as(
        "SELECT job.id, study_uid, queued_ms FROM delivery JOIN result USING (sop_instance_uid) JOIN job ON job.id = result.job
         WHERE destination = ?1 AND delivery.state = 'stored' AND delivery.not_before_ms <= ?2 AND asked < ?3 AND NOT EXISTS
            (SELECT 1 FROM result AS other JOIN delivery AS on_its_way USING (sop_instance_uid)
             WHERE other.job = job.id AND on_its_way.destination = ?1 AND on_its_way.state = 'due')
         ORDER BY job.id LIMIT 1",
    );
    let found: Option<(i64, Uid, i64)> = query.bind(destination).bind(now).bind(retry.attempts).fetch_optional(pool).await?;
    let Some((job, study_uid, queued_ms)) = found else { return Ok(None) };
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let query = sqlx::query_as(
        "SELECT sop_class_uid, sop_instance_uid, state = 'stored' AND not_before_ms <= ? AND asked < ?, asked
         FROM delivery JOIN result USING (sop_instance_uid) WHERE job = ? AND destination = ? ORDER BY sop_instance_uid",
    );
    let query = query.bind(now).bind(retry.attempts).bind(job).bind(destination);
    let rows: Vec<(Uid, Uid, bool, i64)> = query.fetch_all(&mut *transaction).await?;
    let asked = rows.iter().map(|row| row.3).max().unwrap_or_default();
    let names = [job, queued_ms, asked + 1].map(|number| number.to_string());
    let transaction_uid = uid_by_name(&["commitment", destination, &study_uid, &names[0], &names[1], &names[2]]);
    let instances: Vec<(Uid, Uid)> = rows.into_iter().filter(|row| row.2).map(|(class, instance, ..)| (class, instance)).collect();
    for (_, sop_instance_uid) in &instances {
        let query = sqlx::query(
            "UPDATE delivery SET asked = ?, transaction_uid = ?, not_before_ms = ? WHERE sop_instance_uid = ? AND destination = ?",
        );
        query
            .bind(asked + 1)
            .bind(&transaction_uid)
            .bind(retry.at_ms(asked))
            .bind(sop_instance_uid)
            .bind(destination)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(Some(Asked { transaction_uid, study_uid, instances }))
}

/// Enters that the destination could not be asked, or would not hear of it, and why: it is asked again after `wait_ms`.
///
/// # Errors
/// Where the database fails.
pub async fn not_asked(pool: &SqlitePool, destination: &str, asked: &Asked, why: &str, wait_ms: i64) -> Result<(), StoreError> {
    let query =
        sqlx::query("UPDATE delivery SET remark = ?, not_before_ms = ? WHERE transaction_uid = ? AND destination = ? AND state = 'stored'");
    query.bind(why).bind(now_ms() + wait_ms).bind(&asked.transaction_uid).bind(destination).execute(pool).await?;
    Ok(())
}

/// Whether the answer to a transaction has not come yet.
///
/// # Errors
/// Where the database fails.
pub async fn unanswered(pool: &SqlitePool, destination: &str, transaction_uid: &str) -> Result<bool, StoreError> {
    let query =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM delivery WHERE transaction_uid = ? AND destination = ? AND state = 'stored')");
    Ok(query.bind(transaction_uid).bind(destination).fetch_one(pool).await?)
}

/// What an answer has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answered {
    /// The study that it was about; none where the transaction is not the last one, or not ours.
    pub study_uid: Option<Uid>,
    /// Results that are committed.
    pub committed: u64,
    /// Results that are sent again.
    pub again: u64,
    /// Results that are not, any more.
    pub dead: u64,
}

/// Enters what a destination answers to a transaction: the instances that it takes responsibility for, and those that it does not with a
/// reason each. What it does not mention is asked for again.
///
/// # Errors
/// Where the database fails; nothing is entered then.
pub async fn answered(
    pool: &SqlitePool,
    destination: &str,
    transaction_uid: &str,
    committed: &[Uid],
    failed: &[(Uid, u16)],
    retry: Retry,
) -> Result<Answered, StoreError> {
    const OF_IT: &str = "transaction_uid = ? AND destination = ? AND sop_instance_uid = ? AND state = 'stored'";
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let query = sqlx::query_scalar(
        "SELECT study_uid FROM delivery JOIN result USING (sop_instance_uid) JOIN job ON job.id = result.job
         WHERE transaction_uid = ? AND destination = ? LIMIT 1",
    );
    let study_uid = query.bind(transaction_uid).bind(destination).fetch_optional(&mut *transaction).await?;
    let mut answered = Answered { study_uid, ..Answered::default() };
    for sop_instance_uid in committed {
        let query = sqlx::AssertSqlSafe(format!("UPDATE delivery SET state = 'committed', remark = NULL WHERE {OF_IT}"));
        let query = sqlx::query(query).bind(transaction_uid).bind(destination).bind(sop_instance_uid);
        answered.committed += query.execute(&mut *transaction).await?.rows_affected();
    }
    for (sop_instance_uid, reason) in failed {
        let query = sqlx::AssertSqlSafe(format!("SELECT attempts FROM delivery WHERE {OF_IT}"));
        let query = sqlx::query_scalar(query).bind(transaction_uid).bind(destination).bind(sop_instance_uid);
        let Some(attempts): Option<i64> = query.fetch_optional(&mut *transaction).await? else { continue };
        let again = retry.again(attempts);
        let query = sqlx::AssertSqlSafe(format!("UPDATE delivery SET state = ?, not_before_ms = ?, remark = ? WHERE {OF_IT}"));
        sqlx::query(query)
            .bind(if again { "due" } else { "dead" })
            .bind(retry.at_ms(attempts - 1))
            .bind(format!("not committed: {reason:04X}H"))
            .bind(transaction_uid)
            .bind(destination)
            .bind(sop_instance_uid)
            .execute(&mut *transaction)
            .await?;
        *(if again { &mut answered.again } else { &mut answered.dead }) += 1;
    }
    transaction.commit().await?;
    Ok(answered)
}

/// Results that are on their way to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// They are to be sent.
    pub due: i64,
    /// They were sent, and nobody has taken responsibility for them.
    pub stored: i64,
    /// They will not be sent without an order.
    pub dead: i64,
}

/// What a node that stops leaves for when it is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Results that are to be sent.
    pub deliveries: i64,
    /// Jobs that are to be run, those that wait for earlier studies among them.
    pub jobs: i64,
}

/// Counts what is left.
///
/// # Errors
/// Where the database fails.
pub async fn left(pool: &SqlitePool) -> Result<Left, StoreError> {
    let query = sqlx::query_as(
        "SELECT (SELECT count(*) FROM delivery WHERE state = 'due'), (SELECT count(*) FROM job WHERE state IN ('waiting', 'queued'))",
    );
    let (deliveries, jobs) = query.fetch_one(pool).await?;
    Ok(Left { deliveries, jobs })
}

/// Results that wait for a destination, or are dead, and how many: of each that is none of `configured`.
///
/// # Errors
/// Where the database fails.
pub async fn stranded(pool: &SqlitePool, configured: &[&str]) -> Result<Vec<(String, i64)>, StoreError> {
    let query = sqlx::query_as(
        "SELECT destination, count(*) FROM delivery WHERE state IN ('due', 'dead')
         AND destination NOT IN (SELECT value FROM json_each(?)) GROUP BY destination",
    );
    Ok(query.bind(serde_json::json!(configured).to_string()).fetch_all(pool).await?)
}

/// How many results wait for a destination.
///
/// # Errors
/// Where the database fails.
pub async fn waiting(pool: &SqlitePool, destination: &str) -> Result<Waiting, StoreError> {
    let query = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE state = 'due'), count(*) FILTER (WHERE state = 'stored'), count(*) FILTER (WHERE state = 'dead')
         FROM delivery WHERE destination = ?",
    );
    let (due, stored, dead) = query.bind(destination).fetch_one(pool).await?;
    Ok(Waiting { due, stored, dead })
}
