"""gunicorn's master process: its settings, and what workers inherit from it."""

import ipaddress
import logging
import os
import resource
import signal
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from starlette.types import ASGIApp

from serve.process.cores import available_cores, shares
from serve.settings import Settings
from serve.telemetry import logs
from serve.telemetry.metrics_folder import mark_dead, prepare_folder

log = logging.getLogger("serve")


def prepare(settings: Settings) -> Settings:
    """Sets up what workers inherit; returns the settings with the workers and threads that fit the machine.

    It comes before anything imports prometheus_client.
    """
    logs.configure(settings.log_format)
    cores = available_cores()
    workers, threads = shares(settings.workers, settings.threads, cores)
    log.info("workers: %d, threads of each: %d, cores: %.1f", workers, threads, cores)
    if settings.api_keys is None and not _is_loopback(settings.host):
        log.warning(
            "NO API KEYS: everybody who reaches %s:%d can use this server; give --api-keys FILE, or keep it "
            "behind a proxy that authenticates clients",
            settings.host,
            settings.port,
        )
    _allow_many_connections()
    prepare_folder()
    settings = settings.model_copy(update={"workers": workers, "threads": threads})
    # Options become variables, so that the application, which reads its own settings, has the same.
    for name, value in settings.model_dump(exclude_none=True).items():
        for part, each in value.items() if isinstance(value, dict) else [("", value)]:
            os.environ[f"SERVE_{name}__{part}".removesuffix("__").upper()] = str(each)
    return settings


def gunicorn_settings(settings: Settings) -> dict[str, Any]:
    """gunicorn's own settings, by name."""
    chosen: dict[str, Any] = {
        "bind": f"{settings.host}:{settings.port}",
        "workers": settings.workers,
        "worker_class": "serve.process.worker.Worker",
        # A worker ends by itself within this time; gunicorn kills one that does not.
        "graceful_timeout": round(settings.drain_seconds) + settings.graceful_seconds + 5,
        "timeout": 120,
        # Code only, sessions open in the workers; one that takes another's place is there sooner.
        "preload_app": True,
        # The control socket is for gunicornc, which nothing here uses: one more file to clean up.
        "control_socket_disable": True,
        "proc_name": "serve",
        "logconfig_dict": logs.configure(settings.log_format),
        "child_exit": lambda _server, worker: mark_dead(worker.pid),
    }
    if os.access("/dev/shm", os.W_OK):
        chosen["worker_tmp_dir"] = "/dev/shm"
    return chosen


class Master(Arbiter):  # type: ignore[misc]
    """Passes SIGHUP on to the workers, which look for new bundles, instead of replacing them all."""

    def handle_hup(self) -> None:
        log.info("SIGHUP: the workers look for new, changed and removed bundles")
        self.kill_workers(signal.SIGHUP)

    def stop(self, graceful: bool = True) -> None:
        """Stops the workers, all of them.

        gunicorn ends at the first one that failed to boot; a second one that fails while it stops would end
        the stopping itself, with a traceback and the wrong exit status.
        """
        while True:
            try:
                super().stop(graceful)
                return
            except HaltServer:
                log.error("another worker failed to boot as well")


class GunicornServer(BaseApplication):  # type: ignore[misc]
    """The server of `python -m serve`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        for name, value in gunicorn_settings(self.settings).items():
            self.cfg.set(name, value)

    def load(self) -> ASGIApp:
        from serve.app import app

        return app

    def run(self) -> None:
        Master(self).run()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _allow_many_connections() -> None:
    """Each connection is an open file, and a shell often allows 1,024 of them where a million would do."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
