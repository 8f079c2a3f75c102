"""For `gunicorn serve.app:app`, with settings from variables; `python -m serve` needs no such file.

Here SIGHUP replaces the workers, as gunicorn does; SERVE_WATCH_SECONDS looks for bundles without that.
"""

from serve.process.master import gunicorn_settings, prepare
from serve.settings import Settings

globals().update(gunicorn_settings(prepare(Settings())))
