-- The roles, each with only the rights that it needs; docs/security.md says why. The PostgreSQL image runs
-- this once, with psql, when its volume is new; for a database of your own:
--
--   WRITER_PASSWORD=... READER_PASSWORD=... PREFECT_PASSWORD=... psql -d warehouse -f roles.sql
--
-- The passwords come from the environment, so that no process list shows them.
\set ON_ERROR_STOP on
\getenv writer_password WRITER_PASSWORD
\getenv reader_password READER_PASSWORD
\getenv prefect_password PREFECT_PASSWORD

-- Reads the sources, and nothing else: whatever a job's query says, it cannot write.
CREATE ROLE nightshift_reader LOGIN PASSWORD :'reader_password';
ALTER ROLE nightshift_reader SET default_transaction_read_only = on;
-- Owns the ledger and the predictions, and sees no other table.
CREATE ROLE nightshift_writer LOGIN PASSWORD :'writer_password';
-- A group for those who read predictions: GRANT prediction_readers TO alice.
CREATE ROLE prediction_readers NOLOGIN;

REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO nightshift_reader, nightshift_writer, prediction_readers;
REVOKE ALL ON SCHEMA public FROM PUBLIC;

-- The existing tables, and those that this role creates later.
GRANT USAGE ON SCHEMA public TO nightshift_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO nightshift_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO nightshift_reader;

CREATE SCHEMA predictions AUTHORIZATION nightshift_writer;
GRANT USAGE ON SCHEMA predictions TO prediction_readers;
ALTER DEFAULT PRIVILEGES FOR ROLE nightshift_writer IN SCHEMA predictions
    GRANT SELECT ON TABLES TO prediction_readers;

-- Prefect's own database. It holds no source row, but every log line, and the alerts' webhook.
CREATE ROLE prefect LOGIN PASSWORD :'prefect_password';
CREATE DATABASE prefect OWNER prefect;
REVOKE ALL ON DATABASE prefect FROM PUBLIC;
