# bash completion for lukskeep: printed by `lukskeep completion bash`.

_lukskeep_options() {
  case "$1" in
    'create')
      options='--size --total-size --type --cipher --key-size --sector-size --metadata-size --keyslots-size --payload-offset --label --subsystem --uuid --volume-key --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --header --key --allow-insecure --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'info')
      options='--header --policy --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'encrypt')
      options='--type --cipher --key-size --sector-size --metadata-size --keyslots-size --payload-offset --label --subsystem --uuid --volume-key --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --header --key --allow-insecure --holes --limit-rate --direct --progress --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'decrypt')
      options='--header --policy --key --kdf-limit --allow-insecure --holes --limit-rate --direct --progress --key-manager --key-manager-insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'serve')
      options='--header --policy --key --kdf-limit --allow-insecure --export --read-only --discard --socket --listen --tls-certificates --tls-psk --tls-verify-peer --insecure --run --exit-with-last --threads --connections --key-manager --key-manager-insecure --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'key list')
      options='--header --policy --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'key test')
      options='--header --policy --slot --unbound --key --kdf-limit --allow-insecure --key-manager --key-manager-insecure --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'key add')
      options='--header --policy --key --kdf-limit --allow-insecure --new-key --slot --priority --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --keyslot-cipher --keyslot-key-size --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'key remove')
      options='--header --policy --slot --key --kdf-limit --allow-insecure --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'key change')
      options='--header --policy --key --kdf-limit --allow-insecure --new-key --slot --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'key convert')
      options='--header --policy --key --kdf-limit --allow-insecure --slot --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'header backup')
      options='--header --policy --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'header restore')
      options='--header --policy --allow --kill-revived --key --kdf-limit --allow-insecure --store --identity --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'header repair')
      options='--header --policy --orphan-tokens --allow --kill-revived --key --kdf-limit --allow-insecure --store --identity --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
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
      options='--policy --allow --kill-revived --key --kdf-limit --allow-insecure --store --identity --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'header check')
      options='--header --policy --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive init')
      options='--store --recipient --key-manager --key-manager-insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
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
      options='--store --identity --key-manager --key-manager-insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive import')
      options='--store --identity --key-manager --key-manager-insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive verify')
      options='--store --identity --open --rebuild --key-manager --key-manager-insecure --allow-backing --allow-data-file --json --quiet --help'
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
      options='--key --kdf-limit --allow-insecure --policy --store --identity --key-manager --key-manager-insecure --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive mirror')
      options='--remove --store --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive sync')
      options='--from --store --identity --key-manager --key-manager-insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'archive watch')
      options='--interval --once --store --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'seal')
      options='--pin --tang --tpm2 --threshold --trust-on-first-use --allow-pending --top-up --timeout --try-timeout --tries --tpm --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'unseal')
      options='--show --all-shares --timeout --try-timeout --tries --tpm --allow-backing --allow-data-file --json --quiet --help'
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
    'bind')
      options='--header --header-policy --policy --pin --tang --tpm2 --threshold --timeout --try-timeout --tries --tpm --trust-on-first-use --allow-pending --key --kdf-limit --allow-insecure --slot --token --reset-luksmeta --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'unbind')
      options='--header --policy --slot --orphans --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'bindings')
      options='--header --policy --probe --timeout --try-timeout --tries --tpm --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'rebind')
      options='--header --policy --slot --key --kdf-limit --allow-insecure --timeout --try-timeout --tries --tpm --allow-pending --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'edit')
      options='--header --header-policy --policy --pin --tang --tpm2 --threshold --timeout --try-timeout --tries --tpm --trust-on-first-use --allow-pending --slot --key --kdf-limit --allow-insecure --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'top-up')
      options='--header --policy --slot --timeout --try-timeout --tries --tpm --trust-on-first-use --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'report')
      options='--policy --offline --timeout --try-timeout --tries --tpm --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'passphrase')
      options='--header --policy --slot --kdf-limit --allow-insecure --timeout --try-timeout --tries --tpm --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'unlock')
      options='--policy --kdf-limit --allow-insecure --timeout --try-timeout --tries --tpm --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'policy show')
      options='--allow-backing --allow-data-file --json --quiet --help'
      ;;
    'policy check')
      options='--header --policy --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'inspect')
      options='--key --header --expect --allow --tee --kdf-limit --key-manager --key-manager-insecure --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'tang serve')
      options='--listen --keys --endpoint --inetd --access --rate-limit --connections --tls-certificate --tls-key --client-ca --usage --access-log --threads --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'tang keygen')
      options='--keys --curve --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'tang rotate')
      options='--keys --curve --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'tang keys')
      options='--keys --fingerprint --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'tang hide')
      options='--keys --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'tang unhide')
      options='--keys --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'tang delete')
      options='--keys --usage --quarantine --allow --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'tang usage')
      options='--keys --usage --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'tang backup')
      options='--keys --recipient --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'tang restore')
      options='--keys --identity --signed-by --merge --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'config')
      options='--header --policy --label --subsystem --priority --slot --flags --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'erase')
      options='--header --policy --unused --dry-run --yes --no-archive --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'keystore init')
      options='--wrapping-key --passphrase --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --key-manager --insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'keystore store')
      options='--name --type --secret --generate --algorithm --bits --mode --expires --metadata --consumer --key-manager --insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'keystore get')
      options='--to --encoding --key-manager --insecure --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'keystore list')
      options='--name --key-manager --insecure --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'keystore show')
      options='--key-manager --insecure --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'keystore delete')
      options='--used-too --key-manager --insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'keystore consumers')
      options='--add --remove --key-manager --insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'keystore metadata')
      options='--key-manager --insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'keystore access')
      options='--users --private --project --key-manager --insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'keystore copy')
      options='--all --key-manager --insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'keystore reconcile')
      options='--register --forget --key-manager --insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'keystore resolve')
      options='--header --policy --kdf-limit --allow-insecure --save --key-manager --insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
      ;;
    'keystore rewrap')
      options='--wrapping-key --passphrase --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --key-manager --insecure --dry-run --yes --allow-backing --allow-data-file --json --quiet --help'
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
    --discard)
      values='off on zeroes'
      ;;
    --priority)
      values='normal prefer ignore'
      ;;
    --pin)
      values='tang tpm2 sss null'
      ;;
    --curve)
      values='P-256 P-384 P-521'
      ;;
    --encoding)
      values='plain hex base64 no-newline from-base64 from-hex'
      ;;
    --key | --new-key | --volume-key)
      values='file: fd: prompt: volume-key: mapping: keyring: manager: binding:'
      compopt -o nospace
      ;;
    --key-manager)
      values='file: barbican: vault:'
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
    mapfile -t COMPREPLY < <(compgen -W 'create info encrypt decrypt serve key header archive seal unseal token bind unbind bindings rebind edit top-up report passphrase unlock policy inspect tang config erase keystore bench completion help version --help --version' -- "$current")
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
      tang)
        words='serve keygen rotate keys hide unhide delete usage backup restore'
        ;;
      keystore)
        words='init store get list show delete consumers metadata access copy reconcile resolve rewrap'
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
    --access|--access-log|--add|--algorithm|--allow|--bits|--cipher|--client-ca|--connections|--consumer|--curve|--discard|--encoding|--endpoint|--expect|--expires|--export|--flags|--from|--generate|--hash|--header|--header-policy|--holes|--identity|--interval|--iter-time|--kdf-limit|--keep|--key|--key-manager|--key-size|--keys|--keyslot-cipher|--keyslot-key-size|--keyslots-size|--label|--limit-rate|--listen|--metadata|--metadata-size|--mode|--name|--new-key|--older-than|--payload-offset|--pbkdf|--pbkdf-iterations|--pbkdf-memory|--pbkdf-parallel|--pin|--policy|--priority|--progress|--quarantine|--rate-limit|--recipient|--remove|--row-time|--run|--secret|--sector-size|--signed-by|--size|--slot|--socket|--store|--subsystem|--tang|--tee|--threads|--threshold|--timeout|--tls-certificate|--tls-certificates|--tls-key|--tls-psk|--to|--token|--total-size|--tpm|--tpm2|--tries|--try-timeout|--type|--usage|--users|--uuid|--volume-key|--wrapping-key)
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
