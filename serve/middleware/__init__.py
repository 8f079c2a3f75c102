"""What every request passes before its route: the request log and the API keys."""
