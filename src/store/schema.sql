-- What the node knows. Times are milliseconds since 1970, UTC. One statement a table; every change of state is one transaction.

CREATE TABLE instance (
    content             TEXT NOT NULL PRIMARY KEY,  -- SHA-256 of transfer syntax and data set, hex: names the file
    sop_instance_uid    TEXT NOT NULL UNIQUE,       -- other content under the same UID is in quarantine, never here
    sop_class_uid       TEXT NOT NULL,
    series_uid          TEXT NOT NULL,
    study_uid           TEXT NOT NULL,
    bytes               INTEGER NOT NULL,
    calling             TEXT NOT NULL,              -- AE title that sent it first
    received_ms         INTEGER NOT NULL,
    of_study            INTEGER,                    -- how many instances it says that its study has (0020,1208)
    of_series           INTEGER                     -- .. and its series (0020,1209)
) STRICT;
CREATE INDEX instance_of_study ON instance (study_uid);

-- States: receiving -> complete -> receiving (when an instance comes late) -> ..
-- held: all that is here of it came because we asked for it, and no package is run on it; receiving, when any of it is sent to us
CREATE TABLE study (
    study_uid           TEXT NOT NULL PRIMARY KEY,
    patient_key         TEXT NOT NULL,              -- hash of Patient ID and name: a study has one patient
    state               TEXT NOT NULL CHECK (state IN ('held', 'receiving', 'complete')),
    generation          INTEGER NOT NULL,           -- how many times it was complete
    cut_off             INTEGER NOT NULL,           -- whether what brought the last of it was not released, yet or for ever
    last_arrival_ms     INTEGER NOT NULL,
    kept                INTEGER NOT NULL DEFAULT 1, -- 0: its instances were removed
    contents            TEXT                        -- hash over its instances when it was complete the last time
) STRICT;
CREATE INDEX study_kept ON study (last_arrival_ms) WHERE kept = 1;
CREATE INDEX study_receiving ON study (last_arrival_ms) WHERE state = 'receiving';

-- How many instances the archive that a study comes from says that it has, series by series.
CREATE TABLE census (
    study_uid           TEXT NOT NULL PRIMARY KEY,
    source              TEXT NOT NULL,              -- name of the archive in the configuration
    asked_ms            INTEGER NOT NULL,
    series              TEXT NOT NULL,              -- JSON: Series Instance UID to number
    remark              TEXT                        -- why it could not be asked
) STRICT;

-- Each time that a study was complete, and by which evidence.
CREATE TABLE completion (
    study_uid           TEXT NOT NULL REFERENCES study (study_uid),
    generation          INTEGER NOT NULL,
    at_ms               INTEGER NOT NULL,
    reason              TEXT NOT NULL,
    missing             INTEGER NOT NULL,           -- instances that ought to be here and are not
    PRIMARY KEY (study_uid, generation)
) STRICT, WITHOUT ROWID;

-- What was received and is not used: other content under a known UID, another patient in a known study.
CREATE TABLE quarantine (
    content             TEXT NOT NULL PRIMARY KEY,
    sop_instance_uid    TEXT NOT NULL,
    study_uid           TEXT NOT NULL,
    reason              TEXT NOT NULL,
    calling             TEXT NOT NULL,              -- AE titles that sent it, a backslash between two
    received_ms         INTEGER NOT NULL
) STRICT;
CREATE INDEX quarantine_by_age ON quarantine (received_ms);

-- States: waiting (for priors) -> queued -> running -> done | queued (after a failure that may pass) | failed (dead letter)
-- | quarantined (it took the process down)
CREATE TABLE job (
    id                  INTEGER PRIMARY KEY,
    study_uid           TEXT NOT NULL REFERENCES study (study_uid),
    package             TEXT NOT NULL,
    generation          INTEGER NOT NULL,           -- of the study
    state               TEXT NOT NULL CHECK (state IN ('waiting', 'queued', 'running', 'done', 'failed', 'quarantined', 'cancelled')),
    urgent              INTEGER NOT NULL,
    attempt             INTEGER NOT NULL,           -- fencing token: who finishes another attempt than this one is too late
    not_before_ms       INTEGER NOT NULL,
    queued_ms           INTEGER NOT NULL,
    ended_ms            INTEGER,
    outcome             TEXT,                       -- JSON: each series with its verdict
    crashes             INTEGER NOT NULL DEFAULT 0, -- how often the process went down, or a lane was given up, during it
    rules               TEXT NOT NULL DEFAULT '[]', -- JSON: names of the rules that held when it was queued
    kept                INTEGER NOT NULL DEFAULT 1, -- 0: its results were removed, they are listed and no longer here
    UNIQUE (study_uid, package, generation)
) STRICT;
CREATE INDEX job_queued ON job (urgent DESC, queued_ms) WHERE state = 'queued';
CREATE INDEX job_kept ON job (ended_ms) WHERE kept = 1 AND ended_ms IS NOT NULL;
CREATE INDEX job_dead ON job (state) WHERE state IN ('failed', 'quarantined');

