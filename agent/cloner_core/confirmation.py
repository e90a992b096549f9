"""The one-shot by which a clone itself reports that it booted, and which then removes itself.

Files only; what the server makes of the report is its own business. Written for bash and its /dev/tcp, because many
images have neither curl nor Python; everything it needs besides is in the kernel, systemd and coreutils.
"""

from __future__ import annotations

import re

from cloner_core.errors import InvalidError
from cloner_core.messages import ConfirmTo

SETTINGS = "/var/lib/cloner/confirm"
"""Where to report and with which secret; 0600, removed after the report was acknowledged."""
SCRIPT = "/usr/lib/cloner/confirm"
UNIT = "/etc/systemd/system/cloner-confirm.service"
WANTS = "/etc/systemd/system/multi-user.target.wants/cloner-confirm.service"

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,512}")

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
# A clone whose report is never acknowledged tries again at its next boot.
set -u
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
base=${1:-}
settings=$base/var/lib/cloner/confirm
[ -r "$settings" ] || exit 0
. "$settings"

# The PARTUUID under /: by-partuuid links lead to a block device, whose number is compared with that of the mount.
root_part_uuid() {
  local number='' rest id parent devno top point link name
  while read -r id parent devno top point rest; do
    [ "$point" = / ] && number=$devno
  done <"$base/proc/self/mountinfo"
  for link in "$base"/dev/disk/by-partuuid/*; do
    name=$(readlink "$link") || continue
    name=${name##*/}
    if [ "$(cat "$base/sys/class/block/$name/dev" 2>/dev/null)" = "$number" ]; then
      printf %s "${link##*/}"
      return
    fi
  done
  blkid -s PARTUUID -o value "/dev/block/$number" 2>/dev/null || lsblk -no PARTUUID "/dev/block/$number" 2>/dev/null
}

report() {
  local machine boot part body status=''
  machine=$(cat "$base/etc/machine-id") || return 1
  boot=$(cat "$base/proc/sys/kernel/random/boot_id") || return 1
  part=$(root_part_uuid)
  [ -n "$part" ] || { echo "cloner: the partition of / is not known yet" >&2; return 1; }
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

wait=1
until report 2>/dev/null; do
  if [ $SECONDS -ge 600 ]; then
    report && break
    echo "cloner: no acknowledgement from $HOST port $PORT in ten minutes; next try at the next boot" >&2
    exit 1
  fi
  sleep "$wait"
  wait=$((wait < 30 ? wait * 2 : 30))
done

rm -f "$settings" "$base/etc/systemd/system/multi-user.target.wants/cloner-confirm.service" \
  "$base/etc/systemd/system/cloner-confirm.service" "$base/usr/lib/cloner/confirm"
rmdir "$base/var/lib/cloner" "$base/usr/lib/cloner" 2>/dev/null
echo "cloner: the server knows that this clone booted"
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
    if faults:
        raise InvalidError("the clone cannot be told where to confirm", faults=faults)
    return f"HOST={confirm.host}\nPORT={confirm.port}\nSECRET={secret}\n".encode()
