"""``python -m api CONFIG.json``: serve the gateway on loopback until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Response

from api import errors
from api.config import GatewayConfig
from api.dependencies import get_gateway
from api.gateway import Gateway, build_gateway
from api.health import Health
from api.jobs import endpoints as jobs
from api.models import endpoints as models
from api.origin import LoopbackOnly
from offchain.errors import InterlockError, InvalidInputError
from offchain.process import log_to_stderr, sole_use

LOOPBACK = "127.0.0.1"
SHUTDOWN_SECONDS = 3


def create_app(gateway: Gateway) -> FastAPI:
    """The application of a gateway; starting and stopping the gateway is left to the caller."""
    app = FastAPI(
        title="Interlock gateway",
        version="1",
        description="Runs models as split inference over workers that nobody has to trust. Nothing that this gateway "
        "says has to be believed: `interlock audit` checks every job from the chain and IPFS alone.",
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.gateway = gateway
    errors.install(app)
    app.add_middleware(LoopbackOnly)
    app.include_router(jobs.router)
    app.include_router(models.router)

    @app.get(
        "/v1/health",
        tags=["health"],
        summary="How the gateway is",
        response_model=Health,
        responses={
            503: {"model": Health, "description": "Chain or IPFS node are away; nothing is lost meanwhile."},
            **errors.documented(),
        },
    )
    def health(here: Annotated[Gateway, Depends(get_gateway)], response: Response) -> Health:
        """200 if it can do its work now, 503 if not."""
        checked = here.health.check()
        response.status_code = 200 if checked.is_healthy else 503
        return checked

    return app


def serve(gateway: Gateway, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, and say on standard output when it listens."""

    class Server(uvicorn.Server):
        """Says when it listens, and leaves signals to us: uvicorn raises them again, which cuts the shutdown short."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
            print(json.dumps({"ready": True, "url": url}), flush=True)

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    server = Server(
        uvicorn.Config(
            create_app(gateway),
            log_config=None,
            lifespan="off",
            ws="none",
            access_log=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
    )

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def end() -> None:
            gateway.stopping.set()
            server.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        await server.serve(sockets=[listener])

    asyncio.run(run())


def run(config_path: Path) -> int:
    """Run a gateway; returns the process's exit code."""
    log_to_stderr()
    try:
        config = GatewayConfig.load(config_path)
        with sole_use(config.state_directory, "gateway"):
            listener = _listen(config.port)
            gateway = build_gateway(config)
            gateway.start()
            try:
                serve(gateway, listener)
            finally:
                gateway.stop()
    except InterlockError as error:
        logging.getLogger("api").error("%s", error)
        return 1
    return 0


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        raise InvalidInputError("port", f"{port} cannot be used ({error})", "give a free port, or 0") from error
    return listener


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("config", type=Path, help="the gateway's JSON configuration")
    return run(parser.parse_args().config)
