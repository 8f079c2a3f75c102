"""What every request passes before its route: the log, the API keys, the limit of a body."""
