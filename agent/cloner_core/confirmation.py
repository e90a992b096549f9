"""The one-shot by which a clone itself reports that it booted, and which then removes itself.

It calls, or where it must not it says a line on its console: what it is, and a proof that only the holder of the
attempt's secret can make, never the secret. Written for bash and its /dev/tcp, because many images have neither curl
nor Python; everything it needs besides is in the kernel, systemd and coreutils.
"""

from __future__ import annotations

import hashlib
import re

from cloner_core.errors import InvalidError
from cloner_core.messages import ConfirmTo, Strict

SETTINGS = "/var/lib/cloner/confirm"
"""Where to report and with which secret; 0600, removed after the report was acknowledged."""
SCRIPT = "/usr/lib/cloner/confirm"
UNIT = "/etc/systemd/system/cloner-confirm.service"
WANTS = "/etc/systemd/system/multi-user.target.wants/cloner-confirm.service"

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,512}")
_ATTEMPT = re.compile(r"[0-9a-f-]{1,64}")
_LINE = re.compile(
    rb"CLONER-CONFIRM 1 (?P<attempt>[0-9a-f-]{1,64}) (?P<machine_id>[0-9a-f]{32}) (?P<boot_id>[0-9a-f-]{1,64})"
    rb" (?P<root_part_uuid>[0-9A-Fa-f-]{1,64}) (?P<proof>[0-9a-f]{64})(?![0-9a-f])"
)

UNIT_CONTENT = rb"""# Written by Cloner; removes itself once the server knows that this clone booted.
[Unit]
Description=Report to the Cloner server that this clone booted
ConditionPathExists=/var/lib/cloner/confirm
After=network.target

[Service]
Type=simple
ExecStart=/bin/bash /usr/lib/cloner/confirm
StandardInput=null

[Install]
WantedBy=multi-user.target
"""
# Type=simple, for a oneshot would hold multi-user.target back until the server answers.

SCRIPT_CONTENT = rb"""#!/bin/bash
# Written by Cloner: tells the server that this clone booted, and from which partition; then removes itself.
# A clone whose report is never acknowledged tries again at its next boot, and says so on its console.
set -u
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
base=${1:-} pause=${2:-5}
settings=$base/var/lib/cloner/confirm
[ -r "$settings" ] || exit 0
. "$settings"

# What / lies on: its PARTUUID, or where it is no partition (LVM, md, LUKS, a whole disk) the UUID of the filesystem.
# Links of udev lead to a block device, whose number is compared with that of the mount.
root_id() {
  local number='' source='' kind=partuuid rest id parent devno top point path link name
  while read -r id parent devno top point rest; do
    [ "$point" = / ] || continue
    number=$devno rest=${rest#* - } rest=${rest#* } source=${rest%% *}
  done <"$base/proc/self/mountinfo"
  case $number in
    0:*) # btrfs has a number of its own, of no device
      name=$(readlink -f "$base$source")
      number=$(cat "$base/sys/class/block/${name##*/}/dev" 2>/dev/null) || return ;;
  esac
  for path in "$base"/sys/class/block/*; do
    [ "$(cat "$path/dev" 2>/dev/null)" = "$number" ] || continue
    [ -e "$path/partition" ] || kind=uuid
  done
  for link in "$base/dev/disk/by-$kind"/*; do
    name=$(readlink "$link") || continue
    name=${name##*/}
    if [ "$(cat "$base/sys/class/block/$name/dev" 2>/dev/null)" = "$number" ]; then
      printf %s "${link##*/}"
      return
    fi
  done
  name=/dev/block/$number
  blkid -s "${kind^^}" -o value "$name" 2>/dev/null || lsblk -no "${kind^^}" "$name" 2>/dev/null
}

look() {
  machine=$(cat "$base/etc/machine-id") || return 1
  boot=$(cat "$base/proc/sys/kernel/random/boot_id") || return 1
  part=$(root_id)
  [ -n "$part" ] || { echo "cloner: what / lies on is not known yet" >&2; return 1; }
}

report() {
  local body status=''
  look || return 1
  body="{\"secret\":\"$SECRET\",\"machine_id\":\"$machine\",\"boot_id\":\"$boot\",\"root_part_uuid\":\"$part\"}"
  {
    printf 'POST /confirm HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n' "$HOST" >&3
    printf 'Content-Length: %s\r\nConnection: close\r\n\r\n%s' "${#body}" "$body" >&3
    read -r -t 15 status <&3
  } 3<>"/dev/tcp/$HOST/$PORT" || true
  case $status in
    HTTP/1.?\ 2*) return 0 ;;
    HTTP/*) echo "cloner: the server said: ${status%$'\r'}" >&2 ;;
  esac
  return 1
}

# To every console of the machine; the secret goes through pipes and builtins alone, so that no process list has it.
say() {
  local key proof name
  look || return 1
  key=$(printf %s "$SECRET" | sha256sum) || return 1
  proof=$(printf 'cloner console 1 %s %s %s %s' "${key%% *}" "$machine" "$boot" "$part" | sha256sum) || return 1
  for name in $(cat "$base/sys/class/tty/console/active" 2>/dev/null || echo console); do
    printf '\r\nCLONER-CONFIRM 1 %s %s %s %s %s\r\n' "$ATTEMPT" "$machine" "$boot" "$part" "${proof%% *}" \
      >"$base/dev/$name"
  done
}

machine='' boot='' part=''
wait=1
if [ "$WAY" = console ]; then
  until say 2>/dev/null; do
    [ $SECONDS -lt 600 ] || exit 1
    sleep 2
  done
  # Others write on a console too, in the middle of a line.
  for _ in 1 2; do sleep "$pause"; say; done
else until report 2>/dev/null; do
  if [ $SECONDS -ge 600 ]; then
    report && break
    say 2>/dev/null
    echo "cloner: no acknowledgement from $HOST port $PORT in ten minutes; next try at the next boot" >&2
    exit 1
  fi
  sleep "$wait"
  wait=$((wait < 30 ? wait * 2 : 30))
done; fi

rm -f "$settings" "$base/etc/systemd/system/multi-user.target.wants/cloner-confirm.service" \
  "$base/etc/systemd/system/cloner-confirm.service" "$base/usr/lib/cloner/confirm"
rmdir "$base/var/lib/cloner" "$base/usr/lib/cloner" 2>/dev/null
echo "cloner: reported that this clone booted"
"""


