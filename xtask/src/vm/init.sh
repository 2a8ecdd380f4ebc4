#!/bin/busybox sh
# The guest's first process. What it finds goes to the second serial port in
# sections; kernel messages and mishaps go to the first.

/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tracefs none /sys/kernel/tracing
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /tmp
stty -F /dev/ttyS1 raw
# Open to the end: whoever closes a port last waits until all is sent, but not if a
# signal comes meanwhile, and then the rest is lost.
exec 3>/dev/ttyS1

# section NAME COMMAND...: what the command prints to stdout, and its exit code.
section() {
    name=$1
    shift
    printf '=== begin %s\n' "$name" >&3
    "$@" >&3 2>/tmp/errors
    printf '\n=== end %s %d\n' "$name" $? >&3
    cat /tmp/errors
}

section doctor sampler doctor

fixture recurse 600 &
recursing=$!
fixture fork 600 &
forking=$!
section recursing echo $recursing
section host sampler record -d 5s --json --format pprof,folded -o /tmp/host
kill $recursing $forking
wait $recursing $forking
section host-stacks cat /tmp/host/cpu-fixture-$recursing.folded

section command sampler record --json --summary /tmp/summary --format pprof,folded \
    -o /tmp/command -- fixture fork 3
section command-index cat /tmp/summary
section command-stacks sh -c 'cat /tmp/command/cpu-fixture-*.folded'

# One after the other, each some milliseconds long, under a name of their own.
ln -s fixture /bin/brief
section short sampler record -F 499 --json --summary /tmp/short --group comm \
    -o /tmp/short-lives -- fixture launch 400
section short-index cat /tmp/short

exec 3>&-
poweroff -f
