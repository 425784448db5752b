# What key rotation may do: change the upstream keys. It cannot read the pepper or anything else of the gateway.
path "tollhouse/data/upstream-keys/*"      { capabilities = ["create", "read", "update", "delete"] }
path "tollhouse/delete/upstream-keys/*"    { capabilities = ["update"] }
path "tollhouse/destroy/upstream-keys/*"   { capabilities = ["update"] }
path "tollhouse/metadata/upstream-keys/*"  { capabilities = ["list", "read", "delete"] }
# What it proves itself with to those who issue keys.
path "tollhouse/data/custody/*"            { capabilities = ["create", "read", "update", "delete"] }
path "tollhouse/metadata/custody/*"        { capabilities = ["list", "read", "delete"] }
# What wraps tenants' data keys: it may make and destroy it, but can unwrap nothing.
path "transit/keys/tenant-*"               { capabilities = ["create", "read", "update", "delete"] }
