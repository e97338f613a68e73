#!/bin/sh
# Starts Redis with one user for each part, each with what its code does and no more; docker-compose.yml
# runs it as `sh redis_users.sh FOLDER ARGUMENT…`, with a password for each user in the environment.
#
# Only digests of the passwords are written, to FOLDER; no list of processes shows a password. Nobody
# is let in as "default". A part that may call EVAL is held to its commands and keys in scripts, too.
set -eu
folder=$1
shift

user() { # name, password, rules…: a line of the ACL file
    digest=$(printf %s "$2" | sha256sum | cut -c1-64)
    name=$1
    shift 2
    echo "user $name on #$digest resetkeys resetchannels -@all $*"
}

connect="+hello +ping +select +client|setname"
# what clients say of themselves at each connection; Redis 7.0 does not know it yet
case $(redis-server --version) in *v=7.0.*) ;; *) connect="$connect +client|setinfo" ;; esac
# a task: its record, its event log, its control fields, and what its webhook is told
task="task:* ~events:{task:*} ~state:{task:*} ~webhooks:{task:*} ~deliveries:{task:*} ~webhooks:due"
read="+get +mget +exists +hget +hgetall +hmget +xrange +zscore +zrange +zrevrange +zrangebyscore +zcard +time"
write="+set +del +hset +hdel +hincrby +pexpireat +xadd +zadd +zrem +publish +eval +evalsha"
follow="+subscribe +unsubscribe &events:{task:*} &textgen:wake"
# addresses that are gone, and what webhooks are signed with
webhooks="~webhooks:gone:* ~webhooks:secrets:* +lrange"
submit="~outbox ~tasks:watch ~tasks:created ~idem:* +watch +unwatch +multi +exec +info"
letters="~tasks:dead ~dead:*"
# what workers know of providers together, and pybreaker of their circuits
providers="~limit:{providers}:* +incrby +setnx"
# limits, ledger and waiting lists
meter="~limit:{limits}:* ~usage:{limits}:* ~waiting:{limits} ~waiting:{limits}:* +hexists +sadd +srem +smembers +pexpire"
# cached results
cache="~cache:*"
# finding tasks, and telling how long they wait
lists="~tasks:{* ~tasks:waiting:* ~tasks:ends:* +zrevrangebylex +zremrangebylex +zremrangebyrank"
lists="$lists +zrank +zcount +pttl +pexpire"

# API keys: the web app looks them up, the command line makes them
keys="~api-keys +hvals +hlen +hexists"

umask 077
{
    echo "user default reset"
    user admin "$REDIS_ADMIN_PASSWORD" "~* &* +@all"
    user web "$REDIS_WEB_PASSWORD" "$connect ~$task $read $write $follow $submit $letters $meter $cache $lists $webhooks" \
        "%R~workers %R~api-keys"
    user worker "$REDIS_PASSWORD" "$connect ~$task $read $write $follow $submit $letters $meter $cache $lists $webhooks $keys" \
        "~tasks:deadbox ~workers ~janitor:* +zremrangebyscore +zscan" \
        "$providers +hexists +hlen +rpush +ltrim"
    # shows tasks and cancels them
    user flower "$REDIS_FLOWER_PASSWORD" "$connect ~$task $read $write $follow $lists ~outbox ~tasks:watch ~usage:{limits}:due"
    # for scripts that look into Redis
    user monitor "$REDIS_MONITOR_PASSWORD" "$connect %R~task:* %R~events:{task:*}" \
        "+keys +scan +get +mget +exists +ttl +pttl +expiretime +type +strlen +xrange +xrevrange +xlen"
} >"$folder/users.acl"
echo "aclfile $folder/users.acl" >"$folder/redis.conf"
exec redis-server "$folder/redis.conf" "$@"
