# bash completion for lukskeep: printed by `lukskeep completion bash`.

_lukskeep_options() {
  case "$1" in
    'create')
      options='--size --total-size --type --cipher --key-size --sector-size --metadata-size --keyslots-size --payload-offset --label --subsystem --uuid --volume-key --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --header --key --allow-insecure --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'info')
      options='--header --policy --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'encrypt')
      options='--type --cipher --key-size --sector-size --metadata-size --keyslots-size --payload-offset --label --subsystem --uuid --volume-key --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --header --key --allow-insecure --holes --limit-rate --direct --progress --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'decrypt')
      options='--header --policy --key --kdf-limit --allow-insecure --holes --limit-rate --direct --progress --key-manager --key-manager-insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'serve')
      options='--header --policy --key --kdf-limit --allow-insecure --export --read-only --discard --socket --listen --tls-certificates --tls-psk --tls-verify-peer --insecure --run --exit-with-last --system-log --threads --connections --key-manager --key-manager-insecure --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'vm attach')
      options='--qmp --volume --header --policy --key --kdf-limit --allow-insecure --id --device --bus --via --read-only --export-socket --key-manager --key-manager-insecure --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'vm detach')
      options='--qmp --id --timeout --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'vm list')
      options='--qmp --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'vm xml')
      options='--volume --header --policy --secret-uuid --usage --persistent --part --engine --nbd-socket --target --bus --serial --read-only --rbd-host --rbd-user --rbd-secret --id --secret-file --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'vm define')
      options='--volume --header --policy --secret-uuid --usage --persistent --key --kdf-limit --allow-insecure --connect --key-manager --key-manager-insecure --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'key list')
      options='--header --policy --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'key test')
      options='--header --policy --slot --unbound --key --kdf-limit --allow-insecure --key-manager --key-manager-insecure --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'key add')
      options='--header --policy --key --kdf-limit --allow-insecure --new-key --slot --priority --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --keyslot-cipher --keyslot-key-size --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'key remove')
      options='--header --policy --slot --key --kdf-limit --allow-insecure --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'key change')
      options='--header --policy --key --kdf-limit --allow-insecure --new-key --slot --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'key convert')
      options='--header --policy --key --kdf-limit --allow-insecure --slot --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'header backup')
      options='--header --policy --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'header restore')
      options='--header --policy --allow --kill-revived --key --kdf-limit --allow-insecure --store --identity --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'header repair')
      options='--header --policy --orphan-tokens --allow --kill-revived --key --kdf-limit --allow-insecure --store --identity --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'header convert')
      options='--header --policy --type --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'header resize')
      options='--header --policy --metadata-size --keyslots-size --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'header detach')
      options='--policy --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'header attach')
      options='--policy --allow --kill-revived --key --kdf-limit --allow-insecure --store --identity --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'header check')
      options='--header --policy --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive init')
      options='--store --recipient --key-manager --key-manager-insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive add')
      options='--header --policy --store --stdout --compact --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive list')
      options='--store --uuid --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive show')
      options='--store --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive diff')
      options='--store --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive export')
      options='--store --identity --key-manager --key-manager-insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive import')
      options='--store --identity --key-manager --key-manager-insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive verify')
      options='--store --identity --open --rebuild --key-manager --key-manager-insecure --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive prune')
      options='--store --keep --older-than --keep-key-changes --revoked --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive status')
      options='--store --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive scan')
      options='--store --add --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive drill')
      options='--key --kdf-limit --allow-insecure --policy --store --identity --key-manager --key-manager-insecure --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive mirror')
      options='--remove --store --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive sync')
      options='--from --store --identity --key-manager --key-manager-insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'archive watch')
      options='--interval --once --store --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'seal')
      options='--pin --tang --tpm2 --threshold --trust-on-first-use --allow-pending --top-up --timeout --try-timeout --tries --tpm --tang-ca --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'unseal')
      options='--show --all-shares --timeout --try-timeout --tries --tpm --tang-ca --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'token list')
      options='--header --policy --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'token import')
      options='--header --policy --token --replace --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'token export')
      options='--header --policy --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'token remove')
      options='--header --policy --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'bind')
      options='--header --header-policy --policy --pin --tang --tpm2 --threshold --timeout --try-timeout --tries --tpm --tang-ca --trust-on-first-use --allow-pending --key --kdf-limit --allow-insecure --slot --token --reset-luksmeta --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'unbind')
      options='--header --policy --slot --orphans --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'bindings')
      options='--header --policy --probe --timeout --try-timeout --tries --tpm --tang-ca --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'rebind')
      options='--header --policy --slot --key --kdf-limit --allow-insecure --timeout --try-timeout --tries --tpm --tang-ca --allow-pending --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'rekey')
      options='--list --directory --this-machine --tang-key --new-key --key --journal --report --jobs --policy --kdf-limit --allow-insecure --timeout --try-timeout --tries --tpm --tang-ca --allow-pending --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'edit')
      options='--header --header-policy --policy --pin --tang --tpm2 --threshold --timeout --try-timeout --tries --tpm --tang-ca --trust-on-first-use --allow-pending --slot --key --kdf-limit --allow-insecure --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'top-up')
      options='--header --policy --slot --timeout --try-timeout --tries --tpm --tang-ca --trust-on-first-use --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'report')
      options='--policy --offline --timeout --try-timeout --tries --tpm --tang-ca --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'passphrase')
      options='--header --policy --slot --kdf-limit --allow-insecure --timeout --try-timeout --tries --tpm --tang-ca --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'unlock')
      options='--policy --kdf-limit --allow-insecure --timeout --try-timeout --tries --tpm --tang-ca --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'recover request')
      options='--header --policy --state --slot --out --text --qr --svg --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'recover answer')
      options='--out --text --qr --svg --timeout --try-timeout --tries --tpm --tang-ca --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'recover finish')
      options='--state --volume --header --policy --out --keep-state --kdf-limit --allow-insecure --timeout --try-timeout --tries --tpm --tang-ca --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'policy show')
      options='--allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'policy check')
      options='--header --policy --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'inspect')
      options='--key --header --expect --allow --tee --kdf-limit --key-manager --key-manager-insecure --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'image encrypt')
      options='--format --compress --holes --limit-rate --direct --progress --allow --type --cipher --key-size --uuid --make-key --key-name --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --key --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'image decrypt')
      options='--format --compress --holes --limit-rate --direct --progress --allow --key --kdf-limit --key-manager --key-manager-insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'image convert')
      options='--format --compress --holes --limit-rate --direct --progress --allow --key --kdf-limit --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'image rekey')
      options='--format --compress --holes --limit-rate --direct --progress --allow --key --kdf-limit --type --cipher --key-size --uuid --make-key --key-name --pbkdf --iter-time --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --hash --new-key --keep-volume-key --key-manager --key-manager-insecure --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'image volume-check')
      options='--type-json --back-end --volume-size --key --allow --kdf-limit --key-manager --key-manager-insecure --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'image properties')
      options='--key-id --compressed --key-deletion --style --properties --openstack --apply --image-service --timeout --key-manager --insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'image export')
      options='--key-id --recipient --sign-key --properties --allow --kdf-limit --allow-insecure --progress --key-manager --key-manager-insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'image import')
      options='--signer --identity --key-deletion --style --openstack --allow --kdf-limit --allow-insecure --progress --key-manager --key-manager-insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'image upload')
      options='--image-service --timeout --name --key-id --key-deletion --style --properties --allow --progress --key-manager --insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'image download')
      options='--image-service --timeout --allow --progress --key-manager --insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'image verify')
      options='--image-service --timeout --progress --key-manager --insecure --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'image delete')
      options='--image-service --timeout --key-manager --insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'tang serve')
      options='--listen --keys --endpoint --inetd --access --rate-limit --connections --tls-certificate --tls-key --client-ca --usage --access-log --threads --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'tang keygen')
      options='--keys --curve --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'tang rotate')
      options='--keys --curve --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'tang keys')
      options='--keys --fingerprint --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'tang hide')
      options='--keys --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'tang unhide')
      options='--keys --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'tang delete')
      options='--keys --usage --quarantine --allow --wait-for --wait-limit --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'tang usage')
      options='--keys --usage --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'tang backup')
      options='--keys --recipient --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'tang restore')
      options='--keys --identity --signed-by --merge --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'config')
      options='--header --policy --label --subsystem --priority --slot --flags --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'erase')
      options='--header --policy --unused --dry-run --yes --no-archive --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'keystore init')
      options='--wrapping-key --passphrase --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --key-manager --insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'keystore store')
      options='--name --type --secret --generate --algorithm --bits --mode --expires --metadata --consumer --key-manager --insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'keystore get')
      options='--to --encoding --key-manager --insecure --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'keystore list')
      options='--name --key-manager --insecure --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'keystore show')
      options='--key-manager --insecure --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'keystore delete')
      options='--used-too --key-manager --insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'keystore consumers')
      options='--add --remove --key-manager --insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'keystore metadata')
      options='--key-manager --insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'keystore access')
      options='--users --private --project --key-manager --insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'keystore copy')
      options='--all --key-manager --insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'keystore reconcile')
      options='--register --forget --key-manager --insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'keystore resolve')
      options='--header --policy --kdf-limit --allow-insecure --save --key-manager --insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'keystore rewrap')
      options='--wrapping-key --passphrase --pbkdf-iterations --pbkdf-memory --pbkdf-parallel --key-manager --insecure --dry-run --yes --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'bench kdf')
      options='--iter-time --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'bench ciphers')
      options='--cipher --key-size --sector-size --row-time --allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'completion')
      options='--allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'help')
      options='--allow-backing --backing-key --allow-data-file --json --quiet --help'
      ;;
    'version')
      options='--allow-backing --backing-key --allow-data-file --json --quiet --help'
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
    --via)
      values='qemu nbd'
      ;;
    --part)
      values='secret disk commandline'
      ;;
    --engine)
      values='qemu librbd'
      ;;
    --priority)
      values='normal prefer ignore'
      ;;
    --pin)
      values='tang tpm2 sss null'
      ;;
    --format)
      values='raw qcow2'
      ;;
    --make-key)
      values='symmetric passphrase'
      ;;
    --back-end)
      values='brick rbd'
      ;;
    --key-deletion)
      values='delete keep'
      ;;
    --style)
      values='spec cinder nova'
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
    mapfile -t COMPREPLY < <(compgen -W 'create info encrypt decrypt serve vm key header archive seal unseal token bind unbind bindings rebind rekey edit top-up report passphrase unlock recover policy inspect image tang config erase keystore bench completion help version --help --version' -- "$current")
    return
  fi
  if ((COMP_CWORD == 2)); then
    case "$noun" in
      vm)
        words='attach detach list xml define'
        ;;
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
      recover)
        words='request answer finish'
        ;;
      policy)
        words='show check'
        ;;
      image)
        words='encrypt decrypt convert rekey volume-check properties export import upload download verify delete'
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
    --access|--access-log|--add|--algorithm|--allow|--apply|--back-end|--backing-key|--bits|--bus|--cipher|--client-ca|--connect|--connections|--consumer|--curve|--device|--directory|--discard|--encoding|--endpoint|--engine|--expect|--expires|--export|--export-socket|--flags|--format|--from|--generate|--hash|--header|--header-policy|--holes|--id|--identity|--image-service|--interval|--iter-time|--jobs|--journal|--kdf-limit|--keep|--key|--key-deletion|--key-id|--key-manager|--key-name|--key-size|--keys|--keyslot-cipher|--keyslot-key-size|--keyslots-size|--label|--limit-rate|--list|--listen|--make-key|--metadata|--metadata-size|--mode|--name|--nbd-socket|--new-key|--older-than|--out|--part|--payload-offset|--pbkdf|--pbkdf-iterations|--pbkdf-memory|--pbkdf-parallel|--pin|--policy|--priority|--progress|--properties|--qmp|--quarantine|--rate-limit|--rbd-host|--rbd-secret|--rbd-user|--recipient|--remove|--report|--row-time|--run|--secret|--secret-file|--secret-uuid|--sector-size|--serial|--sign-key|--signed-by|--signer|--size|--slot|--socket|--state|--store|--style|--subsystem|--svg|--tang|--tang-ca|--tang-key|--target|--tee|--threads|--threshold|--timeout|--tls-certificate|--tls-certificates|--tls-key|--tls-psk|--to|--token|--total-size|--tpm|--tpm2|--tries|--try-timeout|--type|--type-json|--usage|--users|--uuid|--via|--volume|--volume-key|--volume-size|--wait-for|--wait-limit|--wrapping-key)
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
