#!/bin/sh
# Starts RabbitMQ with one user for each part, each with what its code does and no more;
# docker-compose.yml runs it as `sh rabbitmq_users.sh FOLDER`, with a password for each user in the
# environment. RabbitMQ reads the users anew at each start (load_definitions in rabbitmq.conf).
#
# Only salted digests of the passwords are written, to FOLDER; no list of processes shows a password.
# There is no guest. To declare a queue that dead-letters, a user must also be allowed to read it, and
# to write where its dead letters go.
set -eu
folder=$1
name=$(printf %s "${TEXT_GENERATION_QUEUE:-text_generation_tasks}" | sed 's/\./\\\\./g')

bytes() { # in hexadecimal → as they are
    for byte in $1; do
        # shellcheck disable=SC2059 # the format is the byte
        printf "\\$(printf %03o "0x$byte")"
    done
}

hash() { # password → RabbitMQ's rabbit_password_hashing_sha256: salt, SHA-256 of salt and password
    salt=$(head -c 4 /dev/urandom | od -An -v -tx1)
    digest=$({ bytes "$salt"; printf %s "$1"; } | sha256sum | cut -c1-64 | sed 's/../& /g')
    bytes "$salt $digest" | base64 | tr -d '\n'
}

user() { # name, password, tag
    printf '{"name": "%s", "password_hash": "%s", ' "$1" "$(hash "$2")"
    printf '"hashing_algorithm": "rabbit_password_hashing_sha256", "tags": "%s"}' "$3"
}

permit() { # user, what it may declare and delete, publish to or bind, consume or bind from
    printf '{"user": "%s", "vhost": "/", "configure": "%s", "write": "%s", "read": "%s"}' "$@"
}

# the queues of all lanes
engines=$(printf %s "${TEXTGEN_ENGINE_LANES:-}" | tr -d ' ' | tr , '|')
lanes="$name${engines:+(\\\\.($engines))?}(\\\\.bulk)?"
# what Celery's events and its remote control are made of
events='celeryev(\\..+)?'
control='(.+\\.)?celery\\.pidbox'
watching="^($events|celery\\\\.pidbox|(.+\\\\.)?reply\\\\.celery\\\\.pidbox)\$"
working="$name(\\\\..+)?|$events|$control"

umask 077
cat >"$folder/definitions.json" <<END
{
  "vhosts": [{"name": "/"}],
  "users": [
    $(user admin "$RABBITMQ_ADMIN_PASSWORD" administrator),
    $(user web "$RABBITMQ_WEB_PASSWORD" ""),
    $(user worker "$RABBITMQ_PASSWORD" ""),
    $(user flower "$RABBITMQ_FLOWER_PASSWORD" management)
  ],
  "permissions": [
    $(permit admin ".*" ".*" ".*"),
    $(permit web "^$lanes\$" "^($lanes|$name\\\\.dlx)\$" "^($lanes|$name\\\\.dead)\$"),
    $(permit worker "^($working)\$" "^($working|amq\\\\.default)\$" "^($working)\$"),
    $(permit flower "$watching" "$watching" "$watching")
  ]
}
END
exec rabbitmq-server
