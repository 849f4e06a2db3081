#!/usr/bin/env bash
# Drives a running cluster with Debian's etcdctl: what an operator types, and what they get to see when it is wrong.
# usage: etcdctl.sh ENDPOINTS (comma separated); ETCDCTL names the program, ANSWERS a file for all that it prints, which
# `cargo xtask conformance` compares with what it prints about etcd. SINEW names our own program, unless the cluster is of
# etcd. With WORDS_DIFFER what a tool says of itself when it fails is left out, only what the server says counts.
set -euo pipefail

endpoints="$1"
program="${ETCDCTL:-etcdctl}"
export ETCDCTL_API=3
first="${endpoints%%,*}"
answers="${ANSWERS:-/dev/null}"
checks=0
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# Not compared: random identifiers in random order, and what members keep in their own way.
raw() { "$program" --endpoints="$endpoints" "$@"; }

# Runs a command and writes down what it was, what it printed and how it ended. Lines of its log have the time in them.
ctl() {
    local status=0
    raw "$@" >"$work/out" 2>"$work/err" || status=$?
    {
        printf '== %s\n' "$*"
        if [ -z "${WORDS_DIFFER:-}" ]; then
            cut -c 1-1000 "$work/out"
            grep -v '^{"level"' "$work/err" | cut -c 1-1000 || true
            echo "exit code $status"
        elif [ "$status" = 0 ]; then
            cut -c 1-1000 "$work/out"
        else
            echo "failed"
            grep -v '^{"level"' "$work/err" | grep -o 'etcdserver: .*' || true
        fi
    } >>"$answers"
    cat "$work/out"
    cat "$work/err" >&2
    return "$status"
}

# Only for the comparison; may fail.
shown() { ctl "$@" >"$work/ignored" 2>&1 || true; }

fail() {
    echo "FAIL $1: expected \`$2\`, got \`$3\`" >&2
    exit 1
}

# same NAME EXPECTED ACTUAL
same() {
    [ "$2" = "$3" ] || fail "$@"
    checks=$((checks + 1))
}

# has NAME PART WHOLE
has() {
    case "$3" in *"$2"*) checks=$((checks + 1)) ;; *) fail "$@" ;; esac
}

# refused NAME PART COMMAND...: the command must fail and say PART.
refused() {
    local name="$1" part="$2" output
    shift 2
    if output=$("$@" 2>&1); then fail "$name" "an error with $part" "$output"; fi
    has "$name" "$part" "$output"
}

revision() { raw get nothing -w json | sed -n 's/.*"revision":\([0-9]*\).*/\1/p'; }

lines() { printf '%s\n' "$@"; }

same "put" "OK" "$(ctl put ctl/a 1)"
same "get" "$(lines ctl/a 1)" "$(ctl get ctl/a)"
same "get of a missing key" "" "$(ctl get ctl/missing)"
same "value only" "1" "$(ctl get ctl/a --print-value-only)"
same "put with the old pair" "$(lines OK ctl/a 1)" "$(ctl put ctl/a 2 --prev-kv)"
has "json" '"version":2' "$(ctl get ctl/a -w json)"
has "fields" '"Version" : 2' "$(ctl get ctl/a -w fields)"
ctl put ctl/b 3 >/dev/null
ctl put ctl/c 1 >/dev/null
same "prefix" "$(lines ctl/a ctl/b ctl/c)" "$(ctl get ctl/ --prefix --keys-only | sed '/^$/d')"
same "range" "$(lines ctl/a ctl/b)" "$(ctl get ctl/a ctl/c --keys-only | sed '/^$/d')"
same "limit" "$(lines ctl/a ctl/b)" "$(ctl get ctl/ --prefix --limit=2 --keys-only | sed '/^$/d')"
has "limit says more" '"more":true,"count":3' "$(ctl get ctl/ --prefix --limit=2 -w json)"
same "from key" "$(lines ctl/b ctl/c)" "$(ctl get ctl/b --from-key --keys-only --limit=2 | sed '/^$/d')"
same "descending" "$(lines ctl/c ctl/b ctl/a)" "$(ctl get ctl/ --prefix --order=DESCEND --keys-only | sed '/^$/d')"
same "by value" "$(lines ctl/c ctl/a ctl/b)" \
    "$(ctl get ctl/ --prefix --order=ASCEND --sort-by=VALUE --keys-only | sed '/^$/d')"
