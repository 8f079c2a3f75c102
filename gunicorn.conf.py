"""What `gunicorn serve.app:app` needs besides its name; `python -m serve` has its own settings."""

worker_class = "uvicorn_worker.UvicornWorker"
# The control socket is for gunicornc, which nothing here uses, and would be one more file to clean up.
control_socket_disable = True
