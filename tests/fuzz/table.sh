#!/usr/bin/env bash
# Adds up what the rounds of `make fuzz` printed, from standard input: a row for each kind of file.
set -euo pipefail
tr -d '\000' | awk -F ': ' '
    /^fuzz: .*: seed / || / \.\.\. fuzz: .*: seed / {
        sub(/^.*fuzz: /, ""); name = $1
        if (match($0, /seed [0-9]+/)) seeds[substr($0, RSTART + 5, RLENGTH - 5)]
        split($0, parts, ", ")
        for (i in parts) {
            split(parts[i], words, " ")
            if (words[2] ~ /^(cases|read|refused|lost)$/) count[name, words[2]] += words[1]
        }
        if (!(name in known)) { known[name]; order[++names] = name }
    }
    END {
        printf "Seeds:"; for (seed in seeds) printf " %s", seed; print "\n"
        print "| File | Cases | Read | Refused | Lost |\n|---|--:|--:|--:|--:|"
        for (i = 1; i <= names; i++) {
            name = order[i]
            printf "| %s | %d | %d | %d | %d |\n", name, count[name, "cases"], count[name, "read"],
                count[name, "refused"], count[name, "lost"]
            all += count[name, "cases"]
        }
        printf "| All | %d | | | |\n", all
    }'
