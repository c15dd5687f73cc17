#!/bin/sh
# PostgreSQL from the package beside this file.
#
#   postgresql serve FOLDER PORT PASSWORD-FILE   makes a database in the folder and serves it on a loopback port
#   postgresql psql ARGUMENT...                  the command-line client
set -eu
packages="$(cd "$(dirname "$0")" && pwd)/packages"
case $1 in
psql)
    shift
    exec "$packages/pgserver/pginstall/bin/psql" "$@"
    ;;
serve)
    folder=$2 port=$3
    cp "$4" "$folder/password"
    as=
    if [ "$(id -u)" = 0 ]; then
        # PostgreSQL refuses to run as root, and nobody else may enter root's folders
        cp -R "$packages" "$folder/packages"
        packages="$folder/packages"
        chown -R nobody "$folder"
        as="setpriv --reuid nobody --regid nogroup --clear-groups"
    fi
    bin="$packages/pgserver/pginstall/bin"
    cd "$folder"
    $as "$bin/initdb" --pgdata="$folder/data" --username=postgres --auth=scram-sha-256 --pwfile="$folder/password" \
        --encoding=UTF8 --no-locale --no-sync
    exec $as "$bin/postgres" -D "$folder/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
        -c fsync=off -c max_connections=100
    ;;
esac
