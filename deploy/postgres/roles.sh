#!/bin/bash
# Makes the two roles of Tollhouse in a new database: the owner of the schema, and the application, which owns nothing.
set -euo pipefail
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set owner_password="$TOLLHOUSE_OWNER_PASSWORD" --set app_password="$TOLLHOUSE_APP_PASSWORD" <<'SQL'
CREATE ROLE tollhouse_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'owner_password';
CREATE ROLE tollhouse_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'app_password';
ALTER DATABASE tollhouse OWNER TO tollhouse_owner;
CREATE EXTENSION IF NOT EXISTS ltree;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
REVOKE ALL ON DATABASE tollhouse FROM PUBLIC;
GRANT CONNECT ON DATABASE tollhouse TO tollhouse_app;
SQL
