#!/bin/sh
# Prints a program's man page: PAGE with every command's options, as the program itself lists them.
#   man_page.sh PROGRAM PAGE VERSION
set -eu
kvcast=$1 page=$2 version=$3

commands() {
  "$kvcast" --help | sed -n '/^Subcommands:/,$ s/^  \([a-z][a-z-]*\) .*/\1/p'
}

# The help's two columns as .TP paragraphs.
options() {
  "$kvcast" "$1" --help | awk -v command="$(basename "$kvcast" | sed 's/-/\\\\-/g') $1" '
    function roff(text) {
      gsub(/\\/, "\\e", text); gsub(/-/, "\\-", text)
      return (text ~ /^[.\047]/ ? "\\&" : "") text
    }
    function flush() {
      if (name == "") return
      gsub(/:[A-Z]+ in \[[^]]*\]/, "", name)
      gsub(/ (Needs|Excludes):( (--[a-z-]+|MODEL))+/, "", name)
      printf ".TP\n\\fB%s\\fR\n", roff(name)
      if (text != "") print roff(text)
      name = text = ""
    }
    NR == 1 && NF { print ".SS " command; print roff($0) "."; next }
    /^[A-Z]/ { flush(); next }
    /^  [-A-Z]/ {
      flush()
      line = substr($0, 3)
      split_at = match(line, /  +/)
      # A long name has its description on the next line.
      name = split_at ? substr(line, 1, split_at - 1) : line
      text = split_at ? substr(line, split_at + RLENGTH) : ""
      next
    }
    name != "" && /^          / { sub(/^ +/, ""); text = text (text == "" ? "" : " ") $0 }
    END { flush() }'
}

while IFS= read -r line; do
  case $line in
    @COMMANDS@) for command in $(commands); do options "$command"; done ;;
    *@VERSION@*) printf '%s\n' "$line" | sed "s/@VERSION@/$version/" ;;
    *) printf '%s\n' "$line" ;;
  esac
done <"$page"
