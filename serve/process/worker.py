"""The gunicorn worker: uvicorn that drains before it stops, and looks for new models on SIGHUP."""

import asyncio
import gc
import logging
import signal
import socket
import sys
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from uvicorn import Config, Server
from uvicorn_worker import UvicornWorker

from serve.process.protocol import Protocol
from serve.service import Service

ACCEPTED_AT_ONCE = 64
"""Connections that a worker takes before it does something else, so that others get some as well."""

RESTART = 1
"""Exit status of a worker that could not take another one's place: gunicorn tries again, the others go on."""

log = logging.getLogger("serve")


class DrainingServer(Server):
    """Serves on for a while after SIGTERM, and loses no connection that was made by then."""

    def __init__(self, config: Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._accepting: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # uvloop's own server takes one connection in each round of its loop, and a round is long under load.
        await super().startup([])
        for listener in sockets or ():
            listener.setblocking(False)
            asyncio.get_running_loop().add_reader(listener, self._accept, listener, ACCEPTED_AT_ONCE)
        # What lives as long as the process is not looked through for garbage again and again.
        gc.collect()
        gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.draining = True
        log.info("draining: /readyz answers 503, connections end with their next answer")
        await self._for_a_while(self._service.settings.drain_seconds)
        for listener in sockets or ():
            asyncio.get_running_loop().remove_reader(listener)
            # Closing it resets the connections that the kernel has made and nobody has accepted yet, so there
            # is nothing between the last look and the end.
            self._accept(listener, self.config.backlog)
            listener.close()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        await super().shutdown()

    async def _for_a_while(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until and not self.force_exit:
            await asyncio.sleep(0.05)

    def _accept(self, listener: socket.socket, most: int) -> None:
        """Takes connections that wait, up to so many."""
        loop = asyncio.get_running_loop()
        for _ in range(most):
            try:
                connection, _address = listener.accept()
            except OSError:  # another worker was faster, or there are too many open files
                return
            connection.setblocking(False)
            task = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    def _protocol(self) -> asyncio.Protocol:
        settings, admission = self._service.settings, self._service.admission
        return Protocol(
            self.config, self.server_state, self.lifespan.state, settings=settings, admission=admission
        )


class Worker(UvicornWorker):  # type: ignore[misc]
    """One process that serves; SIGTERM drains it, SIGHUP makes it look for other bundles."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {"loop": "auto", "ws": "none", "server_header": False}

    def init_signals(self) -> None:
        super().init_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # while it starts; it loads what is there then

    async def _serve(self) -> None:
        app = self.wsgi
        service: Service = app.state.service
        app.state.replaces_a_worker = self.age > self.cfg.workers
        self.config.timeout_keep_alive = service.settings.keep_alive_seconds
        self.config.app = app
        self.config.timeout_graceful_shutdown = service.settings.graceful_seconds
        server = DrainingServer(self.config, service)
        self._install_sigquit_handler()
        refreshes: set[asyncio.Task[None]] = set()

        def refresh() -> None:
            task = asyncio.ensure_future(service.refresh())
            refreshes.add(task)
            task.add_done_callback(refreshes.discard)

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, refresh)
        try:
            # gunicorn's wrappers would close their file descriptors a second time, when others may have them.
            await server.serve(sockets=[each.sock for each in self.sockets])
        except SystemExit:  # it could not start; the log says why
            sys.exit(RESTART if app.state.replaces_a_worker else Arbiter.WORKER_BOOT_ERROR)