same "by modification" "$(lines ctl/c ctl/b ctl/a)" \
    "$(ctl get ctl/ --prefix --order=DESCEND --sort-by=MODIFY --keys-only | sed '/^$/d')"
for format in json fields simple; do
    shown get ctl/ --prefix --limit=2 -w "$format"
    shown get ctl/missing -w "$format"
    shown get ctl/ --prefix --count-only -w "$format"
    shown put ctl/a 2 --prev-kv -w "$format"
    shown del ctl/missing --prev-kv -w "$format"
    shown txn -w "$format" < <(printf 'mod("ctl/a") > "0"\n\nget ctl/a\nput ctl/t 1\ndel ctl/t\n\n\n')
done
shown get ctl/a -w table
shown get ctl/ --prefix --hex
shown get ctl/a --rev=-1
shown get ctl/b ctl/a
shown get "" --prefix --keys-only
shown get ctl/a --prefix --from-key
shown get ctl/a --order=SIDEWAYS
shown get ctl/a --sort-by=SIZE
shown get ctl/ --prefix --sort-by=VERSION
shown get ctl/ --prefix --sort-by=CREATE --order=DESCEND
shown put
# Ours refuses a value in two words, which is a forgotten quote.
[ -n "${WORDS_DIFFER:-}" ] || shown put ctl/a 2 3
shown put ctl/a 1 --ignore-value
shown put ctl/a 1 --lease=zzz
shown put ctl/a --ignore-lease
shown del
shown del ctl/c ctl/a
shown compaction
shown compaction abc
shown txn < <(printf 'size("ctl/a") = "1"\n\n\n\n')
shown txn < <(printf 'mod("ctl/a") = "one"\n\n\n\n')
shown txn < <(printf '\nfly ctl/a\n\n\n')
same "serializable" "$(lines ctl/a 2)" "$(raw --endpoints="$first" get ctl/a --consistency=s)"
before=$(revision)
ctl put ctl/a 9 >/dev/null
same "one write, one revision" "$((before + 1))" "$(revision)"
same "get at a revision" "$(lines ctl/a 2)" "$(ctl get ctl/a --rev="$before")"
same "ignore value keeps it" "OK" "$(ctl put ctl/a --ignore-value)"
same "ignored value" "9" "$(ctl get ctl/a --print-value-only)"

same "txn success" "$(lines SUCCESS "" OK "" ctl/a won)" \
    "$(printf 'value("ctl/a") = "9"\n\nput ctl/a won\nget ctl/a\n\nput ctl/a lost\n\n' | ctl txn)"
same "txn failure" "$(lines FAILURE "" ctl/a won)" \
    "$(printf 'mod("ctl/a") = "1"\n\nput ctl/a lost\n\nget ctl/a\n\n' | ctl txn)"
same "txn create if absent" "$(lines SUCCESS "" OK)" \
    "$(printf 'create("ctl/new") = "0"\n\nput ctl/new 1\n\n\n' | ctl txn)"
same "txn not twice" "FAILURE" \
    "$(printf 'version("ctl/new") = "0"\n\nput ctl/new 2\n\n\n' | ctl txn | head -n 1)"
refused "duplicate key in a txn" "etcdserver: duplicate key given in txn request" \
    ctl txn < <(printf '\n%s\n%s\n\n\n' 'put ctl/d 1' 'put ctl/d 2')