def settings_content(confirm: ConfirmTo) -> bytes:
    """Return the settings the script sources; every value is one plain word.

    Raises InvalidError when host, port or secret are not such words.
    """
    secret = confirm.secret.value
    faults = []
    if not _HOST.fullmatch(confirm.host):
        faults.append(f"host: '{confirm.host}' is not a name or an address")
    if not 0 < confirm.port < 65536:
        faults.append(f"port: {confirm.port} is not a port")
    if not _SECRET.fullmatch(secret):
        faults.append("secret: not of letters, digits, hyphens and underscores")
    if confirm.attempt and not _ATTEMPT.fullmatch(confirm.attempt):
        faults.append(f"attempt: '{confirm.attempt}' is not the name of one")
    if faults:
        raise InvalidError("the clone cannot be told where to confirm", faults=faults)
    told = {"WAY": confirm.way, "HOST": confirm.host, "PORT": confirm.port, "SECRET": secret}
    return "".join(f"{name}={word}\n" for name, word in (told | {"ATTEMPT": confirm.attempt}).items()).encode()


class ConsoleLine(Strict, frozen=True):
    """What a clone said on its console."""

    attempt: str
    machine_id: str
    boot_id: str
    root_part_uuid: str
    proof: str  # hex, of `console_proof`


def console_lines(said: bytes) -> tuple[ConsoleLine, ...]:
    """Return the lines of clones in what a console said, each once; everything else there is ignored."""
    found = (ConsoleLine(**{name: text.decode() for name, text in m.groupdict().items()}) for m in _LINE.finditer(said))
    return tuple(dict.fromkeys(found))


def console_proof(secret_hash: str, machine_id: str, boot_id: str, root_part_uuid: str) -> str:
    """Return the proof of a console's line; `secret_hash` is the SHA-256 (hex) of the attempt's secret.

    The server knows no more than that hash, so the proof is made from it.
    """
    text = f"cloner console 1 {secret_hash} {machine_id} {boot_id} {root_part_uuid}"
    return hashlib.sha256(text.encode()).hexdigest()
