# What a serving process may do: read what it serves with, sign receipts. It writes nothing.
path "tollhouse/data/gateway/*"            { capabilities = ["read"] }
path "tollhouse/data/upstream-keys/*"      { capabilities = ["read"] }
path "tollhouse/metadata/upstream-keys/*"  { capabilities = ["list"] }
path "transit/sign/receipts"               { capabilities = ["update"] }
path "transit/verify/receipts"             { capabilities = ["update"] }
path "transit/keys/receipts"               { capabilities = ["read"] }
