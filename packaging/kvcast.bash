# bash completion for kvcast: source it, or install as /usr/share/bash-completion/completions/kvcast
_kvcast() {
  local current previous command word commands
  current=${COMP_WORDS[COMP_CWORD]}
  previous=${COMP_WORDS[COMP_CWORD-1]}
  commands=$(kvcast --help 2>/dev/null | sed -n '/^Subcommands:/,$ s/^  \([a-z]\+\).*/\1/p')
  command=
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ " ${commands//$'\n'/ } " == *" $word "* ]]; then command=$word; break; fi
  done
  case $previous in
    --prefill|--compare)
      COMPREPLY=($(compgen -W 'exact kv-prediction kv-prediction:tail=16 auxiliary random:0.5 static:0.5 lazy:0.75-0.25 zero-cache' -- "$current"))
      # A colon ends a word for readline: complete what comes after it.
      declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$current"
      return ;;
    --drafts) COMPREPLY=($(compgen -W 'auto off 4 8' -- "$current")); return ;;
    --dtype) COMPREPLY=($(compgen -W 'auto f32 bf16 int8' -- "$current")); return ;;
    --kv-dtype) COMPREPLY=($(compgen -W 'auto f32 bf16 int8' -- "$current")); return ;;
    --log-format) COMPREPLY=($(compgen -W 'none text json' -- "$current")); return ;;
    --format) COMPREPLY=($(compgen -W 'md csv json' -- "$current")); return ;;
    --task)
      COMPREPLY=($(compgen -W 'nll chats triviaqa humaneval next_line passkey recall agreement arc_easy arc_challenge
        boolq hellaswag piqa sciq winogrande' -- "$current")); return ;;
    -f|--file|--out|--data|--shots-data|--samples|--outputs|--tokenizer|--api-key-file) COMPREPLY=($(compgen -f -- "$current")); return ;;
  esac
  if [[ -z $command ]]; then
    COMPREPLY=($(compgen -W "$commands --help --version" -- "$current"))
  elif [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$(kvcast "$command" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*' | sort -u)" -- "$current"))
  else
    COMPREPLY=($(compgen -d -- "$current"))  # a model directory
  fi
}
complete -o filenames -F _kvcast kvcast