same "delete" "1" "$(ctl del ctl/new)"
same "delete of nothing" "0" "$(ctl del ctl/new)"
same "delete with the old pair" "$(lines 1 ctl/b 3)" "$(ctl del ctl/b --prev-kv)"
same "delete a prefix" "2" "$(ctl del ctl/ --prefix)"
same "all gone" "" "$(ctl get ctl/ --prefix)"

# A watch goes on until it is stopped; what it has printed by then counts.
watch() {
    timeout 3 "$program" --endpoints="$endpoints" watch "$@" >"$work/watched" || true
    { printf '== watch %s\n' "$*"; cat "$work/watched"; } >>"$answers"
    cat "$work/watched"
}
from=$(($(revision) + 1))
ctl put ctl/w/a 1 >/dev/null
ctl put ctl/w/a 2 >/dev/null
ctl del ctl/w/a >/dev/null
same "watch of the past" "$(lines PUT ctl/w/a 1 PUT ctl/w/a 2 DELETE ctl/w/a '')" "$(watch ctl/w/ --prefix --rev="$from")"
same "watch with the pair before" "$(lines DELETE ctl/w/a 2 ctl/w/a '')" \
    "$(watch ctl/w/a --rev="$((from + 2))" --prev-kv)"
has "watch as JSON" '"Events":[{"type":1,"kv":{"key":"Y3RsL3cvYQ==",' "$(watch ctl/w/a --rev="$((from + 2))" -w json)"
same "watch with a command" '"PUT" "ctl/w/a" "1"' \
    "$(watch ctl/w/a --rev="$from" -- sh -c 'echo $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE' | grep '"1"')"

ctl put ctl/k 1 >/dev/null
old=$(revision)
ctl put ctl/k 2 >/dev/null
floor=$(revision)
same "compaction" "compacted revision $floor" "$(ctl compaction "$floor")"
refused "read below the floor" "etcdserver: mvcc: required revision has been compacted" ctl get ctl/k --rev="$old"
refused "watch below the floor" "etcdserver: mvcc: required revision has been compacted" ctl watch ctl/k --rev="$old"
same "read at the floor" "$(lines ctl/k 2)" "$(ctl get ctl/k --rev="$floor")"
refused "compacting twice" "etcdserver: mvcc: required revision has been compacted" ctl compaction "$floor"
refused "read of the future" "etcdserver: mvcc: required revision is a future revision" ctl get ctl/k --rev=1000000000
refused "empty key" "etcdserver: key is not provided" ctl put "" value
refused "unknown lease" "etcdserver: requested lease not found" ctl put ctl/k v --lease=1234
refused "ignore value of a missing key" "etcdserver: key not found" ctl put ctl/absent --ignore-value
refused "too large" "etcdserver: request is too large" \
    ctl put ctl/large < <(head -c 1600000 /dev/zero | tr '\0' x)
head -c 1400000 /dev/zero | tr '\0' x | ctl put ctl/large >/dev/null
same "large value" "1400001" "$(ctl get ctl/large --print-value-only | wc -c | tr -d ' ')"

shown lease grant
shown lease grant abc
shown lease grant 10000000000
shown lease grant 0 -w json
shown lease revoke 1234
shown lease timetolive 1234
shown lease timetolive 1234 -w json
shown lease keep-alive --once 1234
shown lease timetolive zz
granted=$(ctl lease grant 60)
has "lease grant" "granted with TTL(60s)" "$granted"
lease=$(echo "$granted" | cut -d' ' -f2)
same "put with a lease" "OK" "$(ctl put ctl/leased 1 --lease="$lease")"
has "time to live" "granted with TTL(60s), remaining(" "$(ctl lease timetolive "$lease" --keys)"
has "attached keys" "attached keys([ctl/leased])" "$(ctl lease timetolive "$lease" --keys)"
same "keep alive" "lease $lease keepalived with TTL(60)" "$(ctl lease keep-alive --once "$lease")"
has "list of leases" "$lease" "$(raw lease list)"
same "lease revoke" "lease $lease revoked" "$(ctl lease revoke "$lease")"
same "its keys are gone" "" "$(ctl get ctl/leased)"
same "an ended lease" "lease $lease already expired" "$(ctl lease timetolive "$lease")"
refused "revoking twice" "requested lease not found" ctl lease revoke "$lease"
shown lock ctl/lock false
shown lock
shown elect
has "a lock around a command" "ctl/lock/" "$(raw lock ctl/lock env | grep ETCD_LOCK_KEY)"
same "the lock is given back" "" "$(ctl get ctl/lock/ --prefix)"
leader=$( (timeout -s INT 3 "$program" --endpoints="$endpoints" elect ctl/elect me || true) | tail -n 1)
same "elected" "me" "$leader"

