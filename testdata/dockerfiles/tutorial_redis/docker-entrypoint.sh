#!/bin/sh
# With `ping` the server is started, asked once and ended; any other command is run as it is.
set -e
if [ "$1" != ping ]; then
    exec "$@"
fi
redis-server --save "" --unixsocket /tmp/redis.sock --port 0 --daemonize yes >/dev/null
until redis-cli -s /tmp/redis.sock ping 2>/dev/null; do :; done
redis-cli -s /tmp/redis.sock shutdown nosave
