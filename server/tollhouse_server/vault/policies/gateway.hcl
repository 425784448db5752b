# What a serving process may do: read what it serves with, sign receipts and the audit trail. It writes nothing.
path "tollhouse/data/gateway/*"            { capabilities = ["read"] }
path "tollhouse/data/upstream-keys/*"      { capabilities = ["read"] }
path "tollhouse/metadata/upstream-keys/*"  { capabilities = ["list"] }
path "transit/sign/receipts"               { capabilities = ["update"] }
path "transit/verify/receipts"             { capabilities = ["update"] }
path "transit/keys/receipts"               { capabilities = ["read"] }
path "transit/sign/audit"                  { capabilities = ["update"] }
path "transit/keys/audit"                  { capabilities = ["read"] }
# Tenants' data keys: it may have one made and unwrapped, but can neither make nor destroy what wraps them.
path "transit/datakey/plaintext/tenant-*"  { capabilities = ["update"] }
path "transit/decrypt/tenant-*"            { capabilities = ["update"] }
