"""The tables, as SQLAlchemy Core knows them; the migrations make the very same ones.

Documents (facts, layouts, networks) are JSON text of the types in `cloner_core`; what is searched or compared has a
column of its own. Times are seconds since the epoch by the server's clock.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

metadata = MetaData()

KEEP_COUNTS = ("last", "daily", "weekly", "monthly", "yearly")
"""The fields of `cloner_core.image.keeping.KeepRule`, a column each."""

LIVE_TASK = "state IN ('queued', 'waiting', 'booting', 'running', 'lost', 'unconfirmed', 'frozen')"
"""SQL of a task that still holds its node; `cloner_server.tasks.states.LIVE` is the same set (a test compares)."""

nodes = Table(
    "nodes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("image", Text, nullable=False, server_default=""),
    Column("version", Integer),  # NULL: what `channel` points to, else the newest, at the time of the task
    Column("channel", Text, nullable=False, server_default=""),  # of the image; "" follows none
    Column("layout", Text, nullable=False, server_default=""),
    Column("netboot", Text, nullable=False, server_default="local"),
    Column("network", Text, nullable=False),
    Column("local_method", Text, nullable=False, server_default="exit"),  # "": as the model or the site has it
    Column("boot_order", Text, nullable=False, server_default="network-first"),  # likewise
    Column("kernel_arguments", Text, nullable=False, server_default="[]"),
    Column("is_protected", Boolean, nullable=False, server_default=text("0")),
    Column("protected_serials", Text, nullable=False, server_default="[]"),
    Column("files", Text, nullable=False, server_default="[]"),
    Column("groups", Text, nullable=False, server_default="[]"),
    Column("confirm", Text, nullable=False, server_default=""),  # ConfirmWay; "": the site's
    Column("uuid", Text, nullable=False, server_default=""),  # what the machine's DMI table must say; "" anything
    Column("serial", Text, nullable=False, server_default=""),
    Column("offered", Text),  # cloner_core.admin.Hardware, turned away and waiting for an admin; NULL nothing
    Column("fingerprint", Text, nullable=False, server_default=""),  # accepted hardware; "" none yet
    Column("switch", Text, nullable=False, server_default=""),  # as an admin calls it
    Column("installer", Text, nullable=False, server_default=""),  # it boots; "": as its image or the site has it
    Column("neighbors", Text, nullable=False, server_default="[]"),  # as LLDP told
    Column("relay", Text, nullable=False, server_default=""),  # giaddr of the last DHCP request
    Column("facts", Text),  # NULL: never seen
    Column("facts_s", Float),
    Column("created_s", Float, nullable=False),
)

node_keys = Table(
    "node_keys",
    metadata,
    Column("kind", Text, nullable=False),  # "mac"
    Column("value", Text, nullable=False),
    Column("node", Text, ForeignKey("nodes.name", ondelete="CASCADE"), nullable=False, index=True),
    PrimaryKeyConstraint("kind", "value"),
)

hardware_models = Table(
    "hardware_models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("vendor", Text, nullable=False),  # shell patterns; "" any
    Column("product", Text, nullable=False),
    Column("local_method", Text, nullable=False),  # "": nothing is said of it
    Column("boot_order", Text, nullable=False),
)

tokens = Table(
    "tokens",  # of commands on other machines
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),  # SHA-256 of the token; the token itself is kept nowhere
    Column("image", Text, nullable=False),
    Column("layouts", Text, nullable=False),  # JSON: names that it may change
    Column("installers", Text, nullable=False, server_default="[]"),  # likewise
    Column("relay", Text, nullable=False, server_default=""),  # whose it is; "": it captures
    Column("note", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("expires_s", Float, nullable=False),
    Column("used_s", Float),  # NULL never
)

node_groups = Table(
    "node_groups",  # what is set for a group; who is in it, the nodes say
    metadata,
    Column("name", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("is_protected", Boolean, nullable=False, server_default=text("0")),
)

versions = Table(
    "versions",
    metadata,
    Column("image", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", Text, nullable=False, index=True),
    Column("published_s", Float, nullable=False),
    Column("author", Text, nullable=False),
    Column("removed_s", Float),  # NULL: it is there
    PrimaryKeyConstraint("image", "number"),
)

channel_moves = Table(
    "channel_moves",  # the last of a channel says where it points
    metadata,
    Column("image", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("revision", Integer, nullable=False),  # of the channel, from 1; goes on after a removal
    Column("number", Integer),  # of the version; NULL: removed
    Column("moved_s", Float, nullable=False),
    Column("author", Text, nullable=False),
    PrimaryKeyConstraint("image", "channel", "revision"),
)

keep_rules = Table(
    "keep_rules",
    metadata,
    Column("image", Text, nullable=False),
    Column("channel", Text, nullable=False),  # "": of the image itself
    Column("revision", Integer, nullable=False),
    *(Column(name, Integer, nullable=False) for name in KEEP_COUNTS),  # all 0: removed; revisions go on after it
    Column("changed_s", Float, nullable=False),
    Column("author", Text, nullable=False),
    PrimaryKeyConstraint("image", "channel"),
)

image_options = Table(
    "image_options",
    metadata,
    Column("image", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("document", Text, nullable=False),  # "": none, its last version was removed; revisions go on after it
    Column("changed_s", Float, nullable=False),
    Column("author", Text, nullable=False),
)

store_sizes = Table(
    "store_sizes",  # noted once a day, to tell when the disk is full
    metadata,
    Column("taken_s", Float, primary_key=True),
    Column("used_bytes", BigInteger, nullable=False),  # of the filesystem under the store
)

installers = Table(
    "installers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("present", Text),  # cloner_core.admin.installers.InstallerBuild; NULL: removed, revisions go on
    Column("previous", Text),  # likewise; NULL: there was none
    Column("changed_s", Float, nullable=False),
    Column("author", Text, nullable=False),
)

image_installers = Table(
    "image_installers",
    metadata,
    Column("image", Text, primary_key=True),
    Column("installer", Text, nullable=False),  # "": as the site has it
    Column("revision", Integer, nullable=False),
    Column("changed_s", Float, nullable=False),
    Column("author", Text, nullable=False),
)

layouts = Table(
    "layouts",
    metadata,
    Column("name", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("author", Text, nullable=False),
    PrimaryKeyConstraint("name", "number"),
)

script_sets = Table(
    "script_sets",
    metadata,
    Column("image", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("version", Integer, nullable=False),  # of the image: the first one it is for
    Column("document", Text, nullable=False),  # list of cloner_core.scripts.Script
    Column("created_s", Float, nullable=False),
    Column("author", Text, nullable=False),
    PrimaryKeyConstraint("image", "number"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("revision", Integer, nullable=False),
    Column("node", Text, nullable=False, index=True),  # no foreign key: a task outlives its node
    Column("kind", Text, nullable=False),  # "deploy", "erase", "capture"
    Column("state", Text, nullable=False, index=True),
    Column("stage", Text, nullable=False, server_default=""),
    Column("image", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("layout", Text, nullable=False),
    Column("layout_number", Integer, nullable=False),
    Column("document", Text, nullable=False),  # the layout when the task was made; or an EraseOrder
    Column("scripts_number", Integer, nullable=False, server_default=text("0")),  # of script_sets; 0 no scripts
    Column("attempts_allowed", Integer, nullable=False),  # number of the last attempt there may be
    Column("session", Integer, nullable=False, server_default=text("0")),  # of multicast; 0 none
    Column("failure", Text),
    Column("confirmed_by", Text, nullable=False, server_default=""),  # ConfirmWay; "" not yet
    Column("author", Text, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("changed_s", Float, nullable=False),
    sqlite_autoincrement=True,
)
Index("one_live_task", tasks.c.node, unique=True, sqlite_where=text(LIVE_TASK), postgresql_where=text(LIVE_TASK))

sessions = Table(
    "sessions",  # of multicast; no key of an epoch is kept anywhere
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("state", Text, nullable=False, index=True),  # cloner_core.admin.sessions.SessionState
    Column("image", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("pack_map", Text, nullable=False, server_default=""),  # whose packs are sent; "" until the first seat
    Column("least", Integer, nullable=False),  # 0: every node
    Column("wait_s", Float, nullable=False),
    Column("is_start_now", Boolean, nullable=False),  # begins with the first that hears; or an admin said "now"
    Column("priority", Integer, nullable=False),
    Column("asked_bps", Float, nullable=False),  # 0: what the link gives
    Column("rate_bps", Float, nullable=False),  # what it may send
    Column("hops", Integer, nullable=False),
    Column("relay", Text, nullable=False, server_default=""),  # on whose wire; "" our own
    Column("interface", Text, nullable=False),
    Column("group", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("stream", BigInteger, nullable=False, server_default=text("0")),  # of its last epoch; 0 there was none
    Column("epochs", Integer, nullable=False, server_default=text("0")),
    Column("deaths", Integer, nullable=False, server_default=text("0")),  # of senders, one after the other
    Column("receivers", Integer, nullable=False, server_default=text("0")),  # the last number given in the epoch
    Column("parcels", Integer, nullable=False, server_default=text("0")),
    Column("data_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("sent", Text),  # cloner_server.state.sessions.Sent of the last epoch; NULL nothing was sent
    Column("why", Text, nullable=False, server_default=""),
    Column("author", Text, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("gathered_s", Float),  # when the first node asked for a seat
    Column("started_s", Float),  # when sending began
    Column("ended_s", Float),
    sqlite_autoincrement=True,
)

session_seats = Table(
    "session_seats",
    metadata,
    Column("session", Integer, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("node", Text, nullable=False),  # no foreign key: a session outlives its nodes
    Column("task", Integer, nullable=False, index=True),
    Column("state", Text, nullable=False),  # cloner_core.admin.sessions.SeatState
    Column("why", Text, nullable=False, server_default=""),
    Column("parcels", Integer, nullable=False, server_default=text("0")),
    Column("loss", Float, nullable=False, server_default=text("0")),
    Column("stream", BigInteger, nullable=False, server_default=text("0")),  # the epoch of `receiver`; 0 none
    Column("receiver", Integer, nullable=False, server_default=text("0")),
    Column("seated_s", Float),  # NULL: it has no seat in an epoch
    Column("attempt", Text, nullable=False, server_default=""),  # of the task, which took it; "" none yet
    PrimaryKeyConstraint("session", "node"),
)

waiting = Table(
    "waiting",  # nodes in `cloner-multicast` without a task
    metadata,
    Column("node", Text, ForeignKey("nodes.name", ondelete="CASCADE"), primary_key=True),
    Column("token_hash", Text, nullable=False, server_default=""),  # of the claim its agent came with; "" none came
    Column("public_key", Text, nullable=False, server_default=""),
    Column("since_s", Float),  # NULL: it has not come yet
    Column("seen_s", Float),
    Column("address", Text, nullable=False, server_default=""),
    Column("link_mbps", Integer, nullable=False, server_default=text("0")),  # 0 not known
    Column("former", Text, nullable=False),  # netboot as it was before
    Column("leave", Text, nullable=False, server_default=""),  # why it is sent away; "" it is not
)

claims = Table(
    "claims",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("task", Integer, ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("node", Text, nullable=False),
    Column("minted_s", Float, nullable=False),
    Column("expires_s", Float, nullable=False),
    Column("used_s", Float),  # NULL: not used
    Column("attempt", Text),  # the attempt it became
)

discover_claims = Table(
    "discover_claims",  # of boot scripts that lead to no task: to an inventory, or to waiting for a session
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("object", Text, nullable=False, index=True),  # "node/n01", "machine/52:54:00:12:34:56", "waiting/n01"
    Column("minted_s", Float, nullable=False),
    Column("expires_s", Float, nullable=False),
    Column("used_s", Float),  # NULL: not used
    Column("public_key", Text, nullable=False, server_default=""),  # of the agent that used it
)

machines = Table(
    "machines",  # that are no nodes, and whose inventory an admin has allowed
    metadata,
    Column("mac", Text, primary_key=True),
    Column("netboot", Text, nullable=False),  # "discover" or "local"
    Column("facts", Text),  # NULL: not told yet
    Column("facts_s", Float),
    Column("allowed_s", Float, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("task", Integer, ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("number", Integer, nullable=False),  # from 1 within the task
    Column("state", Text, nullable=False),  # "live", "holding", "released", "revoked", "ended"
    Column("credential_hash", Text, nullable=False, unique=True),
    Column("public_key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("facts", Text, nullable=False),
    Column("seed", Text, nullable=False),
    Column("told", Text, nullable=False),  # the task as the attempt was told it, without its confirm secret
    Column("confirm", Text, nullable=False, server_default="phone-home"),  # ConfirmWay
    Column("confirm_hash", Text, nullable=False, unique=True),
    Column("started_s", Float, nullable=False),
    Column("beat_s", Float, nullable=False),
    Column("beat_every_s", Float),  # as it was told; NULL: by a server that did not keep it
    Column("address", Text, nullable=False, server_default=""),  # it was last heard from; "" not an IP address
    Column("console", Text),  # cloner_core.messages.ConsoleReport; NULL none came
    Column("rival_s", Float),  # when a second claim came beside this one; NULL none
    Column("progress", Text),
    Column("is_destroyed", Boolean, nullable=False, server_default=text("0")),
    Column("plan_digest", Text),  # NULL until confirmed
    Column("plan", Text),
    Column("planned", Text),  # what of the plan the receipt must repeat, cloner_core.plan.Written; NULL as plan_digest
    Column("identity_s", Float),
    Column("committed_s", Float),
    Column("ended_s", Float),
)

task_log = Table(
    "task_log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("task", Integer, ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("attempt", Text, nullable=False),
    Column("time_s", Float, nullable=False),
    Column("level", Text, nullable=False),
    Column("text", Text, nullable=False),
    sqlite_autoincrement=True,
)

bundles = Table(
    "bundles",
    metadata,
    Column("attempt", Text, primary_key=True),
    Column("task", Integer, ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("received_s", Float, nullable=False),
    Column("size", Integer, nullable=False),  # of the JSON, in bytes
    Column("content", LargeBinary, nullable=False),  # JSON of cloner_core.bundle.Bundle, one zstd frame
)

receipts = Table(
    "receipts",
    metadata,
    Column("attempt", Text, primary_key=True),
    Column("task", Integer, nullable=False, index=True),
    Column("node", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False, server_default="deploy"),  # of its task
    Column("body", Text, nullable=False),
    Column("accepted_s", Float, nullable=False),
    Column("signature", Text, nullable=False),
    Column("confirmed_s", Float),
    Column("confirmed_by", Text, nullable=False, server_default=""),  # ConfirmWay; "" not yet
    Column("boot_id", Text, nullable=False, server_default=""),
)

vault = Table(
    "vault",
    metadata,
    Column("node", Text, primary_key=True),
    Column("nonce", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_s", Float, nullable=False),
)

recovery_keys = Table(
    "recovery_keys",
    metadata,
    Column("node", Text, nullable=False),  # which need not exist any more: its disk does
    Column("number", Integer, nullable=False),  # from 1
    Column("nonce", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("made_s", Float, nullable=False),
    PrimaryKeyConstraint("node", "number"),
)

console_passwords = Table(
    "console_passwords",
    metadata,
    Column("scope", Text, nullable=False),  # "site", "group", "node"
    Column("name", Text, nullable=False),  # of the group or node, which need not exist (any more); "" of the site
    Column("salt", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("set_s", Float, nullable=False),
    PrimaryKeyConstraint("scope", "name"),
)

leases = Table(
    "leases",
    metadata,
    Column("address", Text, primary_key=True),
    Column("mac", Text, nullable=False),  # "": declined, somebody unknown uses it
    Column("expires_s", Float, nullable=False),
)
Index(
    "one_lease_a_machine", leases.c.mac, unique=True, sqlite_where=text("mac <> ''"), postgresql_where=text("mac <> ''")
)

sightings = Table(
    "sightings",
    metadata,
    Column("node", Text, ForeignKey("nodes.name", ondelete="CASCADE"), nullable=False),
    Column("step", Text, nullable=False),  # cloner_core.sightings.BootStep
    Column("time_s", Float, nullable=False),
    Column("address", Text, nullable=False),
    PrimaryKeyConstraint("node", "step"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("time_s", Float, nullable=False),
    Column("author", Text, nullable=False),
    Column("object", Text, nullable=False),  # "node/n01", "task/17", "image/debian:3", "site"
    Column("revision", Integer, nullable=False),  # of the object after the change; 0 where it has none
    Column("what", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("is_alarm", Boolean, nullable=False, server_default=text("0")),
    Column("is_network", Boolean, nullable=False, server_default=text("0")),  # anybody on the wire can cause it
    Index("events_of_object", "object", "what", "time_s"),
    sqlite_autoincrement=True,
)
