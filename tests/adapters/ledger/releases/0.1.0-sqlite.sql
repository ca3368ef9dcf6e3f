-- The ledger of release 0.1.0 (SQLite), with one published run. It stays as it is.
CREATE TABLE nightshift_backfill_partitions (
	backfill_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	partition VARCHAR(255) NOT NULL, 
	partition_start DATETIME NOT NULL, 
	partition_end DATETIME NOT NULL, 
	state VARCHAR(255) NOT NULL, 
	reason TEXT NOT NULL, 
	rows BIGINT, 
	seconds DOUBLE, 
	changed_at DATETIME NOT NULL, 
	PRIMARY KEY (backfill_id, position), 
	FOREIGN KEY(backfill_id) REFERENCES nightshift_backfills (backfill_id)
);
CREATE TABLE nightshift_backfills (
	backfill_id INTEGER NOT NULL, 
	job VARCHAR(255) NOT NULL, 
	parameters TEXT NOT NULL, 
	model_name VARCHAR(255) NOT NULL, 
	model_version INTEGER NOT NULL, 
	owner VARCHAR(255) NOT NULL, 
	heartbeat_at DATETIME NOT NULL, 
	planned_at DATETIME NOT NULL, 
	ended_at DATETIME, 
	flow_run_id VARCHAR(255), 
	PRIMARY KEY (backfill_id)
);
CREATE TABLE nightshift_chunks (
	run_id INTEGER NOT NULL, 
	shard INTEGER NOT NULL, 
	chunk INTEGER NOT NULL, 
	first_key TEXT NOT NULL, 
	last_key TEXT NOT NULL, 
	rows BIGINT NOT NULL, 
	rejected BIGINT NOT NULL, 
	digest VARCHAR(255), 
	committed_at DATETIME NOT NULL, 
	PRIMARY KEY (run_id, shard, chunk), 
	FOREIGN KEY(run_id) REFERENCES nightshift_runs (run_id)
);
INSERT INTO "nightshift_chunks" VALUES(1,0,0,'[1]','[2]',2,0,NULL,'2026-11-25 02:42:06.231889');
CREATE TABLE nightshift_jobs (
	job VARCHAR(255) NOT NULL, 
	target VARCHAR(255) NOT NULL, 
	PRIMARY KEY (job), 
	UNIQUE (target)
);
INSERT INTO "nightshift_jobs" VALUES('job','scores');
CREATE TABLE nightshift_moves (
	move_id INTEGER NOT NULL, 
	job VARCHAR(255) NOT NULL, 
	range_start DATETIME NOT NULL, 
	range_end DATETIME NOT NULL, 
	run_id INTEGER NOT NULL, 
	action VARCHAR(255) NOT NULL, 
	moved_at DATETIME NOT NULL, 
	moved_by VARCHAR(255) NOT NULL, 
	reason TEXT, 
	PRIMARY KEY (move_id), 
	FOREIGN KEY(job) REFERENCES nightshift_jobs (job), 
	FOREIGN KEY(run_id) REFERENCES nightshift_runs (run_id)
);
INSERT INTO "nightshift_moves" VALUES(1,'job','0001-01-02 00:00:00.000000','9999-12-31 00:00:00.000000',1,'publish','2026-11-25 02:42:06.238642','worker:1:0',NULL);
CREATE TABLE nightshift_published (
	job VARCHAR(255) NOT NULL, 
	range_start DATETIME NOT NULL, 
	range_end DATETIME NOT NULL, 
	run_id INTEGER NOT NULL, 
	PRIMARY KEY (job, range_start), 
	FOREIGN KEY(job) REFERENCES nightshift_jobs (job), 
	FOREIGN KEY(run_id) REFERENCES nightshift_runs (run_id)
);
INSERT INTO "nightshift_published" VALUES('job','0001-01-02 00:00:00.000000','9999-12-31 00:00:00.000000',1);
CREATE TABLE nightshift_rejects (
	run_id INTEGER NOT NULL, 
	shard INTEGER NOT NULL, 
	chunk INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	row_key TEXT NOT NULL, 
	kind VARCHAR(255) NOT NULL, 
	error TEXT NOT NULL, 
	inputs TEXT NOT NULL, 
	PRIMARY KEY (run_id, shard, chunk, position), 
	FOREIGN KEY(run_id) REFERENCES nightshift_runs (run_id)
);
CREATE TABLE nightshift_runs (
	run_id INTEGER NOT NULL, 
	job VARCHAR(255) NOT NULL, 
	role VARCHAR(255) NOT NULL, 
	partition VARCHAR(255) NOT NULL, 
	partition_start DATETIME NOT NULL, 
	partition_end DATETIME NOT NULL, 
	model_name VARCHAR(255) NOT NULL, 
	model_version INTEGER NOT NULL, 
	model_digest VARCHAR(255) NOT NULL, 
	fingerprint VARCHAR(255) NOT NULL, 
	state VARCHAR(255) NOT NULL, 
	owner VARCHAR(255) NOT NULL, 
	heartbeat_at DATETIME NOT NULL, 
	started_at DATETIME NOT NULL, 
	scored_at DATETIME, 
	published_at DATETIME, 
	cleaned_at DATETIME, 
	flow_run_id VARCHAR(255), 
	error TEXT, 
	audit TEXT, 
	comparison TEXT, 
	PRIMARY KEY (run_id), 
	FOREIGN KEY(job) REFERENCES nightshift_jobs (job)
);
INSERT INTO "nightshift_runs" VALUES(1,'job','champion','all','0001-01-02 00:00:00.000000','9999-12-31 00:00:00.000000','model',1,'digest','one','published','worker:1:0','2026-11-25 02:42:06.221688','2026-11-25 02:42:06.221688','2026-11-25 02:42:06.234843','2026-11-25 02:42:06.238642',NULL,NULL,NULL,NULL,NULL);
CREATE TABLE nightshift_schema_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT nightshift_schema_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "nightshift_schema_version" VALUES('0001');
CREATE TABLE nightshift_shards (
	run_id INTEGER NOT NULL, 
	shard INTEGER NOT NULL, 
	after_key TEXT, 
	through_key TEXT, 
	owner VARCHAR(255) NOT NULL, 
	written_at DATETIME NOT NULL, 
	done BOOLEAN NOT NULL, 
	chunks_written INTEGER NOT NULL, 
	rows_written BIGINT NOT NULL, 
	rows_rejected BIGINT NOT NULL, 
	profile TEXT, 
	timings TEXT, 
	PRIMARY KEY (run_id, shard), 
	FOREIGN KEY(run_id) REFERENCES nightshift_runs (run_id)
);
INSERT INTO "nightshift_shards" VALUES(1,0,NULL,NULL,'worker:1:0','2026-11-25 02:42:06.231889',1,1,2,0,NULL,NULL);
CREATE TABLE scores_runs (
	run_id INTEGER NOT NULL, 
	id BIGINT NOT NULL, 
	prediction DOUBLE, 
	PRIMARY KEY (run_id, id)
);
INSERT INTO "scores_runs" VALUES(1,1,0.5);
INSERT INTO "scores_runs" VALUES(1,2,1.0);
CREATE TABLE t (
	id BIGINT NOT NULL, 
	x DOUBLE, 
	PRIMARY KEY (id)
);
INSERT INTO "t" VALUES(1,0.5);
INSERT INTO "t" VALUES(2,1.0);
CREATE INDEX ix_nightshift_backfills_job ON nightshift_backfills (job);
CREATE INDEX ix_nightshift_runs_job_partition ON nightshift_runs (job, partition);
CREATE INDEX ix_nightshift_published_run ON nightshift_published (run_id);
CREATE INDEX ix_nightshift_moves_job ON nightshift_moves (job);
CREATE VIEW scores AS SELECT scores_runs.id, scores_runs.prediction, nightshift_runs.model_version, nightshift_published.run_id, nightshift_runs.scored_at 
FROM nightshift_published JOIN nightshift_runs ON nightshift_runs.run_id = nightshift_published.run_id JOIN scores_runs ON scores_runs.run_id = nightshift_published.run_id;
