"""How each image is captured: kept with it, changed by compare-and-swap."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, Row, insert, select, update

from cloner_core.admin.options import OptionsView
from cloner_core.errors import ConflictError
from cloner_core.image.options import StoredOptions, canonical, difference_rows, differences_of
from cloner_server.state import events, layouts
from cloner_server.state.database import Act
from cloner_server.state.tables import image_options


def view(connection: Connection, image: str) -> OptionsView:
    """Return the options of `image`; of one that is not there yet, or was captured without any, there are none."""
    query = select(image_options).where(image_options.c.image == image)
    row = connection.execute(query).one_or_none()
    return OptionsView(image, 0, None, 0.0, "") if row is None else _view(row)


def require_revision(present: OptionsView, revision: int | UnsetType) -> None:
    """Raise ConflictError unless the options of an image still have `revision`; UNSET: whichever they have."""
    if revision is not UNSET and revision != present.revision:
        raise ConflictError(
            f"the options of {present.image} have revision {present.revision}, wanted {revision}: "
            f"{present.author or 'somebody'} changed them meanwhile",
            hint="read them again: cloner image-details",
        )


def keep(
    connection: Connection, act: Act, image: str, options: StoredOptions, *, revision: int | UnsetType = UNSET
) -> OptionsView:
    """Keep `options` with `image`; what is so already changes nothing.

    Raises InvalidError naming every fault, NotFoundError for a layout there is not, ConflictError when `revision` is
    not the present one.
    """
    options = canonical(options)
    if options.layout:
        layouts.get_layout(connection, options.layout)
    present = view(connection, image)
    require_revision(present, revision)
    if present.options == options:
        return present
    told = [" ".join(row) for row in difference_rows(list(differences_of(present.options or StoredOptions(), options)))]
    document = msgspec.json.encode(options).decode()
    return _change(connection, act, present, document, what="options changed", detail={"differences": told})


def forget(connection: Connection, act: Act, image: str) -> None:
    """Keep no options with `image` any more: none of its versions is left."""
    present = view(connection, image)
    if present.options is not None:
        _change(connection, act, present, "", what="options forgotten", detail={})


def _change(
    connection: Connection, act: Act, present: OptionsView, document: str, *, what: str, detail: dict[str, Any]
) -> OptionsView:
    image, revision = present.image, present.revision + 1
    values = {"revision": revision, "document": document, "changed_s": act.now_s, "author": act.author}
    if present.revision:
        connection.execute(update(image_options).where(image_options.c.image == image).values(values))
    else:
        connection.execute(insert(image_options).values(values | {"image": image}))
    events.record(connection, act, f"image/{image}", what, revision=revision, **detail)
    return view(connection, image)


def _view(row: Row[tuple[Any, ...]]) -> OptionsView:
    options = msgspec.json.decode(row.document, type=StoredOptions) if row.document else None
    return OptionsView(row.image, row.revision, options, row.changed_s, row.author)