same "three members" "3" "$(raw member list | grep -c started)"
# Not with --cluster: etcdctl 3.4 then sends the whole URL as the HTTP/2 authority, which RFC 9113 forbids and our HTTP/2
# library refuses. Newer releases send host and port.
raw member list | cut -d, -f 2- | sort >"$work/members"
{ echo "== members"; cat "$work/members"; } >>"$answers"
shown member add
shown member remove
shown member remove zz
shown member remove 1234
shown member promote 1234
shown member update 1234 --peer-urls=http://127.0.0.1:9
shown member add ctl-bad --peer-urls=nonsense
shown move-leader 1234
shown move-leader
shown alarm list -w json
shown alarm disarm
shown endpoint hashkv --rev=1000000000
same "status of each" "3" "$(raw endpoint status -w json | grep -o '"leader":' | wc -l | tr -d ' ')"
same "one leader" "1" "$(raw endpoint status -w table | grep -c '| *true |')"
same "health of each" "3" "$(raw endpoint health 2>&1 | grep -c 'is healthy')"
same "fingerprints agree" "1" "$(raw endpoint hashkv --rev="$(revision)" | cut -d, -f2 | sort -u | wc -l | tr -d ' ')"
same "no alarms" "" "$(ctl alarm list)"
has "defragmentation" "Finished defragmenting etcd member" "$(raw defrag)"
# Our own tool keeps only what it can restore, and that is not etcd's format.
if [ -z "${WORDS_DIFFER:-}" ]; then
    same "snapshot" "Snapshot saved at $work/snapshot" \
        "$("$program" --endpoints="$first" snapshot save "$work/snapshot" 2>/dev/null | grep saved)"
fi
# A file that our own tool reads; what is in it is in etcd's format or in ours.
if [ -n "${SINEW:-}" ]; then
    has "snapshot of etcdctl read" ", $(revision), " "$("$SINEW" snapshot status "$work/snapshot")"
    "$SINEW" snapshot save "$work/again" --endpoints="$first" >/dev/null
    same "both tools save the same" "" "$(cmp "$work/snapshot" "$work/again")"
fi
added=$(raw member add ctl-new --peer-urls=http://127.0.0.1:9 --learner)
has "member add" "to cluster" "$added"
has "how the new one starts" 'ETCD_INITIAL_CLUSTER_STATE="existing"' "$added"
new=$(echo "$added" | head -n 1 | tr -s ' ' | cut -d' ' -f2)
has "it has not started" "$new, unstarted, , http://127.0.0.1:9, , true" "$(raw member list)"
refused "promoting one that has not started" "which is in sync with leader" ctl member promote "$new"
has "member update" "updated in cluster" "$(ctl member update "$new" --peer-urls=http://127.0.0.1:10)"
has "member remove" "removed from cluster" "$(ctl member remove "$new")"
refused "removing twice" "etcdserver: member not found" ctl member remove "$new"
[ -n "${WORDS_DIFFER:-}" ] || has "version" "etcdctl version: 3" "$("$program" version)"

echo "etcdctl: $checks checks passed"
