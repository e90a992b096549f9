"""A machine whose power is cut while its firmware writes boot variables still reaches the network, or its disk.

The cases are those of `power_cut`, cut where the agent writes variables: the order at the commit, then entry and order,
then BootNext. QEMU's flash keeps what it was given; what a cut splits is the firmware's series of writes to it.
"""

from __future__ import annotations

from soak.laws.power_cut import Span, power_cut_law

SPANS = (Span("commit", 1.2, 2), Span("nvram", 0.3, 4), Span("reboot", 0.3, 1))

LAW = power_cut_law("power-cut-nvram", "while firmware variables are written", 30, SPANS)
