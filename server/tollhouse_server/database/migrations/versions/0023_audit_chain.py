"""The chain of the audit trail, its checkpoints, and what is refused."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_TABLES = (
    """
CREATE TABLE audit_head (
    tenant_id text   NOT NULL,
    sequence  bigint NOT NULL DEFAULT 0,
    hash      bytea  NOT NULL DEFAULT decode(repeat('00', 32), 'hex') CHECK (octet_length(hash) = 32),
    CONSTRAINT audit_head_pkey PRIMARY KEY (tenant_id)
)""",
    """
CREATE TABLE audit_checkpoint (
    tenant_id      text        NOT NULL,
    number         bigint      NOT NULL CHECK (number > 0),
    sequence       bigint      NOT NULL CHECK (sequence >= 0),
    hash           bytea       NOT NULL CHECK (octet_length(hash) = 32),
    first_sequence bigint      NOT NULL CHECK (first_sequence BETWEEN 1 AND sequence + 1),
    document       text        NOT NULL,
    tree_size      integer     NOT NULL,
    leaf_index     integer     NOT NULL,
    path           bytea[]     NOT NULL,
    key            text        NOT NULL,
    key_version    integer     NOT NULL,
    signature      bytea       NOT NULL,
    created_at     timestamptz NOT NULL,
    CONSTRAINT audit_checkpoint_pkey PRIMARY KEY (tenant_id, number)
)""",
    "GRANT SELECT ON audit_head TO tollhouse_app",
    "GRANT SELECT, INSERT ON audit_checkpoint TO tollhouse_app",
)

# What a row says is kept as the very text that was hashed: jsonb would write it anew.
_EVENT = """
ALTER TABLE audit_event
    -- squawk-ignore changing-column-type
    ALTER COLUMN before TYPE json USING before::json,
    -- squawk-ignore changing-column-type
    ALTER COLUMN after TYPE json USING after::json,
    ADD COLUMN kind       text   NOT NULL DEFAULT 'ACT'
        CONSTRAINT audit_event_kind CHECK (kind IN ('ACT', 'AUTHENTICATION_FAILURE', 'PERMISSION_DENIED')),
    ADD COLUMN outcome    text   NOT NULL DEFAULT 'SUCCESS'
        CONSTRAINT audit_event_outcome CHECK (outcome IN ('SUCCESS', 'FAILURE')),
    ADD COLUMN reason     text   NOT NULL DEFAULT '',
    ADD COLUMN count      bigint NOT NULL DEFAULT 1,
    ADD COLUMN started_at timestamptz,
    ADD COLUMN personal   text   NOT NULL DEFAULT 'NONE'
        CONSTRAINT audit_event_personal CHECK (personal IN ('NONE', 'SEALED', 'LEFT_OUT')),
    ADD COLUMN sealed_by  text   NOT NULL DEFAULT '',
    ADD COLUMN sealed     bytea,
    ADD COLUMN commitment bytea,
    ADD COLUMN sequence   bigint,
    ADD COLUMN previous   bytea,
    ADD COLUMN hash       bytea
