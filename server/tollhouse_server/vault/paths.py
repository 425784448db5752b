"""Where things lie in Vault. The policies and deploy/openbao/setup.sh, which cannot import this, say the same."""

SECRETS_MOUNT = "tollhouse"
TRANSIT_MOUNT = "transit"

# Below the secrets mount; Base64 of the secret under which API keys are digested.
PEPPER_PATH = "gateway/api-key-pepper"
PEPPER_FIELD = "value"

# The key below the transit mount that signs receipts. The gateway may sign with it, and nothing else.
RECEIPTS_KEY = "receipts"

# The key below the transit mount that signs checkpoints of the audit trail.
AUDIT_KEY = "audit"


def tenant_transit_key(tenant_id: str, version: int) -> str:
    """Return the key below the transit mount that wraps a tenant's data keys from `version` on; ids have no dots."""
    return f"tenant-{tenant_id}.{version}"
