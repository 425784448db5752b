"""What calls cost and where they go: the price book, tiers, models, upstream accounts, metadata of their keys."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_PRICES = (
    """
CREATE TABLE price_book_version (
    version     bigint      NOT NULL CHECK (version > 0),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    origin      text        NOT NULL CHECK (origin IN ('PACKAGED', 'IMPORTED')),
    revision    integer     NOT NULL DEFAULT 0,
    digest      text        NOT NULL,
    importer    text        NOT NULL DEFAULT '',
    note        text        NOT NULL DEFAULT '',
    price_count integer     NOT NULL,
    CONSTRAINT price_book_version_pkey PRIMARY KEY (version)
)""",
    """
CREATE TABLE price_list (
    version              bigint      NOT NULL REFERENCES price_book_version (version),
    model                text        NOT NULL,
    effective_from       timestamptz NOT NULL,
    origin               text        NOT NULL CHECK (origin IN ('PACKAGED', 'IMPORTED')),
    source               text        NOT NULL,
    long_above_tokens    bigint,
    tokens_per_image     jsonb       NOT NULL DEFAULT '{}',
    tier_permille        jsonb       NOT NULL DEFAULT '{}',
    cached_tier_permille jsonb       NOT NULL DEFAULT '{}',
    CONSTRAINT price_list_pkey PRIMARY KEY (version, model, effective_from)
)""",
    """
CREATE TABLE price (
    version           bigint      NOT NULL,
    model             text        NOT NULL,
    effective_from    timestamptz NOT NULL,
    sku               text        NOT NULL,
    nanos_per_million bigint      NOT NULL CHECK (nanos_per_million >= 0),
    CONSTRAINT price_pkey PRIMARY KEY (version, model, effective_from, sku),
    CONSTRAINT price_list_fkey FOREIGN KEY (version, model, effective_from)
        REFERENCES price_list (version, model, effective_from)
)""",
)

_CATALOGUE = (
    """
CREATE TABLE catalogue_revision (
    revision  integer     NOT NULL PRIMARY KEY,
    seeded_at timestamptz NOT NULL DEFAULT now()
)""",
    """
CREATE TABLE model (
    model              text        NOT NULL CONSTRAINT model_pkey PRIMARY KEY,
    display_name       text        NOT NULL,
    upstreams          text[]      NOT NULL,
    capabilities       text[]      NOT NULL,
    input_token_limit  bigint      NOT NULL CHECK (input_token_limit > 0),
    output_token_limit bigint      NOT NULL CHECK (output_token_limit >= 0),
    images_per_answer  integer     NOT NULL DEFAULT 0,
    grounding_queries  integer     NOT NULL DEFAULT 0,
    tool_prompt_tokens bigint,
    shutdown_at        timestamptz,
    successor          text        NOT NULL DEFAULT '',
    source             text        NOT NULL DEFAULT '',
    origin             text        NOT NULL CHECK (origin IN ('PACKAGED', 'EDITED')),
    version            bigint      NOT NULL DEFAULT 1,
    updated_at         timestamptz NOT NULL DEFAULT now()
)""",
    """
CREATE TABLE model_alias (
    alias       text        NOT NULL CONSTRAINT model_alias_pkey PRIMARY KEY,
    model       text        NOT NULL CONSTRAINT model_alias_model_fkey REFERENCES model (model),
    shutdown_at timestamptz,
    origin      text        NOT NULL CHECK (origin IN ('PACKAGED', 'EDITED'))
)""",
    """
CREATE TABLE tier (
    tier         text        NOT NULL CONSTRAINT tier_pkey PRIMARY KEY,
    display_name text        NOT NULL,
    description  text        NOT NULL DEFAULT '',
    origin       text        NOT NULL CHECK (origin IN ('PACKAGED', 'EDITED')),
    version      bigint      NOT NULL DEFAULT 1,
    updated_at   timestamptz NOT NULL DEFAULT now()
)""",
    """
CREATE TABLE api_version (
    kind        text NOT NULL,
    method      text NOT NULL,
    api_version text NOT NULL,
    origin      text NOT NULL CHECK (origin IN ('PACKAGED', 'EDITED')),
    CONSTRAINT api_version_pkey PRIMARY KEY (kind, method)
)""",
    # account_id and region '' mean: every account that can serve the model.
    """
CREATE TABLE tier_target (
    tier       text    NOT NULL CONSTRAINT tier_target_tier_fkey REFERENCES tier (tier),
    position   integer NOT NULL CHECK (position >= 0),
    model      text    NOT NULL CONSTRAINT tier_target_model_fkey REFERENCES model (model),
    account_id text    NOT NULL DEFAULT '',
    region     text    NOT NULL DEFAULT '',
    CONSTRAINT tier_target_pkey PRIMARY KEY (tier, position)
)""",
)

_ACCOUNTS = (
    """
CREATE TABLE account (
    account_id   text        NOT NULL CONSTRAINT account_pkey PRIMARY KEY,
    display_name text        NOT NULL DEFAULT '',
    kind         text        NOT NULL CHECK (kind IN ('gemini_api', 'vertex', 'openai_compatible')),
    project      text        NOT NULL DEFAULT '',
    base_url_key text        NOT NULL,
    region       text        NOT NULL DEFAULT '',
    state        text        NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'DISABLED')),
    version      bigint      NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
)""",
    """
CREATE TABLE upstream_key (
    account_id    text        NOT NULL CONSTRAINT upstream_key_account_fkey REFERENCES account (account_id),
    key_id        text        NOT NULL,
    display_name  text        NOT NULL DEFAULT '',
    vault_version bigint      NOT NULL CHECK (vault_version > 0),
    fingerprint   text        NOT NULL CHECK (fingerprint ~ '^[0-9a-f]{16}$'),
    state         text        NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'DISABLED', 'QUARANTINED')),
    version       bigint      NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT upstream_key_pkey PRIMARY KEY (account_id, key_id)
)""",
)

_GRANTS = (
    # Prices are append-only: history is never changed, not even by the server itself.
    "GRANT SELECT, INSERT ON price_book_version, price_list, price, catalogue_revision TO tollhouse_app",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON model, model_alias, tier, tier_target, api_version TO tollhouse_app",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON account, upstream_key TO tollhouse_app",
)

_TABLES = (
    "upstream_key, account, api_version, tier_target, tier, model_alias, model, catalogue_revision, "
    "price, price_list, price_book_version"
)


def upgrade() -> None:
    """Create the tables and what the application role may do with them."""
    for statement in (*_PRICES, *_CATALOGUE, *_ACCOUNTS, *_GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Drop the tables."""
    op.execute(f"DROP TABLE {_TABLES}")