"""

# One event as one line of JSON without a line end: what is hashed, searched, tailed and exported (audit/README.md).
# Its form is for ever: another one takes another log_version, and this one stays for the rows that have it.
_LINE = r"""
CREATE FUNCTION audit_line(e audit_event) RETURNS text LANGUAGE sql STABLE AS $$
SELECT concat(
    '{"metadata":{"tenant_uid":', to_json(e.tenant_id), ',"sequence":', e.sequence,
    ',"uid":', to_json(e.tenant_id || '/' || e.sequence), ',"version":"1.6.0","log_name":"audit","log_version":"1"',
    ',"event_code":', to_json(e.kind), ',"correlation_uid":', to_json(e.correlation_id),
    ',"product":{"name":"Tollhouse","vendor_name":"Tollhouse"}},"category_uid"\:6,"class_uid"\:6003',
    ',"activity_id":', a.id, ',"activity_name":', to_json(substring(e.method FROM '[^.]*$')),
    ',"type_uid":', 600300 + a.id, ',"severity_id":', CASE e.outcome WHEN 'SUCCESS' THEN 1 ELSE 2 END,
    ',"status_id":', CASE e.outcome WHEN 'SUCCESS' THEN 1 ELSE 2 END, ',"status_code":', to_json(e.reason),
    ',"time":', a.micros / 1000, ',"start_time":', a.start_micros / 1000, ',"count":', e.count,
    ',"actor":{"user":{"uid":', to_json(e.actor), ',"credential_uid":', to_json(e.credential_id), '}}',
    ',"api":{"operation":', to_json(e.method), ',"request":{"uid":', to_json(e.request_id), '}}',
    ',"resources":[{"uid":', to_json(e.resource), '}]',
    ',"unmapped":{"time_micros":', a.micros, ',"permission":', to_json(e.permission),
    ',"personal":', to_json(e.personal), ',"sealed_by":', to_json(e.sealed_by),
    ',"sealed":"', encode(e.sealed, 'hex'), '","commitment":"', encode(e.commitment, 'hex'),
    '","before":', coalesce(translate(e.before::text, E'\n\r\t', '   '), 'null'),
    ',"after":', coalesce(translate(e.after::text, E'\n\r\t', '   '), 'null'),
    ',"prev":"', encode(e.previous, 'hex'), '"}}'
)
FROM (
    SELECT
        CASE
            WHEN substring(e.method FROM '[^.]*$') ~ '^(Create|Add|Import)' THEN 1
            WHEN substring(e.method FROM '[^.]*$') ~ '^(Get|List|Search|Export|Verify)' THEN 2
            WHEN substring(e.method FROM '[^.]*$') ~ '^(Update|Set)' THEN 3
            WHEN substring(e.method FROM '[^.]*$') ~ '^(Delete|Drop|Destroy)' THEN 4
            ELSE 99
        END AS id,
        (extract(epoch FROM e.occurred_at) * 1000000)::bigint AS micros,
        (extract(epoch FROM coalesce(e.started_at, e.occurred_at)) * 1000000)::bigint AS start_micros
) a
$$
"""

_HASH = r"""
CREATE FUNCTION audit_hash(line text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
SELECT sha256(
    convert_to(E'tollhouse.audit/1\n', 'UTF8') || int8send(octet_length(convert_to(line, 'UTF8'))::bigint)
    || convert_to(line, 'UTF8')
)
$$
"""

_LINK = """
CREATE FUNCTION audit_link(e audit_event, moment timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    head audit_head;
BEGIN
    SELECT * INTO head FROM audit_head h WHERE h.tenant_id = e.tenant_id FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO audit_head (tenant_id) VALUES (e.tenant_id) ON CONFLICT DO NOTHING;
        SELECT * INTO STRICT head FROM audit_head h WHERE h.tenant_id = e.tenant_id FOR UPDATE;
    END IF;
    e.occurred_at := coalesce(moment, clock_timestamp());
    e.sequence := head.sequence + 1;
    e.previous := head.hash;
    e.hash := audit_hash(audit_line(e));
    UPDATE audit_event w SET occurred_at = e.occurred_at, sequence = e.sequence, previous = e.previous, hash = e.hash
    WHERE w.tenant_id = e.tenant_id AND w.event_id = e.event_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the event to be linked cannot be seen';
    END IF;
    UPDATE audit_head h SET sequence = e.sequence, hash = e.hash WHERE h.tenant_id = e.tenant_id;
END
$$
"""

# At the commit, after everything else that a transaction locks: so heads, which all acts of a tenant want, are locked
# for as short as can be, and whoever holds one waits for nothing but other heads.
_TRIGGER = (
    """
CREATE FUNCTION audit_link_new() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM audit_link(NEW, NULL);
    RETURN NULL;
END
$$
""",
    """
DO $$
DECLARE
    e audit_event;
BEGIN
    FOR e IN SELECT * FROM audit_event ORDER BY tenant_id, event_id LOOP
        PERFORM audit_link(e, e.occurred_at);
    END LOOP;
END
$$
""",
    "CREATE UNIQUE INDEX audit_event_sequence ON audit_event (tenant_id, sequence)",
    "CREATE INDEX audit_event_time ON audit_event (tenant_id, occurred_at)",
    """
CREATE CONSTRAINT TRIGGER audit_event_link AFTER INSERT ON audit_event
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit_link_new()
""",
)

# The application role deletes nothing: this is the one door, and it opens only behind a signed checkpoint that says
# where the trail begins from then on.
_DROP = """
CREATE FUNCTION audit_drop(of_tenant text, keep_months integer, at_most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    dropped bigint;
BEGIN
    IF keep_months < 1 THEN
        RAISE EXCEPTION 'the trail is kept for a month at the least';
    END IF;
    WITH old AS (
        SELECT e.event_id FROM audit_event e
        WHERE e.tenant_id = of_tenant
            AND e.sequence < (SELECT max(c.first_sequence) FROM audit_checkpoint c WHERE c.tenant_id = of_tenant)
            AND e.occurred_at < clock_timestamp() - make_interval(months => keep_months)
        ORDER BY e.sequence LIMIT at_most
    )
    DELETE FROM audit_event e USING old WHERE e.tenant_id = of_tenant AND e.event_id = old.event_id;
    GET DIAGNOSTICS dropped = ROW_COUNT;
    RETURN dropped;
END
$$
"""

_RIGHTS = (
    "REVOKE ALL ON FUNCTION audit_link(audit_event, timestamptz) FROM PUBLIC",
    "REVOKE ALL ON FUNCTION audit_link_new() FROM PUBLIC",
    "REVOKE ALL ON FUNCTION audit_drop(text, integer, integer) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION audit_drop(text, integer, integer) TO tollhouse_app",
)


def upgrade() -> None:
    """Link what is there, in the order in which it was written, and whatever comes."""
    for statement in (*_TABLES, _EVENT, _LINE, _HASH, _LINK, *_TRIGGER, _DROP, *_RIGHTS):
        op.execute(statement)


def downgrade() -> None:
    """Unlink everything; what is refused goes."""
    op.execute("DROP TRIGGER audit_event_link ON audit_event")
    for function in (
        "audit_drop(text, integer, integer)",
        "audit_link_new()",
        "audit_link(audit_event, timestamptz)",
        "audit_hash(text)",
        "audit_line(audit_event)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.execute("DELETE FROM audit_event WHERE kind <> 'ACT'")
    columns = ["kind", "outcome", "reason", "count", "started_at", "personal", "sealed_by", "sealed", "commitment"]
    columns += ["sequence", "previous", "hash"]
    op.execute(f"ALTER TABLE audit_event {', '.join(f'DROP COLUMN {column}' for column in columns)}")
    op.execute(
        "ALTER TABLE audit_event ALTER COLUMN before TYPE jsonb USING before::jsonb, "
        "ALTER COLUMN after TYPE jsonb USING after::jsonb"
    )
    op.execute("DROP INDEX audit_event_time")
    for table in ("audit_checkpoint", "audit_head"):
        op.execute(f"DROP TABLE {table}")
