-- The ledger of release 0.1.0 (PostgreSQL), with one published run. It stays as it is.
CREATE TABLE public.nightshift_backfill_partitions (
    backfill_id bigint NOT NULL,
    "position" integer NOT NULL,
    partition character varying(255) NOT NULL,
    partition_start timestamp with time zone NOT NULL,
    partition_end timestamp with time zone NOT NULL,
    state character varying(255) NOT NULL,
    reason character varying NOT NULL,
    rows bigint,
    seconds double precision,
    changed_at timestamp with time zone NOT NULL
);
CREATE TABLE public.nightshift_backfills (
    backfill_id bigint NOT NULL,
    job character varying(255) NOT NULL,
    parameters character varying NOT NULL,
    model_name character varying(255) NOT NULL,
    model_version integer NOT NULL,
    owner character varying(255) NOT NULL,
    heartbeat_at timestamp with time zone NOT NULL,
    planned_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    flow_run_id character varying(255)
);
CREATE SEQUENCE public.nightshift_backfills_backfill_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.nightshift_backfills_backfill_id_seq OWNED BY public.nightshift_backfills.backfill_id;
CREATE TABLE public.nightshift_chunks (
    run_id bigint NOT NULL,
    shard integer NOT NULL,
    chunk integer NOT NULL,
    first_key character varying NOT NULL,
    last_key character varying NOT NULL,
    rows bigint NOT NULL,
    rejected bigint NOT NULL,
    digest character varying(255),
    committed_at timestamp with time zone NOT NULL
);
CREATE TABLE public.nightshift_jobs (
    job character varying(255) NOT NULL,
    target character varying(255) NOT NULL
);
CREATE TABLE public.nightshift_moves (
    move_id bigint NOT NULL,
    job character varying(255) NOT NULL,
    range_start timestamp with time zone NOT NULL,
    range_end timestamp with time zone NOT NULL,
    run_id bigint NOT NULL,
    action character varying(255) NOT NULL,
    moved_at timestamp with time zone NOT NULL,
    moved_by character varying(255) NOT NULL,
    reason character varying
);
CREATE SEQUENCE public.nightshift_moves_move_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.nightshift_moves_move_id_seq OWNED BY public.nightshift_moves.move_id;
CREATE TABLE public.nightshift_published (
    job character varying(255) NOT NULL,
    range_start timestamp with time zone NOT NULL,
    range_end timestamp with time zone NOT NULL,
    run_id bigint NOT NULL
);
CREATE TABLE public.nightshift_rejects (
    run_id bigint NOT NULL,
    shard integer NOT NULL,
    chunk integer NOT NULL,
    "position" integer NOT NULL,
    row_key character varying NOT NULL,
    kind character varying(255) NOT NULL,
    error character varying NOT NULL,
    inputs character varying NOT NULL
);
CREATE TABLE public.nightshift_runs (
    run_id bigint NOT NULL,
    job character varying(255) NOT NULL,
    role character varying(255) NOT NULL,
    partition character varying(255) NOT NULL,
    partition_start timestamp with time zone NOT NULL,
    partition_end timestamp with time zone NOT NULL,
    model_name character varying(255) NOT NULL,
    model_version integer NOT NULL,
    model_digest character varying(255) NOT NULL,
    fingerprint character varying(255) NOT NULL,
    state character varying(255) NOT NULL,
    owner character varying(255) NOT NULL,
    heartbeat_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone NOT NULL,
    scored_at timestamp with time zone,
    published_at timestamp with time zone,
    cleaned_at timestamp with time zone,
    flow_run_id character varying(255),
    error character varying,
    audit character varying,
    comparison character varying
);
CREATE SEQUENCE public.nightshift_runs_run_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.nightshift_runs_run_id_seq OWNED BY public.nightshift_runs.run_id;
CREATE TABLE public.nightshift_schema_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.nightshift_shards (
    run_id bigint NOT NULL,
    shard integer NOT NULL,
    after_key character varying,
    through_key character varying,
    owner character varying(255) NOT NULL,
    written_at timestamp with time zone NOT NULL,
    done boolean NOT NULL,
    chunks_written integer NOT NULL,
    rows_written bigint NOT NULL,
    rows_rejected bigint NOT NULL,
    profile character varying,
    timings character varying
);
CREATE TABLE public.scores_runs (
    run_id bigint NOT NULL,
    id bigint NOT NULL,
    prediction double precision
);
CREATE VIEW public.scores AS
 SELECT scores_runs.id,
    scores_runs.prediction,
    nightshift_runs.model_version,
    nightshift_published.run_id,
    nightshift_runs.scored_at
   FROM ((public.nightshift_published
     JOIN public.nightshift_runs ON ((nightshift_runs.run_id = nightshift_published.run_id)))
     JOIN public.scores_runs ON ((scores_runs.run_id = nightshift_published.run_id)));
