-- What a job has met, and what is still here of a study and a job.

ALTER TABLE job ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;      -- how often the process went down, or a lane was given up, during it
ALTER TABLE job ADD COLUMN rules TEXT NOT NULL DEFAULT '[]';        -- JSON: names of the rules that held when it was queued
ALTER TABLE job ADD COLUMN kept INTEGER NOT NULL DEFAULT 1;         -- 0: its results were removed, they are listed and no longer here
ALTER TABLE study ADD COLUMN kept INTEGER NOT NULL DEFAULT 1;       -- 0: its instances were removed
ALTER TABLE study ADD COLUMN contents TEXT;                         -- hash over its instances when it was complete the last time
CREATE INDEX study_kept ON study (last_arrival_ms) WHERE kept = 1;
CREATE INDEX job_kept ON job (ended_ms) WHERE kept = 1 AND ended_ms IS NOT NULL;
CREATE INDEX quarantine_by_age ON quarantine (received_ms);

-- Files and folders below the data folder that nothing refers to any more, and that are to be removed: gone from here when they are.
CREATE TABLE removed (
    path                TEXT NOT NULL PRIMARY KEY
) STRICT;

-- Bytes of all instances: one row, kept by the triggers.
CREATE TABLE held (
    bytes               INTEGER NOT NULL
) STRICT;
INSERT INTO held SELECT coalesce(sum(bytes), 0) FROM instance;
CREATE TRIGGER held_more AFTER INSERT ON instance BEGIN UPDATE held SET bytes = bytes + new.bytes; END;
CREATE TRIGGER held_less AFTER DELETE ON instance BEGIN UPDATE held SET bytes = bytes - old.bytes; END;

-- Two more states of a delivery: replaced (another form was sent instead), given-up (by order).
CREATE TABLE delivery_2 (
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
INSERT INTO delivery_2 SELECT * FROM delivery;
DROP TABLE delivery;
ALTER TABLE delivery_2 RENAME TO delivery;
CREATE INDEX delivery_due ON delivery (destination, not_before_ms) WHERE state IN ('due', 'stored');
CREATE INDEX delivery_asked ON delivery (transaction_uid) WHERE transaction_uid IS NOT NULL;
CREATE INDEX delivery_dead ON delivery (destination) WHERE state = 'dead';
CREATE INDEX job_dead ON job (state) WHERE state IN ('failed', 'quarantined');
