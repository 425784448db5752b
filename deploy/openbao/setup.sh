#!/bin/sh
# Initialises a new OpenBao, unseals it, and brings mounts, policies and AppRoles in line. Every step may run again.
# The unseal key lies in the volume /keys, beside the server that it protects: right for a trial, wrong for production.
set -eu

keys=${KEYS_DIR:-/keys}
credentials=${CREDENTIALS_DIR:-/credentials}
policies=${POLICIES_DIR:-/policies}
umask 077

# `bao status` exits with 0 when unsealed, 2 when sealed, 1 when there is no answer.
status() { bao status > /dev/null 2>&1 && echo 0 || echo $?; }
until [ "$(status)" != 1 ]; do sleep 1; done

if bao operator init -status > /dev/null 2>&1; then :; else
    bao operator init -key-shares=1 -key-threshold=1 > "$keys/init"
fi
unseal_key=$(sed -n 's/^Unseal Key 1: //p' "$keys/init")
BAO_TOKEN=$(sed -n 's/^Initial Root Token: //p' "$keys/init")
export BAO_TOKEN
# The key goes in by standard input, not as an argument that a process list shows.
[ "$(status)" = 0 ] || printf '{"key": "%s"}' "$unseal_key" | bao write sys/unseal - > /dev/null
until [ "$(status)" = 0 ]; do sleep 1; done

bao secrets list | grep -q '^tollhouse/' || bao secrets enable -path=tollhouse -version=2 kv
bao secrets list | grep -q '^transit/' || bao secrets enable transit
bao auth list | grep -q '^approle/' || bao auth enable approle
until bao write tollhouse/config cas_required=true max_versions=10 > /dev/null 2>&1; do sleep 1; done
bao write -f transit/keys/receipts type=ed25519 > /dev/null
bao write -f transit/keys/audit type=ed25519 > /dev/null

for role in gateway key-custodian; do
    bao policy write "$role" "$policies/$role.hcl"
    bao write "auth/approle/role/$role" token_policies="$role" token_ttl=15m token_max_ttl=4h \
        secret_id_ttl=0 secret_id_num_uses=0 > /dev/null
    mkdir -p "$credentials/$role"
    bao read -field=role_id "auth/approle/role/$role/role-id" > "$credentials/$role/role-id"
    [ -s "$credentials/$role/secret-id" ] ||
        bao write -f -field=secret_id "auth/approle/role/$role/secret-id" > "$credentials/$role/secret-id"
done

# Never replaced: every API key ever issued is a digest under this pepper.
if ! bao kv get -mount=tollhouse gateway/api-key-pepper > /dev/null 2>&1; then
    head -c 32 /dev/urandom | base64 | tr -d '\n' |
        bao kv put -mount=tollhouse -cas=0 gateway/api-key-pepper value=- > /dev/null
fi
[ -z "${CREDENTIALS_OWNER:-}" ] || chown -R "$CREDENTIALS_OWNER" "$credentials"
echo "OpenBao is set up."
