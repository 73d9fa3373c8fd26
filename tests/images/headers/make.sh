#!/bin/bash
# tests/images/headers/make.sh [NAME...]: makes the headers of this folder anew, with cryptsetup and
# qemu-img. Needed only to add one: UUIDs and salts come out different each time, and the tests know
# some of them. README.md says what each is.
#
# `integrity` and `flags` need device-mapper; without it they are left as they are.
set -euo pipefail
out=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
printf secret > key
printf other > key2
cheap=(--pbkdf pbkdf2 --pbkdf-force-iterations 1000)

format() { # FILE TYPE OPTION...
  local file=$1 type=$2
  shift 2
  [ -e "$file" ] || truncate -s 64M "$file"
  cryptsetup luksFormat -q --type "$type" "$@" "$file" key
}
add_key() { # FILE OPTION...
  cryptsetup luksAddKey -q "${@:2}" "${cheap[@]}" -d key "$1" key2
}

# Both copies of LUKS2 without the zeros at their ends.
save2() { # FILE NAME
  python3 - "$1" "$out/$2" << 'END'
import struct, sys
data = open(sys.argv[1], "rb").read(8 << 20)
size = struct.unpack(">Q", data[8:16])[0]
open(sys.argv[2] + ".luks2", "wb").write(data[:size].rstrip(b"\0"))
open(sys.argv[2] + ".luks2-secondary", "wb").write(data[size:2 * size].rstrip(b"\0"))
END
}
save1() { # FILE NAME
  head -c 592 "$1" > "$out/$2.luks1"
}

make_default() { format v luks2 "${cheap[@]}"; }
make_argon2() {
  local argon2=(--pbkdf-force-iterations 4 --pbkdf-memory 32 --pbkdf-parallel 1)
  format v luks2 --pbkdf argon2id "${argon2[@]}" --hash sha512 --sector-size 512
  cryptsetup luksAddKey -q --pbkdf argon2i "${argon2[@]}" -d key v key2
}
make_label() { format v luks2 "${cheap[@]}" --label "Märchen" --subsystem "a subsystem"; }
make_tokens() {
  format v luks2 "${cheap[@]}"
  add_key v
  cryptsetup token add --key-description "lukskeep:test" --key-slot 0 v
  printf '{\n  "type" : "custom",\n  "keyslots": [ "1", "0" ],\n  "text": "a\\/b \\u00e9 €",\n  "n": [1.50, -0, 1e3, {"x": null}]\n}\n' |
    cryptsetup token import --token-id 7 --json-file - v
}
make_unbound() {
  format v luks2 "${cheap[@]}"
  head -c 32 /dev/zero > unbound
  cryptsetup luksAddKey -q --unbound --key-size 256 --volume-key-file unbound --key-slot 5 \
    "${cheap[@]}" v key2
}
make_priorities() {
  format v luks2 "${cheap[@]}"
  add_key v
  cryptsetup luksAddKey -q "${cheap[@]}" --key-slot 31 -d key v key2
  cryptsetup config --key-slot 0 --priority prefer v
  cryptsetup config --key-slot 31 --priority ignore v
}
make_metadata-64k() {
  format v luks2 "${cheap[@]}" --luks2-metadata-size 64k --luks2-keyslots-size 1m
}
make_detached() {
  truncate -s 8M payload
  truncate -s 32M v
  cryptsetup luksFormat -q --type luks2 "${cheap[@]}" --header v payload key
}
make_keyslot-cipher() {
  format v luks2 "${cheap[@]}" --keyslot-cipher aes-cbc-essiv:sha256 --keyslot-key-size 128 \
    --cipher aes-cbc-plain64 --key-size 256
}
make_converted() {
  format v luks1 "${cheap[@]:2}" --cipher aes-cbc-essiv:sha256 --key-size 128 --hash sha1
  cryptsetup convert -q --type luks2 v
}
make_reencrypt() {
  format v luks2 "${cheap[@]}"
  cryptsetup reencrypt -q --init-only --force-offline-reencrypt "${cheap[@]}" -d key v
}
# Killed in the middle of its work: finished, running and waiting segments.
make_reencrypt-midway() {
  truncate -s 1G v
  format v luks2 "${cheap[@]}"
  cryptsetup reencrypt -q --force-offline-reencrypt --resilience checksum --hotzone-size 64M \
    "${cheap[@]}" -d key v &
  until head -c 16384 v | grep -aq '"1":{[^}]*in-reencryption'; do sleep 0.1; done
  kill -9 $!
  wait || true
}
make_encrypt() {
  truncate -s 300M v
  cryptsetup reencrypt -q --encrypt --reduce-device-size 32M --init-only --type luks2 \
    "${cheap[@]}" -d key v
}
make_decrypt() {
  truncate -s 300M payload
  cryptsetup luksFormat -q --type luks2 "${cheap[@]}" payload key
  cryptsetup reencrypt -q --decrypt --init-only --force-offline-reencrypt --header v -d key payload
}
make_integrity() { format v luks2 "${cheap[@]}" --integrity hmac-sha256 --integrity-no-wipe; }
make_flags() {
  format v luks2 "${cheap[@]}"
  cryptsetup open --type luks2 -d key --allow-discards --perf-no_read_workqueue --persistent v "$$"
  cryptsetup close "$$"
}

make1_plain() { format v luks1 "${cheap[@]:2}"; }
make1_cbc() {
  format v luks1 "${cheap[@]:2}" --cipher aes-cbc-essiv:sha256 --key-size 128 --hash ripemd160
}
make1_eight() {
  format v luks1 "${cheap[@]:2}" --key-size 256
  local slot
  for slot in 1 2 3 4 5 6 7; do
    cryptsetup luksAddKey -q --pbkdf-force-iterations $((1000 + slot)) -d key v key2
  done
  cryptsetup luksKillSlot -q v 3
}
make1_erased() {
  make1_plain
  cryptsetup luksErase -q v
}
make1_detached1() {
  truncate -s 8M payload
  truncate -s 8M v
  cryptsetup luksFormat -q --type luks1 "${cheap[@]:2}" --header v payload key
}
make1_qemu() {
  qemu-img create -q --object secret,id=s,file=key -f luks -o key-secret=s,iter-time=200 v 1M
}
make1_qemu-twofish() {
  qemu-img create -q --object secret,id=s,file=key -f luks -o key-secret=s,iter-time=200 \
    -o cipher-alg=twofish-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha512 \
    v 1M
}

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
  mapfile -t names < <(declare -F | sed -n 's/^declare -f make1\{0,1\}_//p')
fi
for name in "${names[@]}"; do
  rm -rf "${work:?}"/{v,payload}
  if declare -F "make1_$name" > /dev/null; then
    "make1_$name"
    save1 v "$name"
  elif [[ $name =~ ^(integrity|flags)$ && -z $(grep device-mapper /proc/misc) ]]; then
    echo "make.sh: $name left as it is: no device-mapper here" >&2
  else
    "make_$name"
    save2 v "$name"
  fi
done
