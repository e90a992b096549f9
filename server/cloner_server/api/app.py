"""Puts the applications together: one for agents, one for admins. They share nothing but the errors' form.

An application knows no server: `core_of` is asked at each request, so that tests make one for many of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from litestar import Litestar, Router
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.types import ExceptionHandlersMap

from cloner_core.errors import ClonerError
from cloner_server import VERSION
from cloner_server.api.admin import admin_router, capture_router
from cloner_server.api.agent import agent_router
from cloner_server.api.atrest import capture_attempt_router
from cloner_server.api.configs import config_handlers
from cloner_server.api.failures import failure_handlers
from cloner_server.api.faults import answer_error, answer_http_error, answer_trouble
from cloner_server.api.images import image_handlers
from cloner_server.api.keeping import keeping_handlers
from cloner_server.api.looking import looking_handlers
from cloner_server.api.relays import relay_routers
from cloner_server.api.scripts import script_handlers
from cloner_server.api.stream import stream_handlers
from cloner_server.core import Core


def agent_app(core_of: Callable[[], Core]) -> Litestar:
    """Return the application of the TLS port."""
    routers = [agent_router(), capture_attempt_router(core_of), capture_router(core_of), *relay_routers(core_of)]
    return _app(core_of, routers, openapi=None)


def admin_app(core_of: Callable[[], Core]) -> Litestar:
    """Return the application of the Unix socket; its OpenAPI description is at /schema/openapi.json."""
    more: list[Any] = [
        *image_handlers(),
        *keeping_handlers(),
        *looking_handlers(),
        *config_handlers(),
        *script_handlers(),
        *failure_handlers(),
        *stream_handlers(),
    ]
    return _app(core_of, (admin_router(more),), openapi=OpenAPIConfig(title="Cloner", version=VERSION))


def _app(core_of: Callable[[], Core], routers: Sequence[Router], openapi: OpenAPIConfig | None) -> Litestar:
    def plainly(config: AppConfig) -> AppConfig:
        config.logging_config = None  # ours is set up by `serve`; Litestar would log request lines of its own
        return config

    handlers: ExceptionHandlersMap = {
        ClonerError: answer_error,
        HTTPException: answer_http_error,
        Exception: answer_trouble,
    }
    return Litestar(
        list(routers),
        dependencies={"core": Provide(core_of, sync_to_thread=False)},
        exception_handlers=handlers,
        openapi_config=openapi,
        on_app_init=[plainly],
    )
