#!/bin/bash
# Makes the roles of Tollhouse and the database theirs; what is there is brought in line, so it may run again. PostgreSQL 16
# or newer. The owner of the schema migrates; the application logs in, owns nothing and may do nothing by itself: each of
# its connections takes the role of the control plane or that of the ledger, whose rights every migration sets anew.
set -euo pipefail
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set owner_password="$TOLLHOUSE_OWNER_PASSWORD" --set app_password="$TOLLHOUSE_APP_PASSWORD" <<'SQL'
SELECT format('CREATE ROLE %I', role) FROM unnest(ARRAY[
    'tollhouse_owner', 'tollhouse_app', 'tollhouse_control', 'tollhouse_ledger']) AS role
WHERE to_regrole(role) IS NULL \gexec
ALTER ROLE tollhouse_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'owner_password';
ALTER ROLE tollhouse_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'app_password';
ALTER ROLE tollhouse_control NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE tollhouse_ledger NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
GRANT tollhouse_control, tollhouse_ledger TO tollhouse_app WITH INHERIT FALSE, SET TRUE, ADMIN FALSE;
SELECT format('ALTER DATABASE %I OWNER TO tollhouse_owner', current_database()) \gexec
CREATE EXTENSION IF NOT EXISTS ltree;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO tollhouse_app', current_database()) \gexec
SQL