-- The search for the earlier studies that a job is to refer to. States: due -> done | due again (what may pass)
-- | without (the job goes on) | failed (the job does not)
CREATE TABLE search (
    job                 INTEGER NOT NULL PRIMARY KEY REFERENCES job (id),
    archive             TEXT NOT NULL,              -- its name in the configuration
    state               TEXT NOT NULL CHECK (state IN ('due', 'done', 'without', 'failed')),
    attempts            INTEGER NOT NULL,           -- begun, so that one which ends the process counts, too
    not_before_ms       INTEGER NOT NULL,
    since_ms            INTEGER NOT NULL,           -- when it became due, which its job waits from
    code                TEXT,                       -- of the last failure
    remark              TEXT
) STRICT;
CREATE INDEX search_due ON search (archive, not_before_ms) WHERE state = 'due';

-- Earlier studies of a job's patient. States: asked -> held | lacking | refused (it is not this patient's)
CREATE TABLE prior (
    job                 INTEGER NOT NULL REFERENCES job (id),
    study_uid           TEXT NOT NULL,
    title               TEXT NOT NULL,              -- AE title of the archive, which sends it
    state               TEXT NOT NULL CHECK (state IN ('asked', 'held', 'lacking', 'refused')),
    instances           INTEGER NOT NULL,           -- that are here
    PRIMARY KEY (job, study_uid)
) STRICT, WITHOUT ROWID;
CREATE INDEX prior_of_study ON prior (study_uid);

CREATE TABLE result (
    sop_instance_uid    TEXT NOT NULL PRIMARY KEY,
    job                 INTEGER NOT NULL REFERENCES job (id),
    sop_class_uid       TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    series_uid          TEXT NOT NULL,
    form                TEXT NOT NULL,
    path                TEXT NOT NULL               -- below the data folder
) STRICT;
CREATE INDEX result_of_job ON result (job);

-- States: due -> stored -> committed (where commitment is asked for) | due again (what may pass, what is not committed)
-- | dead (what will not) | replaced (another form was sent instead); dead -> due, given-up (by order)
CREATE TABLE delivery (
    sop_instance_uid    TEXT NOT NULL REFERENCES result (sop_instance_uid),
    destination         TEXT NOT NULL,
    state               TEXT NOT NULL CHECK (state IN ('due', 'stored', 'committed', 'dead', 'replaced', 'given-up')),
    attempts            INTEGER NOT NULL,
    not_before_ms       INTEGER NOT NULL,           -- when it is sent again; when it is stored, when commitment is asked for again
    status              INTEGER,                    -- of the last C-STORE response
    remark              TEXT,                       -- why it is due again or dead, or not committed yet
    asked               INTEGER NOT NULL,           -- how often commitment was asked for
    transaction_uid     TEXT,                       -- of the last time; an answer to another one is too late
    PRIMARY KEY (sop_instance_uid, destination)
) STRICT, WITHOUT ROWID;
CREATE INDEX delivery_due ON delivery (destination, not_before_ms) WHERE state IN ('due', 'stored');
CREATE INDEX delivery_dead ON delivery (destination) WHERE state = 'dead';
CREATE INDEX delivery_asked ON delivery (transaction_uid) WHERE transaction_uid IS NOT NULL;

-- Storage commitment that others asked us for, and our answers to them. States: due -> sent | due again (what may pass) | dead
CREATE TABLE report (
    id                  INTEGER PRIMARY KEY,
    calling             TEXT NOT NULL,              -- AE title that asked
    transaction_uid     TEXT NOT NULL,
    instances           TEXT NOT NULL,              -- JSON: pairs of SOP Class UID and SOP Instance UID
    state               TEXT NOT NULL CHECK (state IN ('due', 'sent', 'dead')),
    held                INTEGER NOT NULL,           -- whether the association that asked is open and may take the answer
    attempts            INTEGER NOT NULL,
    not_before_ms       INTEGER NOT NULL,
    remark              TEXT,                       -- why it is due again or dead
    UNIQUE (calling, transaction_uid)
) STRICT;
CREATE INDEX report_due ON report (not_before_ms) WHERE state = 'due';

-- Append-only: each row holds the hash of the one before (audit.rs).
CREATE TABLE audit (
    id                  INTEGER PRIMARY KEY,
    at_ms               INTEGER NOT NULL,
    event               TEXT NOT NULL,              -- PS3.15 A.5 event ID, or a word of ours
    action              TEXT NOT NULL,              -- C, R, U, D or E
    outcome             INTEGER NOT NULL,           -- 0, 4, 8 or 12
    peer                TEXT NOT NULL,
    subject             TEXT NOT NULL,              -- study, job or configuration that it is about; no patient text
    detail              TEXT NOT NULL,
    sha256              TEXT NOT NULL               -- of the row before and of this one
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'audit is append-only'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN SELECT raise(ABORT, 'audit is append-only'); END;

-- Files and folders below the data folder that nothing refers to any more, and that are to be removed: gone from here when they are.
CREATE TABLE removed (
    path                TEXT NOT NULL PRIMARY KEY
) STRICT;

-- Bytes of all instances: one row, kept by the triggers.
CREATE TABLE held (
    bytes               INTEGER NOT NULL
) STRICT;
INSERT INTO held VALUES (0);
CREATE TRIGGER held_more AFTER INSERT ON instance BEGIN UPDATE held SET bytes = bytes + new.bytes; END;
CREATE TRIGGER held_less AFTER DELETE ON instance BEGIN UPDATE held SET bytes = bytes - old.bytes; END;
