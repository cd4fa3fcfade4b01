-- Instances that were removed because they were old: those that come again are nothing new of their study.
CREATE TABLE gone (
    content             TEXT NOT NULL PRIMARY KEY,
    study_uid           TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX gone_of_study ON gone (study_uid);
