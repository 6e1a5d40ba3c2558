#!/bin/sh
# A whole agent in shell. It does the tasks in a directory, one file each, and reports before and after every one:
#   shell_agent.sh DIRECTORY
set -eu
tasks=$1 ack='' draining=''
trap 'exit 0' TERM # agentd asks to drain first, and sends TERM when that is done

report() { # how many tasks are in flight
    # While agentd is away the agent goes on without it.
    # shellcheck disable=SC2086
    said=$(agentctl heartbeat --load "$1" --in-flight "$1" --queue 0 $ack) || said=''
    case $said in
    drain*) draining=yes said=${said##*--ack } ack="--ack ${said%%;*}" ;; # and take nothing new
    resume*) draining='' said=${said##*--ack } ack="--ack ${said%%;*}" ;;
    *) ack='' ;;
    esac
}

while :; do
    report 0
    for task in "$tasks"/*.todo; do
        [ -n "$draining" ] && break
        own=${task%.todo}.$AGENTD_INSTANCE
        mv "$task" "$own" 2>/dev/null || continue # another agent was faster
        report 1
        wc -w <"$own" >"$own.answer"
        mv "$own.answer" "${task%.todo}.done"
        rm "$own"
        report 0
    done
    sleep 1 &
    wait $! # interrupted by TERM, unlike sleep itself
done