CREATE TABLE public.t (
    id bigint NOT NULL,
    x double precision
);
CREATE SEQUENCE public.t_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.t_id_seq OWNED BY public.t.id;
ALTER TABLE ONLY public.nightshift_backfills ALTER COLUMN backfill_id SET DEFAULT nextval('public.nightshift_backfills_backfill_id_seq'::regclass);
ALTER TABLE ONLY public.nightshift_moves ALTER COLUMN move_id SET DEFAULT nextval('public.nightshift_moves_move_id_seq'::regclass);
ALTER TABLE ONLY public.nightshift_runs ALTER COLUMN run_id SET DEFAULT nextval('public.nightshift_runs_run_id_seq'::regclass);
ALTER TABLE ONLY public.t ALTER COLUMN id SET DEFAULT nextval('public.t_id_seq'::regclass);
INSERT INTO public.nightshift_chunks VALUES (1, 0, 0, '[1]', '[2]', 2, 0, NULL, '2026-11-25 02:42:07.070561+00');
INSERT INTO public.nightshift_jobs VALUES ('job', 'scores');
INSERT INTO public.nightshift_moves VALUES (1, 'job', '0001-01-02 00:00:00+00', '9999-12-31 00:00:00+00', 1, 'publish', '2026-11-25 02:42:07.088778+00', 'worker:1:0', NULL);
INSERT INTO public.nightshift_published VALUES ('job', '0001-01-02 00:00:00+00', '9999-12-31 00:00:00+00', 1);
INSERT INTO public.nightshift_runs VALUES (1, 'job', 'champion', 'all', '0001-01-02 00:00:00+00', '9999-12-31 00:00:00+00', 'model', 1, 'digest', 'one', 'published', 'worker:1:0', '2026-11-25 02:42:07.040582+00', '2026-11-25 02:42:07.040582+00', '2026-11-25 02:42:07.081393+00', '2026-11-25 02:42:07.088778+00', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.nightshift_schema_version VALUES ('0001');
INSERT INTO public.nightshift_shards VALUES (1, 0, NULL, NULL, 'worker:1:0', '2026-11-25 02:42:07.070561+00', true, 1, 2, 0, NULL, NULL);
INSERT INTO public.scores_runs VALUES (1, 1, 0.5);
INSERT INTO public.scores_runs VALUES (1, 2, 1);
INSERT INTO public.t VALUES (1, 0.5);
INSERT INTO public.t VALUES (2, 1);
SELECT pg_catalog.setval('public.nightshift_backfills_backfill_id_seq', 1, false);
SELECT pg_catalog.setval('public.nightshift_moves_move_id_seq', 1, true);
SELECT pg_catalog.setval('public.nightshift_runs_run_id_seq', 1, true);
SELECT pg_catalog.setval('public.t_id_seq', 1, false);
ALTER TABLE ONLY public.nightshift_backfill_partitions
    ADD CONSTRAINT nightshift_backfill_partitions_pkey PRIMARY KEY (backfill_id, "position");
ALTER TABLE ONLY public.nightshift_backfills
    ADD CONSTRAINT nightshift_backfills_pkey PRIMARY KEY (backfill_id);
ALTER TABLE ONLY public.nightshift_chunks
    ADD CONSTRAINT nightshift_chunks_pkey PRIMARY KEY (run_id, shard, chunk);
ALTER TABLE ONLY public.nightshift_jobs
    ADD CONSTRAINT nightshift_jobs_pkey PRIMARY KEY (job);
ALTER TABLE ONLY public.nightshift_jobs
    ADD CONSTRAINT nightshift_jobs_target_key UNIQUE (target);
ALTER TABLE ONLY public.nightshift_moves
    ADD CONSTRAINT nightshift_moves_pkey PRIMARY KEY (move_id);
ALTER TABLE ONLY public.nightshift_published
    ADD CONSTRAINT nightshift_published_pkey PRIMARY KEY (job, range_start);
ALTER TABLE ONLY public.nightshift_rejects
    ADD CONSTRAINT nightshift_rejects_pkey PRIMARY KEY (run_id, shard, chunk, "position");
ALTER TABLE ONLY public.nightshift_runs
    ADD CONSTRAINT nightshift_runs_pkey PRIMARY KEY (run_id);
ALTER TABLE ONLY public.nightshift_schema_version
    ADD CONSTRAINT nightshift_schema_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.nightshift_shards
    ADD CONSTRAINT nightshift_shards_pkey PRIMARY KEY (run_id, shard);
ALTER TABLE ONLY public.scores_runs
    ADD CONSTRAINT scores_runs_pkey PRIMARY KEY (run_id, id);
ALTER TABLE ONLY public.t
    ADD CONSTRAINT t_pkey PRIMARY KEY (id);
CREATE INDEX ix_nightshift_backfills_job ON public.nightshift_backfills USING btree (job);
CREATE INDEX ix_nightshift_moves_job ON public.nightshift_moves USING btree (job);
CREATE INDEX ix_nightshift_published_run ON public.nightshift_published USING btree (run_id);
CREATE INDEX ix_nightshift_runs_job_partition ON public.nightshift_runs USING btree (job, partition);
ALTER TABLE ONLY public.nightshift_backfill_partitions
    ADD CONSTRAINT nightshift_backfill_partitions_backfill_id_fkey FOREIGN KEY (backfill_id) REFERENCES public.nightshift_backfills(backfill_id);
ALTER TABLE ONLY public.nightshift_chunks
    ADD CONSTRAINT nightshift_chunks_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.nightshift_runs(run_id);
ALTER TABLE ONLY public.nightshift_moves
    ADD CONSTRAINT nightshift_moves_job_fkey FOREIGN KEY (job) REFERENCES public.nightshift_jobs(job);
ALTER TABLE ONLY public.nightshift_moves
    ADD CONSTRAINT nightshift_moves_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.nightshift_runs(run_id);
ALTER TABLE ONLY public.nightshift_published
    ADD CONSTRAINT nightshift_published_job_fkey FOREIGN KEY (job) REFERENCES public.nightshift_jobs(job);
ALTER TABLE ONLY public.nightshift_published
    ADD CONSTRAINT nightshift_published_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.nightshift_runs(run_id);
ALTER TABLE ONLY public.nightshift_rejects
    ADD CONSTRAINT nightshift_rejects_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.nightshift_runs(run_id);
ALTER TABLE ONLY public.nightshift_runs
    ADD CONSTRAINT nightshift_runs_job_fkey FOREIGN KEY (job) REFERENCES public.nightshift_jobs(job);
ALTER TABLE ONLY public.nightshift_shards
    ADD CONSTRAINT nightshift_shards_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.nightshift_runs(run_id);
