"""What runs the server: gunicorn's master and workers, the protocol, the cores they share."""
