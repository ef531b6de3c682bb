#!/bin/bash
# What the entry point of postgres does with POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB.
set -euo pipefail
chown postgres "$PGDATA"
chmod 0700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    secret=$(gosu postgres mktemp)
    printf '%s' "$POSTGRES_PASSWORD" > "$secret"
    gosu postgres initdb --username "$POSTGRES_USER" --pwfile "$secret" --auth-host scram-sha-256 >/dev/null
    rm "$secret"
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    # Nobody may connect from outside before the database is there.
    gosu postgres pg_ctl -w -o "-c listen_addresses=''" start >/dev/null
    gosu postgres createdb --username "$POSTGRES_USER" "$POSTGRES_DB"
    gosu postgres pg_ctl -w -m fast stop >/dev/null
fi
exec gosu postgres postgres -c listen_addresses='*'
