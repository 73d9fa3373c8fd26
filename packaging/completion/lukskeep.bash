# bash completion for lukskeep: printed by `lukskeep completion bash`.

_lukskeep_options() {
  case "$1" in
    'create')
      options='--size --total-size --type --cipher --key-size --sector-size --metadata-size --keyslots-size --payload-offset --label --subsystem --uuid --volume-key --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --header --key --allow-insecure --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'info')
      options='--header --policy --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'encrypt')
      options='--type --cipher --key-size --sector-size --metadata-size --keyslots-size --payload-offset --label --subsystem --uuid --volume-key --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --header --key --allow-insecure --holes --limit-rate --direct --progress --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'decrypt')
      options='--header --policy --key --kdf-limit --allow-insecure --holes --limit-rate --direct --progress --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'key list')
      options='--header --policy --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'key test')
      options='--header --policy --slot --unbound --key --kdf-limit --allow-insecure --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'key add')
      options='--header --policy --key --kdf-limit --allow-insecure --new-key --slot --priority --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --keyslot-cipher --keyslot-key-size --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'key remove')
      options='--header --policy --slot --key --kdf-limit --allow-insecure --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'key change')
      options='--header --policy --key --kdf-limit --allow-insecure --new-key --slot --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'key convert')
      options='--header --policy --key --kdf-limit --allow-insecure --slot --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'header backup')
      options='--header --policy --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'header restore')
      options='--header --policy --allow --kill-revived --key --kdf-limit --allow-insecure --store --identity --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'header repair')
      options='--header --policy --orphan-tokens --allow --kill-revived --key --kdf-limit --allow-insecure --store --identity --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'header convert')
      options='--header --policy --type --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'header resize')
      options='--header --policy --metadata-size --keyslots-size --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'header detach')
      options='--policy --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'header attach')
      options='--policy --allow --kill-revived --key --kdf-limit --allow-insecure --store --identity --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'header check')
      options='--header --policy --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive init')
      options='--store --recipient --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive add')
      options='--header --policy --store --stdout --compact --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive list')
      options='--store --uuid --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive show')
      options='--store --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive diff')
      options='--store --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive export')
      options='--store --identity --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive import')
      options='--store --identity --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive verify')
      options='--store --identity --open --rebuild --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive prune')
      options='--store --keep --older-than --keep-key-changes --revoked --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive status')
      options='--store --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive scan')
      options='--store --add --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive drill')
      options='--key --kdf-limit --allow-insecure --policy --store --identity --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive mirror')
      options='--remove --store --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive sync')
      options='--from --store --identity --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive watch')
      options='--interval --once --store --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'token list')
      options='--header --policy --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'token import')
      options='--header --policy --token --replace --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'token export')
      options='--header --policy --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'token remove')
      options='--header --policy --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'policy show')
      options='--allow-backing --allow-data-file --json --quiet --help'
      ;;
    'policy check')
      options='--header --policy --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'config')
      options='--header --policy --label --subsystem --priority --slot --flags --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'erase')
      options='--header --policy --unused --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'bench kdf')
      options='--iter-time --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'bench ciphers')
      options='--cipher --key-size --sector-size --row-time --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'completion')
      options='--allow-backing --allow-data-file --json --quiet --help'
      ;;
    'help')
      options='--allow-backing --allow-data-file --json --quiet --help'
      ;;
    'version')
      options='--allow-backing --allow-data-file --json --quiet --help'
      ;;
  esac
}

_lukskeep_values() {
  case "$1" in
    --type)
      values='luks1 luks2'
      ;;
    --pbkdf)
      values='pbkdf2 argon2i argon2id'
      ;;
    --holes)
      values='fill keep'
      ;;
    --progress)
      values='auto json none'
      ;;
    --priority)
      values='normal prefer ignore'
      ;;
    --key | --new-key | --volume-key)
      values='file: fd: prompt: volume-key:'
      compopt -o nospace
      ;;
    --policy)
      values='untrusted'
      compopt -o default
      ;;
  esac
}

_lukskeep() {
  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD - 1]}"
  local words='' options='' values='' noun="${COMP_WORDS[1]}"
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W 'create info encrypt decrypt key header archive token policy config erase bench completion help version --help --version' -- "$current")
    return
  fi
  if ((COMP_CWORD == 2)); then
    case "$noun" in
      key)
        words='list test add remove change convert'
        ;;
      header)
        words='backup restore repair convert resize detach attach check'
        ;;
      archive)
        words='init add list show diff export import verify prune status scan drill mirror sync watch'
        ;;
      token)
        words='list import export remove'
        ;;
      policy)
        words='show check'
        ;;
      bench)
        words='kdf ciphers'
        ;;
    esac
    if [[ -n "$words" ]]; then
      mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
      return
    fi
  fi
  _lukskeep_values "$previous"
  if [[ -n "$values" ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$values" -- "$current")
    return
  fi
  case "$previous" in
    --allow|--cipher|--flags|--from|--hash|--header|--holes|--identity|--interval|--iter-time|--kdf-limit|--keep|--key|--key-size|--keyslot-cipher|--keyslot-key-size|--keyslots-size|--label|--limit-rate|--metadata-size|--new-key|--older-than|--payload-offset|--pbkdf|--pbkdf-iterations|--pbkdf-memory|--pbkdf-parallel|--policy|--priority|--progress|--recipient|--row-time|--sector-size|--size|--slot|--store|--subsystem|--token|--total-size|--type|--uuid|--volume-key)
      compopt -o default
      return
      ;;
  esac
  _lukskeep_options "$noun"
  [[ -n "$options" ]] || _lukskeep_options "$noun ${COMP_WORDS[2]}"
  if [[ "$current" == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
  else
    compopt -o default
  fi
}

complete -F _lukskeep lukskeep
